"""Faces that waited too long, where the user has set how long that is: dropped, and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from facerelay.edge.outbox import Outbox

_EVERY_S: Final = 5.0
_AT_ONCE: Final = 500


class Expiry:
    """Drops what waited too long, by the wall clock, for it may have waited through a restart.

    Args:
        outbox: where they wait.
        after_s: seconds from the choice of the picture; None lets them wait for ever.
        clock: monotonic seconds.
        now: Unix seconds.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        after_s: float | None,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._after_s = after_s
        self._clock = clock
        self._now = now
        self._next = clock()

    async def look(self) -> None:
        """Drop what is due, now and then.

        Raises:
            sqlite3.Error: the disk fails; it is tried again.
        """
        if self._after_s is None or self._clock() < self._next:
            return
        before = self._now() - self._after_s
        while await asyncio.wrap_future(self._outbox.expire(before, _AT_ONCE)) == _AT_ONCE:
            pass
        self._next = self._clock() + _EVERY_S
