"""Places where a face comes and goes without ever moving: posters, and screens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from facerelay.edge.eyes.colours import Colours
from facerelay.edge.eyes.detect import Detection

_MOST: Final = 64
_OVERLAP: Final = 0.5
_SAME_LOOK: Final = 0.28
_SCREEN_LOOKS: Final = 3
"""So many looks in one place, none of which ever moved, are a screen's."""


@dataclass(slots=True)
class Rest:
    """A visit that never moved, and whose face is out of sight.

    Attributes:
        number: the visit's.
        detection: where it was seen last.
        colours: how it looks.
        seen: when it was seen last, or another one in its place if that is a screen.
    """

    number: int
    detection: Detection
    colours: Colours
    seen: float


class Return(NamedTuple):
    """Who is taken to be back, and whether only as one more face on a screen."""

    rest: Rest
    screen: bool


class Places:
    """Remembers up to 64 visits which never moved for `rest_s` seconds after their last sight.

    A new face in the place of one, with the same look, is that visit again. Where three looks that never
    moved came and went is a screen: whatever else appears there belongs to the last of them.
    """

    def __init__(self, *, rest_s: float) -> None:
        self._rest_s = rest_s
        self._rests: list[Rest] = []

    def leave(self, rest: Rest) -> list[int]:
        """Remember a visit whose face is out of sight, and return those that are over with it."""
        if self._rest_s <= 0:
            return [rest.number]
        self._rests.append(rest)
        if len(self._rests) <= _MOST:
            return []
        oldest = min(self._rests, key=lambda each: each.seen)
        self._rests.remove(oldest)
        return [oldest.number]

    def enter(self, detection: Detection, colours: Colours, pts: float) -> Return | None:
        """Return the visit that a new face goes on with, which is taken out; None if it is a new visit."""
        here = [each for each in self._rests if overlap(each.detection, detection) > _OVERLAP]
        same = min(here, key=lambda each: each.colours.unlike(colours), default=None)
        if same is None:
            return None
        if same.colours.unlike(colours) <= _SAME_LOOK:
            self._rests.remove(same)
            return Return(same, screen=False)
        if len(here) < _SCREEN_LOOKS:
            return None
        last = max(here, key=lambda each: each.seen)
        for each in here:
            each.seen = pts
        self._rests.remove(last)
        return Return(last, screen=True)

    def forget(self, pts: float) -> list[int]:
        """Return the visits that are over, since nothing was seen of them for too long."""
        over = [each.number for each in self._rests if pts - each.seen > self._rest_s]
        if over:
            self._rests = [each for each in self._rests if each.number not in over]
        return over

    def clear(self) -> list[int]:
        """Forget all, and return their numbers."""
        numbers = [each.number for each in self._rests]
        self._rests = []
        return numbers


def overlap(one: Detection, other: Detection) -> float:
    """Return the share of two boxes that both cover (intersection over union), from 0 to 1."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = one.box, other.box
    across = min(ax + aw, bx + bw) - max(ax, bx)
    down = min(ay + ah, by + bh) - max(ay, by)
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / max(aw * ah + bw * bh - both, 1e-9)
