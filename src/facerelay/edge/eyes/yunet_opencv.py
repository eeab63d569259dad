"""YuNet in OpenCV's own network code: slower than onnxruntime, and one library less."""

from __future__ import annotations

import threading
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes import yunet
from facerelay.edge.eyes.detect import Detection, DetectorOptions

_TINY: Final = 32


class OpenCvDetector:
    """The same model as `yunet`, behind a lock.

    Raises:
        ModelError: the weights are missing or differ.
    """

    def __init__(self, options: DetectorOptions) -> None:
        path, self.size = str(yunet.weights_path()), options.size
        shown = (options.size, options.size)
        self._net = cv2.FaceDetectorYN.create(path, "", shown, options.threshold, yunet.NMS_IOU, yunet.TOP_K)
        self._lock = threading.Lock()

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces, the surest first."""
        small, scale = yunet.shrink(image, self.size)
        down, right = (_TINY if side <= _TINY else 0 for side in small.shape[:2])
        if down or right:
            # OpenCV 4.14 reads memory it never wrote where the network's input is but 32 pixels high or wide.
            small = cast("Image", cv2.copyMakeBorder(small, 0, down, 0, right, cv2.BORDER_CONSTANT))
        with self._lock:
            self._net.setInputSize((small.shape[1], small.shape[0]))
            rows = cast("NDArray[np.float32] | None", self._net.detect(small)[1])
        return [] if rows is None else yunet.detections(rows, scale)
