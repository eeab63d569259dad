"""From the last broker into the bucket, and what can be read there."""
