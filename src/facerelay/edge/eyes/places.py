"""Places where a face comes and goes without ever moving: posters, and screens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from facerelay.edge.eyes.colours import Colours
from facerelay.edge.eyes.detect import Detection

_MOST: Final = 64
_OVERLAP: Final = 0.5
_SAME_LOOK: Final = 0.15
_GREY_OVERLAP, _GREY_LOOK = 0.8, 0.1
"""What does not move looks the same each time; without hues it must be all but the same picture."""

OFTEN: Final = 3
"""So many visits of one look in one place are one that is seen now and then."""

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
        times: how many visits of this look there were in this place; `OFTEN` if it stayed for long.
    """

    number: int
    detection: Detection
    colours: Colours
    seen: float
    times: int = 1

    @property
    def held(self) -> bool:
        """Whether the visit goes on when its face is back: it is no person's."""
        return self.times >= OFTEN

    def shows(self, detection: Detection, colours: Colours) -> bool:
        """Tell whether a face in this place has the same look."""
        differ = self.colours.differ(colours)
        if self.colours.grey or colours.grey:
            return differ <= _GREY_LOOK and overlap(self.detection, detection) >= _GREY_OVERLAP
        return differ <= _SAME_LOOK


class Return(NamedTuple):
    """Who is taken to be back, if it is held, and whether only as one more face on a screen."""

    rest: Rest
    screen: bool


class Places:
    """Remembers up to 64 visits which never moved for `rest_s` seconds after their last sight.

    A new face in the place of one that is held, with the same look, is that visit again. People stand still
    too: a visit that is not held is over, and only its look is remembered, to count how often it is back.
    Where three held looks came and went is a screen: whatever else appears there belongs to the last.
    """

    def __init__(self, *, rest_s: float) -> None:
        self._rest_s = rest_s
        self._rests: list[Rest] = []

    def leave(self, rest: Rest) -> list[int]:
        """Remember a visit whose face is out of sight, and return those that are over with it."""
        if self._rest_s <= 0:
            return [rest.number]
        self._rests.append(rest)
        over = [] if rest.held else [rest.number]
        if len(self._rests) <= _MOST:
            return over
        oldest = min(self._rests, key=lambda each: (each.held, each.seen))
        self._rests.remove(oldest)
        return [*over, oldest.number] if oldest.held else over

    def enter(self, detection: Detection, colours: Colours, pts: float) -> Return | None:
        """Return what was in a new face's place and is taken out; None if nothing of its look was.

        The face goes on with its visit if that is held; else it is a new one, and the look is back once more.
        """
        here = [each for each in self._rests if overlap(each.detection, detection) > _OVERLAP]
        alike = [each for each in here if each.shows(detection, colours)]
        if alike:
            same = min(alike, key=lambda each: (not each.held, each.colours.differ(colours)))
            self._rests.remove(same)
            return Return(same, screen=False)
        here = [each for each in here if each.held]
        if len(here) < _SCREEN_LOOKS:
            return None
        last = max(here, key=lambda each: each.seen)
        for each in here:
            each.seen = pts
        self._rests.remove(last)
        return Return(last, screen=True)

    def forget(self, pts: float) -> list[int]:
        """Return the visits that are over, since nothing was seen of them for too long."""
        old = [each for each in self._rests if pts - each.seen > self._rest_s]
        if old:
            self._rests = [each for each in self._rests if pts - each.seen <= self._rest_s]
        return [each.number for each in old if each.held]

    def clear(self) -> list[int]:
        """Forget all, and return their numbers."""
        numbers = [each.number for each in self._rests if each.held]
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
