"""What the command line does beyond one role: it alone knows edge, link and cloud together."""
