"""How many faces each camera gave since midnight, in the machine's own time zone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime

from facerelay.edge.outbox import Outbox
from facerelay.face import first_id


def local_now() -> datetime:
    """Return the time in the machine's own zone."""
    return datetime.now().astimezone()


class Today:
    """Counts; begins with what the outbox has of the day, so that a restart forgets nothing.

    Args:
        now: the time, in the zone whose midnight counts.
    """

    def __init__(self, *, now: Callable[[], datetime] = local_now) -> None:
        self._now = now
        self._day: date = now().date()
        self._faces: Counter[str] = Counter()

    async def load(self, outbox: Outbox, site: str) -> None:
        """Begin with what was captured already."""
        midnight = self._now().replace(hour=0, minute=0, second=0, microsecond=0)
        captured = await asyncio.wrap_future(outbox.captured_since(site, first_id(midnight)))
        self._faces.update(captured)

    def add(self, camera: str) -> None:
        """Count one more."""
        self.turn()
        self._faces[camera] += 1

    def of(self, camera: str) -> int:
        """Return how many a camera gave."""
        return self._faces[camera]

    def turn(self) -> None:
        """Begin anew if midnight has passed."""
        if (day := self._now().date()) != self._day:
            self._day = day
            self._faces.clear()
