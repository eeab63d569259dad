"""The soak: the real chain under a seeded schedule of faults, then an audit of the bucket, byte for byte."""
