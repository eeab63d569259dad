"""From frames to the faces worth sending: search, tracks, quality, the best shot, the crop."""
