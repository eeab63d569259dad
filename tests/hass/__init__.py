"""What Home Assistant publishes of its discovery, and Home Assistant itself."""
