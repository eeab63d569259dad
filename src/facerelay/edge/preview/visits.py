"""Visits that ended without a face, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes.best import Look

_GOOD: Final = {"best", "kept"}
_MOST_OPEN: Final = 256

FLEETING: Final = "fleeting"
"""Of a visit with a single good look: one is not enough to be sure of a face."""

UNSENT: Final = "unsent"
"""Of a visit with good looks of which none was due, as happens with policy `every`."""


@dataclass(slots=True, kw_only=True)
class Visit:
    """One visit, as far as it was seen.

    Attributes:
        track: its number.
        begin: when it was seen first, in UTC.
        end: when it was seen last.
        seen: the same, on the stream's clock, in seconds.
        verdicts: what was made of its face, and in how many frames.
        quality: the best so far, 0 to 1; None where none was measured.
        sent: whether a picture of it was sent.
        picture: the largest view of it, small; None where none was made in time.
        area: of that view in its frame, in pixels.
    """

    track: int
    begin: datetime
    end: datetime
    seen: float
    verdicts: Counter[str] = field(default_factory=Counter)
    quality: float | None = None
    sent: bool = False
    picture: Image | None = field(default=None, repr=False)
    area: float = 0.0

    @property
    def good(self) -> int:
        """How many of its looks were good enough to be sent."""
        return sum(self.verdicts[verdict] for verdict in _GOOD)

    @property
    def reason(self) -> str:
        """Why no picture of it was sent: what most of its looks were refused for, if none was good."""
        if self.good:
            return FLEETING if self.good == 1 else UNSENT
        return self.verdicts.most_common(1)[0][0]


class Visits:
    """Follows a camera's visits through what is told of its frames.

    A visit ends as the tracker ends it: when its face was not seen for `gap_s` seconds of the stream's
    clock in frames that were looked at; while nothing changes, whoever was there is there still.
    """

    def __init__(self, *, gap_s: float) -> None:
        self._gap_s = gap_s
        self._open: dict[int, Visit] = {}
        self._looked = 0.0

    def get(self, track: int) -> Visit | None:
        """Return a visit that goes on."""
        return self._open.get(track)

    def send(self, tracks: Iterable[int]) -> None:
        """Note of which visits a picture is sent."""
        for track in tracks:
            if track in self._open:
                self._open[track].sent = True

    def look(self, pts: float, time: datetime, looks: Sequence[Look]) -> list[Visit]:
        """Take a frame that was looked at, and return the visits that ended without a face."""
        for track, _, quality, verdict in looks:
            visit = self._open.get(track) or self._begin(track, pts, time)
            visit.seen, visit.end = pts, time
            visit.verdicts[verdict] += 1
            visit.sent |= verdict == "sent"
            if quality is not None:
                visit.quality = max(visit.quality or 0.0, quality.total)
        self._looked = pts
        return self.miss(pts)

    def rest(self, pts: float) -> None:
        """Take a frame in which nothing had changed."""
        for visit in self._open.values():
            if visit.seen == self._looked:
                visit.seen = pts
        self._looked = pts

    def miss(self, pts: float) -> list[Visit]:
        """Let time pass, and return the visits that it ended without a face."""
        return self._end([track for track, each in self._open.items() if pts - each.seen > self._gap_s])

    def finish(self) -> list[Visit]:
        """End all visits with their camera, and return those that had no good look.

        What is sent of the others at the very end nobody tells.
        """
        return [visit for visit in self._end(list(self._open)) if not visit.good]

    def _begin(self, track: int, pts: float, time: datetime) -> Visit:
        if len(self._open) >= _MOST_OPEN:
            del self._open[min(self._open)]
        self._open[track] = Visit(track=track, begin=time, end=time, seen=pts)
        return self._open[track]

    def _end(self, tracks: list[int]) -> list[Visit]:
        ended = [self._open.pop(track) for track in tracks]
        return [visit for visit in ended if not visit.sent]
