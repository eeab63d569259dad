"""Faces from a camera at the edge to a bucket in the cloud: few bytes, nothing lost, all accounted for."""

import os

__version__ = "0.1.0"

# OpenCV reads this once, when it is loaded, which no module of ours does before this one.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "64000000")
