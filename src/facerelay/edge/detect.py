"""Where faces are in a picture.

`make_detector` gives the one that a setting names. A detector may be shared by the threads of several
cameras.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge import yunet
from facerelay.edge.yunet import ModelError

__all__ = ["NAMES", "Detection", "Detector", "Image", "ModelError", "make_detector"]

Image: TypeAlias = NDArray[np.uint8]
"""Height x width x 3, BGR; or height x width, grey."""

Point: TypeAlias = tuple[float, float]
Name = Literal["auto", "yunet", "opencv", "haar"]
NAMES: Final[tuple[Name, ...]] = ("auto", "yunet", "opencv", "haar")

_NMS_IOU: Final = 0.3
_TOP_K: Final = 5000
_STEP: Final = 32
"""YuNet halves its input five times: both sides are padded to multiples of this."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One face.

    Attributes:
        box: left, top, width, height in pixels of the picture; may reach over its edge.
        score: 0 to 1; 1 where the detector gives none.
        landmarks: the person's right eye, left eye, nose tip, right and left corner of the mouth, each
            as x, y in pixels (the right eye is at the left of the picture); empty where the detector
            gives none.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: tuple[Point, ...] = ()


class Detector(Protocol):
    """Finds faces; safe to call from several threads."""

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a picture of height x width x 3 (BGR), the surest first."""


def make_detector(name: str, *, threshold: float = 0.7, size: int = 640, threads: int = 1) -> Detector:
    """Return the detector of a name.

    Args:
        name: `yunet` (onnxruntime), `opencv` (the same model in OpenCV, slower), `haar` (the cascade of
            old, for comparison), or `auto`: `yunet` where onnxruntime is installed, else `opencv`.
        threshold: faces with a lower score are left out, 0 to 1.
        size: larger pictures are made smaller for the search, to this many pixels on the long side.
        threads: of the network, for each call.

    Raises:
        ModelError: the model is missing or differs, or onnxruntime is missing for `yunet`.
        ValueError: no such name.
    """
    if name == "haar":
        return HaarDetector()
    if name not in NAMES:
        raise ValueError(f"no detector is called {name!r}: one of {', '.join(NAMES)}")
    path = yunet.weights_path()
    if name == "opencv":
        return OpenCvDetector(path, threshold=threshold, size=size)
    try:
        return YuNetDetector(path, threshold=threshold, size=size, threads=threads)
    except ImportError as error:
        if name == "yunet":
            raise ModelError("onnxruntime is missing: pip install 'facerelay[edge]'") from error
        return OpenCvDetector(path, threshold=threshold, size=size)


class YuNetDetector:
    """YuNet through onnxruntime (Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector, 2023)."""

    def __init__(self, path: Path, *, threshold: float, size: int, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - optional: `opencv` works without

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A thread that spins while it waits would take a core from the next camera.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            yunet.with_free_size(path.read_bytes()), options, providers=["CPUExecutionProvider"]
        )
        self._input = session.get_inputs()[0].name
        self._outputs = [f"{kind}_{s}" for s in yunet.STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        self._run = cast("Callable[..., list[NDArray[np.float32]]]", session.run)
        self._threshold, self._size = threshold, size

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces, the surest first."""
        small, scale = shrink(image, self._size)
        blob = _blob(small)
        outputs = self._run(self._outputs, {self._input: blob})
        return _detections(decode(outputs, blob.shape[3], self._threshold), scale)


class OpenCvDetector:
    """The same model in OpenCV's own network code, behind a lock."""

    def __init__(self, path: Path, *, threshold: float, size: int) -> None:
        self._net = cv2.FaceDetectorYN.create(str(path), "", (size, size), threshold, _NMS_IOU, _TOP_K)
        self._size = size
        self._lock = threading.Lock()

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces, the surest first."""
        small, scale = shrink(image, self._size)
        if max(small.shape[:2]) <= _STEP:
            # OpenCV 4.14 reads memory it never wrote where the network's input is 32x32.
            small = cast("Image", cv2.copyMakeBorder(small, 0, _STEP, 0, _STEP, cv2.BORDER_CONSTANT))
        with self._lock:
            self._net.setInputSize((small.shape[1], small.shape[0]))
            rows = cast("NDArray[np.float32] | None", self._net.detect(small)[1])
        return [] if rows is None else _detections(rows, scale)


class HaarDetector:
    """Viola and Jones' cascade as OpenCV has it: scale factor 1.3, 5 neighbours, on the full grey picture."""

    def __init__(self) -> None:
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


def shrink(image: Image, size: int) -> tuple[Image, float]:
    """Return the picture with its long side at most `size`, and original pixels for each of its pixels."""
    height, width = image.shape[:2]
    scale = max(height, width) / size
    if scale <= 1:
        return image, 1.0
    to = (max(1, round(width / scale)), max(1, round(height / scale)))
    return cast("Image", cv2.resize(image, to, interpolation=cv2.INTER_LINEAR)), scale


def _blob(image: Image) -> NDArray[np.float32]:
    """Return 1 x 3 x height x width, padded with black at the right and bottom to multiples of 32."""
    height, width = image.shape[:2]
    padded = np.zeros((math.ceil(height / _STEP) * _STEP, math.ceil(width / _STEP) * _STEP, 3), np.uint8)
    padded[:height, :width] = image
    return cast("NDArray[np.float32]", cv2.dnn.blobFromImage(padded))


def decode(outputs: Sequence[NDArray[np.float32]], width: int, threshold: float) -> NDArray[np.float32]:
    """Turn the network's outputs into rows of faces, as `cv2.FaceDetectorYN` does.

    Args:
        outputs: for each stride: class `[1, n, 1]`, objectness `[1, n, 1]`, box `[1, n, 4]`, landmarks
            `[1, n, 10]`, with n = height x width / stride^2 anchors, row by row.
        width: of the network's input, in pixels.
        threshold: rows with a lower score are left out.

    Returns:
        n x 15, float32: x, y, w, h, five landmarks as x, y, score; the surest first.
    """
    rows = []
    for level, stride in enumerate(yunet.STRIDES):
        cls, obj, box, points = (each[0] for each in outputs[level * 4 : level * 4 + 4])
        score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        (kept,) = np.nonzero(score >= threshold)
        if kept.size:
            anchors = np.stack((kept % (width // stride), kept // (width // stride)), axis=1)
            rows.append(_rows(anchors.astype(np.float32), score[kept], box[kept], points[kept], stride))
    if not rows:
        return np.empty((0, 15), np.float32)
    found = np.concatenate(rows)
    found = found[np.argsort(-found[:, 14], kind="stable")[:_TOP_K]]
    return found[_suppress(found[:, :4])]


def _rows(
    anchor: NDArray[np.float32],
    score: NDArray[np.float32],
    box: NDArray[np.float32],
    points: NDArray[np.float32],
    stride: int,
) -> NDArray[np.float32]:
    """Place boxes and landmarks, which are relative to their anchor and in strides, in the picture."""
    size = np.exp(box[:, 2:]) * stride
    corner = (anchor + box[:, :2]) * stride - size / 2
    landmarks = (points.reshape(-1, 5, 2) + anchor[:, None]) * stride
    return np.concatenate((corner, size, landmarks.reshape(-1, 10), score[:, None]), axis=1, dtype=np.float32)


def _suppress(boxes: NDArray[np.float32]) -> list[int]:
    """Greedy non-maximum suppression of boxes in order; on whole pixels, as OpenCV does it."""
    left, top, width, height = np.trunc(boxes).astype(np.float64).T
    right, bottom, area = left + width, top + height, width * height
    rest, kept = np.arange(len(boxes)), []
    while rest.size:
        first, rest = rest[0], rest[1:]
        kept.append(int(first))
        across = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        down = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        rest = rest[shared <= _NMS_IOU * (area[first] + area[rest] - shared)]
    return kept


def _detections(rows: NDArray[np.float32], scale: float) -> list[Detection]:
    """Return n x 15 rows as detections in the original picture."""
    found = []
    for row in rows.tolist():
        x, y, w, h, *points = (value * scale for value in row[:14])
        landmarks = tuple(zip(points[::2], points[1::2], strict=True))
        found.append(Detection((x, y, w, h), min(1.0, row[14]), landmarks))
    return found
