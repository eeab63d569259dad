"""What a camera's thread tells of its faces and visits, and the switch that it obeys."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from facerelay.edge.eyes.watch import Seen
from facerelay.face import Frozen

_MOST_VISITS: Final = 1024


class Captured(NamedTuple):
    """A face that is in the outbox, and when its visit began."""

    frozen: Frozen
    began: datetime


class Ended(NamedTuple):
    """A visit that is over: its camera, its number, and when it was last looked at."""

    camera: str
    track: int
    last: datetime


News: TypeAlias = Captured | Ended


@dataclass(kw_only=True)
class Witness:
    """Follows one camera, in its thread.

    A visit's end is told after its last face: that one is captured only once the visit is over.

    Attributes:
        camera: its name.
        tell: takes the news; it must return at once.
        paused: while it is set, nothing is looked at.
    """

    camera: str
    tell: Callable[[News], None]
    paused: threading.Event

    _visits: dict[int, tuple[datetime, datetime]] = field(default_factory=dict)
    _ending: set[int] = field(default_factory=set)

    def observe(self, seen: Seen) -> None:
        """Take what was made of a frame."""
        for look in seen.looks:
            began = self._visits.get(look.track, (seen.frame.time,))[0]
            self._visits[look.track] = began, seen.frame.time
        while len(self._visits) > _MOST_VISITS:
            self._end(next(iter(self._visits)))
        sent = {shot.track for shot in seen.shots}
        for track in seen.ended:
            if track in sent:
                self._ending.add(track)
            else:
                self._end(track)

    def captured(self, frozen: Frozen) -> None:
        """Take a face that came into the outbox."""
        track = frozen.face.track
        began, _ = self._visits.get(track, (frozen.face.time, frozen.face.time))
        self.tell(Captured(frozen, began))
        if track in self._ending:
            self._ending.discard(track)
            self._end(track)

    def finish(self) -> None:
        """Take the camera's end: nobody is seen any more."""
        for track in list(self._visits):
            self._end(track)

    def _end(self, track: int) -> None:
        seen = self._visits.pop(track, None)
        if seen is not None:
            self.tell(Ended(self.camera, track, seen[1]))
