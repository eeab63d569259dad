"""Benchmarks: `python -m bench.chain`."""
