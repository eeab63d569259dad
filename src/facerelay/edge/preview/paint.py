"""What a reviewer sees of a frame: the picture with boxes, verdicts, zones and masks drawn over it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias, cast

import cv2
import numpy as np

from facerelay.edge.cameras.raster import Image, Raster
from facerelay.edge.eyes.best import Look
from facerelay.edge.eyes.zones import Polygon

Colour: TypeAlias = tuple[int, int, int]
"""Blue, green, red."""

SIDE: Final = 960
"""The long side of the page's pictures, in pixels, at most."""

_HEIGHT: Final = 540
"""The height of such a picture, as the page shows it."""

_SENT: Final[Colour] = (128, 205, 80)
_BEST: Final[Colour] = (255, 178, 84)
_KEPT: Final[Colour] = (226, 220, 214)
_REFUSED: Final[Colour] = (62, 150, 252)
_VERDICTS: Final = {"sent": _SENT, "best": _BEST, "kept": _KEPT}

_ZONE: Final[Colour] = (214, 214, 92)
_MASK: Final[Colour] = (110, 110, 110)
_INK: Final[Colour] = (26, 22, 20)
_PALE: Final[Colour] = (240, 238, 236)
_NIGHT: Final[Colour] = (38, 32, 28)
_DIMMED: Final = 0.6
_DARKENED: Final = 0.3

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_TEXT: Final = 0.58
_LEAST_TEXT: Final = 0.34
_OVER: Final = 3
"""Labels are drawn so many times larger, and made small: OpenCV's own letters are ragged."""
_PAD: Final = 5


def paint(
    raster: Raster,
    looks: Sequence[Look],
    *,
    zones: Sequence[Polygon] = (),
    masks: Sequence[Polygon] = (),
    passed_over: str = "",
) -> Image:
    """Return a frame with what was made of it, its long side at most 960 pixels, BGR.

    Args:
        raster: the frame.
        looks: the faces of the last frame that was looked at.
        zones: outlined.
        masks: blackened and outlined.
        passed_over: why this frame was not looked at (`still`, `late`), so that its boxes are dimmed;
            empty if it was.
    """
    image = np.array(raster.small(SIDE))
    _areas(image, zones, masks)
    marked = image.copy() if passed_over and looks else image
    scale = image.shape[1] / raster.size[0]
    for look in sorted(looks, key=lambda each: each.detection.box[1]):
        _face(marked, look, scale)
    if marked is not image:
        image = cast("Image", cv2.addWeighted(marked, _DIMMED, image, 1 - _DIMMED, 0))
    if passed_over:
        _lay(image, _chip(passed_over, _NIGHT, _PALE, _text(image)), 10, 10)
    return image


def veil(image: Image, words: str) -> Image:
    """Return a picture darkened, with words in its middle."""
    dark = cast("Image", cv2.convertScaleAbs(image, alpha=_DARKENED))
    chip = _chip(words, _NIGHT, _PALE, round(1.3 * _text(image), 2))
    _lay(dark, chip, (dark.shape[1] - chip.shape[1]) // 2, (dark.shape[0] - chip.shape[0]) // 2)
    return dark


def blank() -> Image:
    """Return the picture of a camera that has given none yet, 540 x 960 x 3, BGR."""
    return np.full((_HEIGHT, SIDE, 3), 90, np.uint8)


def _areas(image: Image, zones: Sequence[Polygon], masks: Sequence[Polygon]) -> None:
    for corners in masks:
        points = _corners(corners, image)
        cv2.fillPoly(image, [points], (0, 0, 0))
        cv2.polylines(image, [points], True, _MASK, 1, cv2.LINE_AA)  # noqa: FBT003 - OpenCV's own order
    for corners in zones:
        cv2.polylines(image, [_corners(corners, image)], True, _ZONE, 2, cv2.LINE_AA)  # noqa: FBT003 - as above


def _corners(polygon: Polygon, image: Image) -> cv2.typing.MatLike:
    height, width = image.shape[:2]
    return np.array([(round(x * (width - 1)), round(y * (height - 1))) for x, y in polygon], np.int32)


def _face(image: Image, look: Look, scale: float) -> None:
    """Draw a face's frame, landmarks and label."""
    colour = _VERDICTS.get(look.verdict, _REFUSED)
    left, top, width, height = (round(side * scale) for side in look.detection.box)
    right, bottom = left + width, top + height
    cv2.rectangle(image, (left, top), (right, bottom), colour, 1, cv2.LINE_AA)
    arm = max(4, min(width, height) // 5)
    for x, way in ((left, 1), (right, -1)):
        for y, down in ((top, 1), (bottom, -1)):
            corner = np.array([(x + way * arm, y), (x, y), (x, y + down * arm)], np.int32)
            cv2.polylines(image, [corner], False, colour, 3, cv2.LINE_AA)  # noqa: FBT003 - OpenCV's own order
    for point in look.detection.landmarks:
        at = round(point[0] * scale), round(point[1] * scale)
        cv2.circle(image, at, 2, colour, -1, cv2.LINE_AA)
    chip = _chip(label(look), colour, _INK, _text(image))
    above = top - chip.shape[0] - 4
    _lay(image, chip, left - 1, above if above >= 0 else bottom + 4)


def label(look: Look) -> str:
    """Return what stands at a face: its track, its quality where it was measured, the verdict."""
    quality = "" if look.quality is None else f"  {look.quality.total:.2f}"
    return f"#{look.track}{quality}  {look.verdict}"


def _text(image: Image) -> float:
    """Return the size of letters that look alike whatever size the page scales the picture from."""
    share: float = max(image.shape[1] / SIDE, image.shape[0] / _HEIGHT)
    return max(_LEAST_TEXT, round(_TEXT * share, 2))


@lru_cache(maxsize=256)
def _chip(words: str, ground: Colour, ink: Colour, size: float) -> Image:
    """Return words on a ground, height x width x 3."""
    words = words.encode("ascii", "replace").decode()
    (width, height), below = cv2.getTextSize(words, _FONT, size * _OVER, _OVER + 1)
    pad = _PAD * _OVER
    large = np.full((height + below + pad + pad // 2, width + 2 * pad, 3), ground, np.uint8)
    cv2.putText(large, words, (pad, pad + height), _FONT, size * _OVER, ink, _OVER + 1, cv2.LINE_AA)
    small = large.shape[1] // _OVER, large.shape[0] // _OVER
    return cast("Image", cv2.resize(large, small, interpolation=cv2.INTER_AREA))


def _lay(image: Image, chip: Image, left: int, top: int) -> None:
    """Lay a label over a picture, moved inside it as far as it fits."""
    left = max(0, min(left, image.shape[1] - chip.shape[1]))
    top = max(0, min(top, image.shape[0] - chip.shape[0]))
    place = image[top : top + chip.shape[0], left : left + chip.shape[1]]
    place[:] = chip[: place.shape[0], : place.shape[1]]
