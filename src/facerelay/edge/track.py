"""Which detections belong to one visit: tracks over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from facerelay.edge.detect import Detection

_SETTLE_S: Final = 0.2
"""Time constant of the smoothed velocity."""

_COAST_S: Final = 0.5
"""Who is not seen is taken to slow down with this time constant: a hand before a face hides a person
who stays."""

_REACH: Final = 0.6
_REACH_PER_S: Final = 1.2
_FIRST_REACH: Final = 1.5
"""How far a face may be from where it should be, in sizes of the face; more while its velocity is unknown."""

_KNOWN_AFTER: Final = 3
_MAX_RATIO: Final = 1.8


class Update(NamedTuple):
    """What a frame's detections were taken for: `seen` pairs of track and detection, and tracks `ended`."""

    seen: list[tuple[int, Detection]]
    ended: list[int]


@dataclass(slots=True)
class _Track:
    number: int
    x: float
    y: float
    size: float
    seen: float
    vx: float = 0.0
    vy: float = 0.0
    hits: int = 0

    def reach(self, pts: float) -> float:
        """Return how far from its prediction it may be found, in sizes of the face.

        It may as well have walked on at full speed behind what hides it.
        """
        if self.hits < _KNOWN_AFTER:
            return _FIRST_REACH
        gap = pts - self.seen
        further = math.hypot(self.vx, self.vy) * (gap - _coast(gap)) / self.size
        return _REACH + _REACH_PER_S * min(gap, _COAST_S) + min(_REACH, further)

    def has_left(self, pts: float, frame_size: tuple[int, int]) -> bool:
        """Tell whether its centre should be outside the frame by now, and it was not seen since."""
        x, y = self.predict(pts)
        return not (0 <= x < frame_size[0] and 0 <= y < frame_size[1])

    def predict(self, pts: float) -> tuple[float, float]:
        """Return where its centre should be: constant velocity, dying away while it is not seen."""
        ahead = _coast(pts - self.seen)
        return self.x + self.vx * ahead, self.y + self.vy * ahead

    def take(self, pts: float, detection: Detection) -> None:
        x, y, size = _centre(detection)
        passed = pts - self.seen
        if passed > 0:
            share = 1 - math.exp(-passed / _SETTLE_S)
            self.vx += share * ((x - self.x) / passed - self.vx)
            self.vy += share * ((y - self.y) / passed - self.vy)
        self.x, self.y, self.size, self.seen = x, y, size, pts
        self.hits += 1


class Tracker:
    """Joins detections to tracks: the nearest to where each should be, if it is near enough.

    A track is one visit. It lives through misses of up to `gap_s` seconds of the stream's clock.
    """

    def __init__(self, *, gap_s: float = 1.5) -> None:
        self._gap_s = gap_s
        self._tracks: dict[int, _Track] = {}
        self._last = 0

    def update(
        self, pts: float, detections: Sequence[Detection], frame_size: tuple[int, int] | None = None
    ) -> Update:
        """Take a frame's detections.

        Args:
            pts: the frame's time on the stream's clock, in seconds; not before the last one's.
            detections: all faces of the frame.
            frame_size: its width and height in pixels; with it, who walked out of it has ended at once.

        Returns:
            Each detection with its track's number (from 1, never used twice), and the tracks that ended.
        """
        ended = self._end([each.number for each in self._tracks.values() if pts - each.seen > self._gap_s])
        free = set(self._tracks)
        owner: dict[int, int] = {}
        for _, number, at in sorted(self._pairs(pts, detections)):
            if number in free and at not in owner:
                free.remove(number)
                owner[at] = number
        seen = []
        for at, detection in enumerate(detections):
            number = owner.get(at) or self._begin(pts, detection)
            self._tracks[number].take(pts, detection)
            seen.append((number, detection))
        if frame_size is not None:
            ended += self._end([number for number in free if self._tracks[number].has_left(pts, frame_size)])
        return Update(seen, ended)

    def finish(self) -> list[int]:
        """End all tracks, and return their numbers."""
        return self._end(list(self._tracks))

    def _end(self, numbers: list[int]) -> list[int]:
        for number in numbers:
            del self._tracks[number]
        return numbers

    def _begin(self, pts: float, detection: Detection) -> int:
        self._last += 1
        x, y, size = _centre(detection)
        self._tracks[self._last] = _Track(self._last, x, y, size, pts)
        return self._last

    def _pairs(self, pts: float, detections: Sequence[Detection]) -> list[tuple[float, int, int]]:
        """Return what may be joined, as cost, track and place of the detection.

        The cost is the distance between the predicted and the found centre in sizes of the face, plus
        how much the size differs (as a logarithm).
        """
        found = []
        for number, track in self._tracks.items():
            px, py = track.predict(pts)
            reach = track.reach(pts)
            for at, detection in enumerate(detections):
                x, y, size = _centre(detection)
                ratio = abs(math.log(size / track.size))
                away = math.hypot(x - px, y - py) / max(size, track.size)
                if away <= reach and ratio <= math.log(_MAX_RATIO):
                    found.append((away + ratio, number, at))
        return found


def _coast(gap: float) -> float:
    """Return for how many seconds of `gap` one walks on at full speed to come as far as slowing down."""
    return _COAST_S * (1 - math.exp(-gap / _COAST_S))


def _centre(detection: Detection) -> tuple[float, float, float]:
    """Return the centre and the size (the root of the area) of a face, in pixels."""
    x, y, w, h = detection.box
    return x + w / 2, y + h / 2, math.sqrt(max(w * h, 1.0))
