"""One face on its way through the picture: where it was, where it should be, how it looks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from facerelay.edge.cameras.raster import Raster
from facerelay.edge.eyes.colours import Colours, colours
from facerelay.edge.eyes.detect import Detection
from facerelay.edge.eyes.places import Rest

_SETTLE_S: Final = 0.2
"""Time constant of the smoothed velocity."""

_COAST_S: Final = 0.5
"""Who is not seen is taken to slow down with this time constant: a hand before a face hides a person
who stays."""

_REACH: Final = 0.6
_REACH_PER_S: Final = 1.2
_FIRST_REACH: Final = 1.5
"""How far a face may be from where it should be, in sizes of the face; more while its velocity is unknown."""

_FAR, _FAR_PER_S, _FARTHEST = 1.0, 9.0, 3.0
"""How far who was just seen first may be where the colours are the same: whoever runs past makes nine of the
face's sizes a second."""

_TURN_S: Final = 0.15
"""Who was not seen for so long may have turned back meanwhile."""

_KNOWN_AFTER: Final = 3
_LOOK_SHARE: Final = 0.3

_STAYS: Final = 0.5
_STAYS_RATIO: Final = 1.35
"""Whose face keeps within so many of its sizes, and does not grow or shrink by more, has never moved."""


@dataclass(slots=True, eq=False)
class Found:
    """A detection, as it is compared with tracks; its colours are looked at only where they are wanted."""

    detection: Detection
    raster: Raster | None
    x: float
    y: float
    size: float
    looked: Colours | None = None

    @classmethod
    def of(cls, detection: Detection, raster: Raster | None) -> Found:
        """Return a detection with its centre and its size (the root of the area), in pixels."""
        x, y, w, h = detection.box
        return cls(detection, raster, x + w / 2, y + h / 2, math.sqrt(max(w * h, 1.0)))

    @property
    def colours(self) -> Colours | None:
        """Its colours; None without the frame."""
        if self.looked is None and self.raster is not None:
            self.looked = colours(self.raster, self.detection)
        return self.looked


@dataclass(slots=True, eq=False)
class Track:
    """One visit.

    Attributes:
        number: the visit's.
        detection: its face, where it was seen last.
        x, y: the face's centre, in pixels.
        size: the root of its area, in pixels.
        began: when it was seen first, on the stream's clock.
        seen: when it was seen last.
        vx, vy: pixels a second.
        hits: how often it was seen.
        missed: whether it was looked for since it was seen last.
        colours: how it looks.
        looked: when its colours were looked at.
        room: least and greatest x, y and size.
        screen: the visit that it belongs to as one more face on a screen.
        times: how many visits of this look there were in this place, this one included.
        still: whether it was seen in a picture that stands alone, so that it cannot be told whether it moved.
    """

    number: int
    detection: Detection
    x: float
    y: float
    size: float
    began: float
    seen: float
    vx: float = 0.0
    vy: float = 0.0
    hits: int = 0
    missed: bool = False
    colours: Colours | None = None
    looked: float = -math.inf
    room: list[float] = field(default_factory=list)
    screen: Rest | None = None
    times: int = 1
    still: bool = False

    @classmethod
    def begin(cls, number: int, pts: float, found: Found, screen: Rest | None = None) -> Track:
        """Return a track that begins with a face."""
        room = [found.x, found.x, found.y, found.y, found.size, found.size]
        return cls(
            number, found.detection, found.x, found.y, found.size, pts, pts, room=room, screen=screen
        )  # fmt: skip

    @property
    def stayed(self) -> bool:
        """Whether it never moved: neither across the picture nor nearer or farther."""
        left, right, top, bottom, least, most = self.room
        return max(right - left, bottom - top) <= _STAYS * least and most <= _STAYS_RATIO * least

    def reach(self, pts: float) -> float:
        """Return how far from its prediction it may be found, in sizes of the face.

        It may as well have walked on at full speed behind what hides it.
        """
        if self.hits < _KNOWN_AFTER:
            return _FIRST_REACH
        gap = pts - self.seen
        further = math.hypot(self.vx, self.vy) * (gap - _coast(gap)) / self.size
        return _REACH + _REACH_PER_S * min(gap, _COAST_S) + min(_REACH, further)

    def far_reach(self, pts: float) -> float:
        """Return how far from its prediction it may be found in the same colours, in sizes of the face."""
        gap = pts - self.seen
        if self.hits < _KNOWN_AFTER:
            return min(_FARTHEST, _FAR + _FAR_PER_S * gap)
        back = 2 * math.hypot(self.vx, self.vy) * _coast(gap) / self.size if gap > _TURN_S else 0.0
        return self.reach(pts) + min(_FARTHEST, back)

    def has_left(self, pts: float, frame_size: tuple[int, int]) -> bool:
        """Tell whether its centre should be outside the frame by now, and it was not seen since."""
        x, y = self.predict(pts)
        return not (0 <= x < frame_size[0] and 0 <= y < frame_size[1])

    def predict(self, pts: float) -> tuple[float, float]:
        """Return where its centre should be: constant velocity, dying away while it is not seen."""
        ahead = _coast(pts - self.seen)
        return self.x + self.vx * ahead, self.y + self.vy * ahead

    def apart(self, pts: float, found: Found) -> tuple[float, float]:
        """Return how far a face is from where it should be, in its sizes, and how much its size differs."""
        x, y = self.predict(pts)
        away = math.hypot(found.x - x, found.y - y) / max(found.size, self.size)
        return away, abs(math.log(found.size / self.size))

    def unlike(self, found: Found, *, doubt: bool = False) -> float | None:
        """Return how much a face's colours differ from its own; None where either is not known.

        In `doubt` pictures without a hue are compared by their shades alone.
        """
        if self.colours is None or found.colours is None:
            return None
        return self.colours.differ(found.colours) if doubt else self.colours.unlike(found.colours)

    def take(self, pts: float, found: Found) -> None:
        """Go on to where the face was found."""
        x, y, size = found.x, found.y, found.size
        passed = pts - self.seen
        if passed > 0 and self.hits:
            share = max(1 - math.exp(-passed / _SETTLE_S), 1 / self.hits)
            self.vx += share * ((x - self.x) / passed - self.vx)
            self.vy += share * ((y - self.y) / passed - self.vy)
        self.x, self.y, self.size, self.seen = x, y, size, pts
        self.detection, self.missed = found.detection, False
        self.hits += 1
        left, right, top, bottom, least, most = self.room
        self.room = [
            min(left, x), max(right, x), min(top, y), max(bottom, y), min(least, size), max(most, size)
        ]  # fmt: skip

    def look(self, pts: float, found: Found) -> None:
        """Take a face's colours for its own, little by little."""
        if found.colours is not None:
            self.looked = pts
            self.colours = (
                found.colours if self.colours is None else self.colours.mixed(found.colours, _LOOK_SHARE)
            )


def _coast(gap: float) -> float:
    """Return for how many seconds of `gap` one walks on at full speed to come as far as slowing down."""
    return _COAST_S * (1 - math.exp(-gap / _COAST_S))
