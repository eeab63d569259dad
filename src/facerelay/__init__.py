"""Faces from a camera at the edge to a bucket in the cloud: few bytes, nothing lost, all accounted for."""

__version__ = "0.1.0"
