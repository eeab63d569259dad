"""A face cut out of its frame, and encoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, cast

import cv2
import numpy as np

from facerelay.edge.cameras.raster import Box, Image
from facerelay.edge.eyes.detect import Detection

Format = Literal["jpeg", "png", "webp"]

_ENDING: Final = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}

_LEAST_QUALITY: Final = 40
"""Below it a face shows blocks, and a smaller one of better quality shows more."""

_LEAST_SIDE: Final = 16
_TRIES: Final = 5
"""Encodings, at most, on the way to the best quality or the largest side that fits."""

_NEAR: Final = 0.93
"""A picture that takes so much of its bytes is near enough."""

_AIM: Final = 0.97
_LOOKS: Final = 3
_LEVEL: Final = math.radians(2)


def crop_box(box: tuple[float, float, float, float], frame_size: tuple[int, int], margin: float) -> Box:
    """Return x, y, width, height, in whole pixels, of a face with a margin, inside the frame.

    Args:
        box: x, y, width, height of the face, in pixels; it may reach over the frame's edge.
        frame_size: width and height of the frame.
        margin: added on each side, as a share of the box's width and height.

    Returns:
        At least one pixel wide and high.
    """
    x, y, w, h = box
    width, height = frame_size
    left = min(max(0, round(x - margin * w)), width - 1)
    top = min(max(0, round(y - margin * h)), height - 1)
    right = max(left + 1, min(width, round(x + w + margin * w)))
    bottom = max(top + 1, min(height, round(y + h + margin * h)))
    return left, top, right - left, bottom - top


def room_to_turn(margin: float) -> float:
    """Return the margin with which to cut a face that `align` will then cut with `margin`.

    It is enough for a box 1.3 times as high as wide, turned by up to 50 degrees: with s and c, the angle's
    sine and cosine, what is cut of the frame is c + 1.3 s times as wide.
    """
    return (1 + 2 * margin) * 0.82 - 0.5


def align(
    image: Image, detection: Detection, *, margin: float, look: Callable[[Image], Sequence[Detection]]
) -> Image:
    """Cut a face out of a part of its frame, turned so that it is upright and its eyes are level.

    A detector sees less of a tilt than there is (YuNet about a half), so that the turned picture is looked
    at again, and turned on.

    Args:
        image: height x width x 3, BGR: the face with `room_to_turn` around it. What a turn would show from
            beyond it repeats its edge.
        detection: the face, in pixels of the image; without landmarks it is not turned.
        margin: added on each side, as a share of the box's width and height.
        look: finds the faces in a picture.

    Returns:
        A picture of the size that it would have had without a turn.
    """
    box = crop_box(detection.box, (image.shape[1], image.shape[0]), margin)
    turn = more = _tilt(detection)
    for _ in range(_LOOKS):
        if abs(more) < _LEVEL:
            break
        found = [each for each in look(_turned(image, box, detection, turn)) if _in_the_middle(each, box)]
        more = _tilt(found[0]) if found else 0.0
        turn += more
    return _turned(image, box, detection, turn)


def _tilt(detection: Detection) -> float:
    """Return how far a face is tilted clockwise, in radians; 0 where that is not known.

    It is told from the middle of the eyes to that of the mouth, which a detector sees better than the line
    through the eyes.
    """
    if not detection.landmarks:
        return 0.0
    (rx, ry), (lx, ly), _, (ax, ay), (bx, by) = detection.landmarks
    turn = math.atan2(rx + lx - ax - bx, ay + by - ry - ly)
    return turn if math.isfinite(turn) else 0.0


def _in_the_middle(detection: Detection, box: Box) -> bool:
    x, y, w, h = detection.box
    return abs(x + w / 2 - box[2] / 2) < w / 2 and abs(y + h / 2 - box[3] / 2) < h / 2


def _turned(image: Image, box: Box, detection: Detection, turn: float) -> Image:
    """Cut out a box that is turned about a face's middle, clockwise by `turn` radians, and set it upright."""
    x, y, w, h = box
    if turn == 0:
        return image[y : y + h, x : x + w].copy()
    left, top, width, height = detection.box
    cx, cy = left + width / 2, top + height / 2
    cos, sin = math.cos(turn), math.sin(turn)
    # From the middle of a pixel of the upright picture to the middle of one of the other.
    px, py = x + 0.5 - cx, y + 0.5 - cy
    matrix = np.array([
        [cos, -sin, cx + cos * px - sin * py - 0.5],
        [sin, cos, cy + sin * px + cos * py - 0.5],
    ])  # fmt: skip
    way = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    upright = cv2.warpAffine(image, matrix, (w, h), flags=way, borderMode=cv2.BORDER_REPLICATE)
    return cast("Image", upright)


def encode(
    image: Image,
    *,
    format: Format = "jpeg",  # noqa: A002 - the setting's name
    quality: int = 90,
    grey: bool = False,
    max_side: int = 640,
    max_bytes: int | None = None,
) -> bytes:
    """Encode a picture.

    One that has too many bytes is encoded again: with the best quality that fits, down to 40; where that
    is not enough, or there is no quality (PNG), in a smaller size. That takes eight encodings at most, and
    the same picture always becomes the same bytes.

    Args:
        image: height x width x 3, BGR.
        format: `jpeg`, `png` or `webp`.
        quality: 1 to 100, of JPEG and WebP.
        grey: in shades of grey; WebP knows none, so there only its colours go.
        max_side: larger pictures are scaled down to this long side, in pixels; smaller ones stay as they are.
        max_bytes: at most; a picture that has more even with a long side of 16 pixels is returned so small.

    Raises:
        ValueError: OpenCV cannot encode it (an empty picture, an unknown format).
    """
    image = _scaled(image, max_side)
    if grey and image.ndim == 3:  # noqa: PLR2004 - height, width, channels
        image = cast("Image", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    data = _encoded(image, format, quality)
    if max_bytes is None or len(data) <= max_bytes:
        return data
    if format != "png" and quality > _LEAST_QUALITY:
        data = _encoded(image, format, _LEAST_QUALITY)
        if len(data) <= max_bytes:
            return _finer(image, data, format, quality, max_bytes)
        quality = _LEAST_QUALITY
    return _smaller(image, len(data), format, quality, max_bytes)


def _finer(image: Image, data: bytes, form: Format, quality: int, most: int) -> bytes:
    """Return the picture at the best quality found that fits, where the least one does and `quality` not."""
    low, high = _LEAST_QUALITY, quality
    for _ in range(_TRIES):
        if high - low < 2 or len(data) >= _NEAR * most:  # noqa: PLR2004 - nothing is between them
            break
        middle = (low + high) // 2
        finer = _encoded(image, form, middle)
        if len(finer) <= most:
            low, data = middle, finer
        else:
            high = middle
    return data


def _smaller(image: Image, bytes_whole: int, form: Format, quality: int, most: int) -> bytes:
    """Return the picture in the largest size found that fits, or in the least; its whole size does not."""
    low, high, high_bytes = _LEAST_SIDE, max(image.shape[:2]), bytes_whole
    best = _encoded(_scaled(image, low), form, quality)
    for _ in range(_TRIES):
        if high - low < 2 or len(best) >= _NEAR * most:  # noqa: PLR2004 - nothing is between them
            break
        # Bytes grow with the area, and a few are there without any.
        share = (_AIM * most - len(best)) / (high_bytes - len(best))
        side = round(math.sqrt(low**2 + share * (high**2 - low**2)))
        side = min(max(low + 1, side), high - 1)
        data = _encoded(_scaled(image, side), form, quality)
        if len(data) <= most:
            low, best = side, data
        else:
            high, high_bytes = side, len(data)
    return best


def _scaled(image: Image, max_side: int) -> Image:
    longest = max(image.shape[:2])
    if longest <= max_side:
        return image
    height, width = (max(1, round(side * max_side / longest)) for side in image.shape[:2])
    return cast("Image", cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def _encoded(image: Image, form: Format, quality: int) -> bytes:
    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 6],
    }
    try:
        done, data = cv2.imencode(_ENDING[form], image, options[form])
    except (cv2.error, KeyError) as error:
        raise ValueError(f"cannot encode a picture of {image.shape} as {form}") from error
    if not done:
        raise ValueError(f"cannot encode a picture of {image.shape} as {form}")
    return data.tobytes()
