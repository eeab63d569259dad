"""What cameras' pictures become, accuracy and speed side by side: `python -m bench.eyes`."""
