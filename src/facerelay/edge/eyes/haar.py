"""The detector of old, for comparison."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import cv2

from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes.detect import Detection, DetectorOptions, ModelError


class HaarDetector:
    """Viola and Jones' cascade as OpenCV has it: scale factor 1.3, 5 neighbours, on the full grey picture.

    It has neither scores nor landmarks, so the options do not concern it.

    Raises:
        ModelError: this OpenCV has no cascades.
    """

    size = 0

    def __init__(self, options: DetectorOptions) -> None:  # noqa: ARG002 - as every detector is made
        if not hasattr(cv2, "CascadeClassifier"):
            raise ModelError("this OpenCV has no cascades: pip install 'opencv-python-headless<5'")
        folder = Path(cast("Any", cv2).data.haarcascades)
        self._cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
        if self._cascade.empty():
            raise ModelError("OpenCV's Haar cascade is missing: pip install 'opencv-python-headless<5'")
        self._lock = threading.Lock()

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces; their score is 1."""
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        with self._lock:
            boxes = self._cascade.detectMultiScale(grey, 1.3, 5)
        return [Detection((float(x), float(y), float(w), float(h)), 1.0) for x, y, w, h in boxes]
