"""How good a picture of a face is, and whether it is a face that looks this way at all."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import cv2
import numpy as np

from facerelay.edge.cameras.raster import Image, Raster
from facerelay.edge.eyes.crop import crop_box
from facerelay.edge.eyes.detect import Detection

_WEIGHTS: Final = {
    "size": 0.18, "sharpness": 0.15, "frontality": 0.22, "exposure": 0.07, "edge": 0.03, "score": 0.35,
}  # fmt: skip
"""The score weighs so much since it hardly varies, but falls when a hand or a turn hides a part of a face."""

_FULL_EYES: Final = 60.0
"""Pixels between the eyes from which more of them add nothing (ISO/IEC 19794-5 asks for 60 at least)."""

_EYES_OF_WIDTH: Final = 0.46
"""Distance of the eyes as a share of a frontal face's box, where a detector gives no landmarks."""

_CORE: Final = (0.15, 0.15, 0.7, 0.8)
"""Left, top, width and height, as shares of the box, of what is face and not what is behind it."""

_MOST_SIDE, _LEAST_SIDE = 40, 16
_FINE, _COARSE = 1, 3
_WAYS: Final = ((1, 0), (0, 1), (1, 1), (1, -1))
_RAMP: Final = (_FINE / _COARSE) ** 2
_CRISP: Final = _FINE / _COARSE
_EYES_SHARE: Final = 0.62
"""How much of that, from its top, has the eyes in it."""

_FLOOR: Final = 20.0
_NOISE: Final = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_NOISE_GAIN: Final = 6.0 * 0.6745 / math.sqrt(1.4)
"""What the kernel makes of noise: its norm, times the median of a normal distribution's absolute values.
Neighbours in a scaled picture share some of their noise, which hides from the kernel: 1.4 was measured."""

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
    """Refuses what is no usable face: averted and rear heads, slivers at the edge, specks, smears.

    A detector's score does not tell them: rear heads reach .82. Where the eyes, the nose and the mouth
    lie does. All limits are ratios of a face's own measures, but for the least size.

    Attributes:
        refused: how many detections were refused (not visits: one may have good pictures as well), by
            reason; and whole visits as `fleeting`, or as `returned` if taken for an earlier one that rests.
    """

    def __init__(
        self,
        *,
        min_eyes: float = 4.0,
        min_sharpness: float = 0.15,
        min_spread: float = 0.65,
        max_nose_across: float = 0.45,
        max_roll: float = 50.0,
        min_inside: float = 0.8,
    ) -> None:
        self._min_eyes, self._min_sharpness, self._min_spread = min_eyes, min_sharpness, min_spread
        self._max_nose_across, self._max_roll, self._min_inside = max_nose_across, max_roll, min_inside
        self.refused: Counter[str] = Counter()

    def refuse(self, detection: Detection, frame_size: tuple[int, int]) -> str | None:
        """Return why a face may not be sent, which is counted in `refused`; None if it may."""
        reason = self.reason(detection, frame_size)
        if reason is not None:
            self.refused[reason] += 1
        return reason

    def refuse_smear(self, quality: Quality) -> str | None:
        """Return `smeared`, which is counted, for a face that is not sharp enough; None if it is."""
        if quality.parts["sharpness"] >= self._min_sharpness:
            return None
        self.refused["smeared"] += 1
        return "smeared"

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


def measure(raster: Raster, detection: Detection) -> Quality:
    """Return how good a picture of a face is.

    The whole is the geometric mean of the parts with weights, so that one bad part is not made good by
    the others.

    Args:
        raster: the frame.
        detection: a face in it.
    """
    patch = _patch(raster, detection)
    parts = _seen_in(detection, raster.size)
    parts |= {"sharpness": sharpness(patch), "exposure": _exposure(patch)}
    return Quality(_mean(parts), {name: parts[name] for name in _WEIGHTS})


def promise(detection: Detection, frame_size: tuple[int, int]) -> float:
    """Return how good a picture of a face can be at most, without a look at its pixels."""
    return _mean(_seen_in(detection, frame_size) | {"sharpness": 1.0, "exposure": 1.0})


def _seen_in(detection: Detection, frame_size: tuple[int, int]) -> dict[str, float]:
    """Return the parts that follow from where a face and its landmarks are."""
    geometry = Geometry.of(detection)
    return {
        "size": min(1.0, eye_distance(detection, geometry) / _FULL_EYES),
        "frontality": 0.5 if geometry is None else frontality(geometry),
        "edge": _room(detection, frame_size),
        "score": min(1.0, max(0.0, detection.score)),
    }


def _mean(parts: dict[str, float]) -> float:
    return math.exp(sum(weight * math.log(max(parts[name], _LEAST)) for name, weight in _WEIGHTS.items()))


def eye_distance(detection: Detection, geometry: Geometry | None) -> float:
    """Return the pixels between the eyes; from the box where there are no landmarks."""
    return detection.box[2] * _EYES_OF_WIDTH if geometry is None else geometry.eyes


def frontality(geometry: Geometry) -> float:
    """Return 1 for a face seen straight from the front, towards 0 as it is turned, tilted or bowed."""
    yaw = max(0.0, 1 - abs(geometry.nose_across) / 0.5) * min(1.0, geometry.spread / 0.85)
    pitch = max(0.0, 1 - abs(geometry.nose_down - _NOSE_AT) / 0.45)
    roll = max(0.0, 1 - abs(geometry.roll) / 90)
    return yaw * pitch * roll


def sharpness(patch: Image) -> float:
    """Return 1 for a crisp face, 0 for one so smeared that nothing but ramps of grey is left of it.

    How much brightness changes over two pixels is compared with how much it does over six, in the direction
    where this is least: a ramp gives 1/9, a clean edge 1/3, fine detail more. Neither contrast nor light
    matters. Noise, which would pass for detail, is estimated (J. Immerkaer, Fast Noise Variance Estimation,
    1996; with the median) and taken off both. The eyes are judged by themselves as well, so that a hand
    before the mouth does not make them sharp.

    Args:
        patch: the middle of a face, height x width, grey, 16 pixels or more each.
    """
    noise = float(np.median(np.abs(cv2.filter2D(patch, cv2.CV_32F, _NOISE)[1:-1, 1:-1]))) / _NOISE_GAIN
    eyes = patch[: max(_LEAST_SIDE, round(_EYES_SHARE * patch.shape[0]))]
    least = min(_detail(part, way, 2 * noise**2) for part in (patch, eyes) for way in _WAYS)
    return min(1.0, max(0.0, (least - _RAMP) / (_CRISP - _RAMP)))


def _detail(patch: Image, way: tuple[int, int], noise: float) -> float:
    """Return how much brightness changes over two pixels in a direction, against how much over six."""
    height, width = (side - 2 * _COARSE for side in patch.shape)
    changes: list[float] = []
    for step in (_FINE, _COARSE):
        dx, dy = way[0] * step, way[1] * step
        there = patch[_COARSE + dy : _COARSE + dy + height, _COARSE + dx : _COARSE + dx + width]
        back = patch[_COARSE - dy : _COARSE - dy + height, _COARSE - dx : _COARSE - dx + width]
        changes.append(float(cv2.norm(there, back, cv2.NORM_L2SQR)) / (height * width))
    fine, coarse = changes
    return max(0.0, fine - noise) / (max(0.0, coarse - noise) + _FLOOR)


def _patch(raster: Raster, detection: Detection) -> Image:
    """Return the middle of a face in grey, 16 to 40 pixels wide and high.

    Larger ones are scaled to one size, so that sharpness can be compared between them; smaller ones are
    judged as they are.
    """
    (x, y, w, h), (left, top, across, down) = detection.box, _CORE
    x, y, w, h = crop_box((x + left * w, y + top * h, across * w, down * h), raster.size, 0.0)
    face = raster.luma()[y : y + h, x : x + w]
    scale = min(1.0, _MOST_SIDE / max(w, h))
    to = max(_LEAST_SIDE, round(w * scale)), max(_LEAST_SIDE, round(h * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cast("Image", cv2.resize(face, to, interpolation=way))


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
