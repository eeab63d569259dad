"""How good a picture of a face is, and whether it is a face that looks this way at all."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import cv2
import numpy as np

from facerelay.edge.crop import crop_box
from facerelay.edge.detect import Detection, Image

_WEIGHTS: Final = {
    "size": 0.25, "sharpness": 0.2, "frontality": 0.3, "exposure": 0.1, "edge": 0.05, "score": 0.1,
}  # fmt: skip
_FULL_EYES: Final = 60.0
"""Pixels between the eyes from which more of them add nothing (ISO/IEC 19794-5 asks for 60 at least)."""

_EYES_OF_WIDTH: Final = 0.46
"""Distance of the eyes as a share of a frontal face's box, where a detector gives no landmarks."""

_PATCH: Final = 64
_HALF_SHARP: Final = 150.0
_DARK, _BRIGHT = 60.0, 190.0
_CLIPPED_LOW, _CLIPPED_HIGH = 5, 250
_ROOM: Final = 0.25
_NOSE_AT: Final = 0.55
_LEAST: Final = 1e-3


class Quality(NamedTuple):
    """`total` from 0 to 1, and what it is made of, each from 0 to 1."""

    total: float
    parts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Geometry:
    """A face's landmarks as ratios that don't depend on its size, nor on how the head is tilted.

    The axes are the line through the eyes, and the normal to it.

    Attributes:
        eyes: distance of the eyes, in pixels.
        spread: distance of the eyes over that from eyes to mouth: about 1 from the front, smaller the
            further a head is turned (as the cosine of the angle).
        nose_across: the nose's distance from the middle of the eyes along their line, in distances of the
            eyes: 0 from the front, .5 where it stands below an eye.
        nose_down: how far down from the eyes to the mouth the nose is: about .55 from the front, less
            when looking up, more when looking down.
        roll: the eyes' line against the horizontal, in degrees.
    """

    eyes: float
    spread: float
    nose_across: float
    nose_down: float
    roll: float

    @classmethod
    def of(cls, detection: Detection) -> Geometry | None:
        """Return the geometry of a face; None where there are no landmarks."""
        if not detection.landmarks:
            return None
        (rx, ry), (lx, ly), (nx, ny), (ax, ay), (bx, by) = detection.landmarks
        eyes = max(math.hypot(lx - rx, ly - ry), _LEAST)
        ux, uy = (lx - rx) / eyes, (ly - ry) / eyes
        mx, my = (rx + lx) / 2, (ry + ly) / 2
        mouth = ((ay + by) / 2 - my) * ux - ((ax + bx) / 2 - mx) * uy
        mouth = mouth if abs(mouth) > _LEAST else _LEAST
        return cls(
            eyes=eyes,
            spread=eyes / mouth,
            nose_across=((nx - mx) * ux + (ny - my) * uy) / eyes,
            nose_down=((ny - my) * ux - (nx - mx) * uy) / mouth,
            roll=math.degrees(math.atan2(uy, ux)),
        )


class Gate:
    """Refuses what is no usable face: averted and rear heads, slivers at the edge, specks.

    A detector's score does not tell them: rear heads reach .82. Where the eyes, the nose and the mouth
    lie does. All limits are ratios of a face's own measures, but for the least size.
    """

    def __init__(
        self,
        *,
        min_eyes: float = 4.0,
        min_spread: float = 0.65,
        max_nose_across: float = 0.45,
        max_roll: float = 50.0,
        min_inside: float = 0.8,
    ) -> None:
        self._min_eyes, self._min_spread = min_eyes, min_spread
        self._max_nose_across, self._max_roll, self._min_inside = max_nose_across, max_roll, min_inside
        self.refused: Counter[str] = Counter()

    def passes(self, detection: Detection, frame_size: tuple[int, int]) -> bool:
        """Tell whether a face may be sent; a refusal is counted in `refused` under its reason."""
        reason = self.reason(detection, frame_size)
        if reason is not None:
            self.refused[reason] += 1
        return reason is None

    def reason(self, detection: Detection, frame_size: tuple[int, int]) -> str | None:
        """Return why a face is refused (`small`, `cut-off`, `averted`, `tilted`), or None."""
        geometry = Geometry.of(detection)
        if eye_distance(detection, geometry) < self._min_eyes:
            return "small"
        if _inside(detection, frame_size) < self._min_inside:
            return "cut-off"
        if geometry is None:
            return None
        if geometry.spread < self._min_spread or abs(geometry.nose_across) > self._max_nose_across:
            return "averted"
        if not 0 < geometry.nose_down < 1:
            return "averted"
        return "tilted" if abs(geometry.roll) > self._max_roll else None


def measure(image: Image, detection: Detection) -> Quality:
    """Return how good a picture of a face is.

    The whole is the geometric mean of the parts with weights, so that one bad part is not made good by
    the others.

    Args:
        image: the frame, height x width x 3, BGR.
        detection: a face in it.
    """
    height, width = image.shape[:2]
    geometry = Geometry.of(detection)
    patch = _patch(image, detection)
    variance = float(cv2.Laplacian(patch, cv2.CV_32F).var())
    parts = {
        "size": min(1.0, eye_distance(detection, geometry) / _FULL_EYES),
        "sharpness": variance / (variance + _HALF_SHARP),
        "frontality": 0.5 if geometry is None else frontality(geometry),
        "exposure": _exposure(patch),
        "edge": _room(detection, (width, height)),
        "score": min(1.0, max(0.0, detection.score)),
    }
    total = math.exp(sum(weight * math.log(max(parts[name], _LEAST)) for name, weight in _WEIGHTS.items()))
    return Quality(total, parts)


def eye_distance(detection: Detection, geometry: Geometry | None) -> float:
    """Return the pixels between the eyes; from the box where there are no landmarks."""
    return detection.box[2] * _EYES_OF_WIDTH if geometry is None else geometry.eyes


def frontality(geometry: Geometry) -> float:
    """Return 1 for a face seen straight from the front, towards 0 as it is turned, tilted or bowed."""
    yaw = max(0.0, 1 - abs(geometry.nose_across) / 0.5) * min(1.0, geometry.spread / 0.85)
    pitch = max(0.0, 1 - abs(geometry.nose_down - _NOSE_AT) / 0.45)
    roll = max(0.0, 1 - abs(geometry.roll) / 90)
    return yaw * pitch * roll


def _patch(image: Image, detection: Detection) -> Image:
    """Return the face in grey at one size, so that sharpness can be compared between sizes."""
    height, width = image.shape[:2]
    x, y, w, h = crop_box(detection.box, (width, height), 0.0)
    face = image[y : y + h, x : x + w]
    shrinks = w > _PATCH and h > _PATCH
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = cv2.resize(face, (_PATCH, _PATCH), interpolation=way)
    return cast("Image", cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))


def _exposure(patch: Image) -> float:
    mean = float(patch.mean())
    clipped = float(np.mean((patch <= _CLIPPED_LOW) | (patch >= _CLIPPED_HIGH)))
    level = min(1.0, mean / _DARK) if mean < _BRIGHT else max(0.0, 1 - (mean - _BRIGHT) / (255 - _BRIGHT))
    return level * (1 - clipped)


def _inside(detection: Detection, frame_size: tuple[int, int]) -> float:
    """Return the share of the box's area that lies in the frame."""
    x, y, w, h = detection.box
    across = min(x + w, frame_size[0]) - max(x, 0)
    down = min(y + h, frame_size[1]) - max(y, 0)
    return max(0.0, across) * max(0.0, down) / max(w * h, _LEAST)


def _room(detection: Detection, frame_size: tuple[int, int]) -> float:
    """Return 1 where there is a quarter of the face's size between it and the edge, 0 where there is none."""
    x, y, w, h = detection.box
    across = min(x, frame_size[0] - x - w) / max(w, 1)
    down = min(y, frame_size[1] - y - h) / max(h, 1)
    return min(1.0, max(0.0, min(across, down) / _ROOM))
