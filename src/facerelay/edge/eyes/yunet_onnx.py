"""YuNet on onnxruntime (Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector, 2023)."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes import yunet
from facerelay.edge.eyes.detect import Detection, DetectorOptions, MissingRuntimeError, ModelError

_CPU: Final = "CPUExecutionProvider"
_STEP: Final = 32
"""YuNet halves its input five times: both sides are padded to multiples of this."""

_SLACK: Final = 0.999
"""For rounding, in a comparison that is made exactly afterwards."""

log = logging.getLogger(__name__)


class YuNetDetector:
    """YuNet through onnxruntime.

    Raises:
        ModelError: the weights are missing or differ, onnxruntime is missing, or it has no such execution
            provider.
    """

    def __init__(self, options: DetectorOptions) -> None:
        path = yunet.weights_path()
        try:
            import onnxruntime  # noqa: PLC0415 - optional: `opencv` works without
        except ImportError as error:
            raise MissingRuntimeError("onnxruntime is missing: pip install 'facerelay[edge]'") from error

        wanted = _providers(options.providers, onnxruntime)
        how = onnxruntime.SessionOptions()
        how.intra_op_num_threads = options.threads
        how.inter_op_num_threads = 1
        how.log_severity_level = 3
        # A thread that spins while it waits would take a core from the next camera.
        how.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(yunet.with_free_size(path.read_bytes()), how, providers=wanted)
        _tell(wanted, session.get_providers())
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self._input = session.get_inputs()[0].name
        self._outputs = [f"{kind}_{s}" for s in yunet.STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        self._run = cast("Callable[..., list[NDArray[np.float32]]]", session.run)
        self._threshold, self.size = options.threshold, options.size
        self._buffers = _Buffers()

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces, the surest first."""
        small, scale = yunet.shrink(image, self.size)
        blob = self._buffers.fill(small)
        outputs = self._run(self._outputs, {self._input: blob})
        return yunet.detections(decode(outputs, blob.shape[3], self._threshold), scale)


class _Buffers(threading.local):
    """Each thread's input for the network: to allocate it anew costs more than to fill it."""

    def __init__(self) -> None:
        self._planes: list[Image] = []
        self._size: tuple[int, ...] = ()
        self._blob = np.empty((1, 3, 0, 0), np.float32)

    def fill(self, image: Image) -> NDArray[np.float32]:
        """Return 1 x 3 x height x width, padded with black at the right and bottom to multiples of 32."""
        height, width = size = image.shape[:2]
        if self._size != size:
            padded = (math.ceil(side / _STEP) * _STEP for side in size)
            self._blob = np.zeros((1, 3, *padded), np.float32)
            self._planes = [np.empty(size, np.uint8) for _ in range(3)]
            self._size = size
        cv2.split(image, self._planes)
        for plane, into in zip(self._planes, self._blob[0], strict=True):
            into[:height, :width] = plane
        return self._blob


def _providers(wanted: Sequence[str], onnxruntime: Any) -> list[str]:  # noqa: ANN401 - a module without types
    """Return the execution providers in order, the CPU last."""
    available = onnxruntime.get_available_providers()
    for name in wanted:
        if name not in available:
            raise ModelError(
                f"detect.providers: this onnxruntime has no {name}, but {', '.join(available)}; in its"
                " place install onnxruntime-gpu (CUDA, TensorRT) or onnxruntime-openvino with pip"
            )
    return [*(name for name in dict.fromkeys(wanted) if name != _CPU), _CPU]


def _tell(wanted: Sequence[str], running: Sequence[str]) -> None:
    """Log what the network runs on: onnxruntime itself says nothing when it falls back to the CPU."""
    failed = [name for name in wanted if name not in running]
    if failed:
        log.warning(
            "detector: %s did not start (are its libraries installed?): on %s", failed[0], ", ".join(running)
        )
    else:
        level = logging.INFO if len(wanted) > 1 else logging.DEBUG
        log.log(level, "detector: on %s", ", ".join(running))


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
        (kept,) = np.nonzero((cls * obj)[:, 0] >= _SLACK * threshold * threshold)
        if not kept.size:
            continue
        score = np.sqrt(np.clip(cls[kept, 0], 0, 1) * np.clip(obj[kept, 0], 0, 1))
        kept, score = kept[score >= threshold], score[score >= threshold]
        anchors = np.stack((kept % (width // stride), kept // (width // stride)), axis=1)
        rows.append(_rows(anchors.astype(np.float32), score, box[kept], points[kept], stride))
    if not rows:
        return np.empty((0, 15), np.float32)
    found = np.concatenate(rows)
    found = found[np.argsort(-found[:, 14], kind="stable")[: yunet.TOP_K]]
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
        rest = rest[shared <= yunet.NMS_IOU * (area[first] + area[rest] - shared)]
    return kept
