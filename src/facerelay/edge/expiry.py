"""Retention at the edge: no picture stays longer than was set, whatever became of its face."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from facerelay.edge import aside
from facerelay.edge.clock import ClockSet, since_boot
from facerelay.edge.outbox import Outbox
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_EVERY_S: Final = 5.0
_THOROUGH_EVERY_S: Final = 3600.0
_AT_ONCE: Final = 500


class Expiry:
    """Drops what waited too long, by the wall clock, for it may have waited through a restart.

    That clock may be set meanwhile, by days where none runs while the machine is off: what was chosen since
    the outbox was opened counts by the time that truly passed.

    Every hour all pictures are looked at: those of refused faces too, and what a clock that was set has
    brought out of order; and outboxes that were set aside as damaged.

    Args:
        outbox: where they wait.
        after_s: seconds from the choice of the picture; None lets them wait for ever.
        clock: monotonic seconds.
        now: Unix seconds.
        since_boot: seconds of which sleep is a part, and which nobody sets.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        after_s: float | None,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
        since_boot: Callable[[], float] = since_boot,
    ) -> None:
        self._outbox = outbox
        self._after_s = after_s
        self._clock = clock
        self._clock_set = ClockSet(now, since_boot)
        self._next = self._next_thorough = clock()
        self._seldom = Seldom(log)

    async def look(self) -> None:
        """Drop what is due, now and then.

        Raises:
            sqlite3.Error: the disk fails; it is tried again.
        """
        if self._after_s is None or self._clock() < self._next:
            return
        now, by = self._clock_set.look()
        if by:
            log.warning("the clock was set by %+.0f s: what waits from before counts by the new one", by)
            await asyncio.wrap_future(self._outbox.reclock(now=now, by=by))
        before = now - self._after_s
        await _all(lambda: self._outbox.expire(before, _AT_ONCE))
        if self._clock() >= self._next_thorough:
            await _all(lambda: self._outbox.clear_old(before, _AT_ONCE))
            await self._forget_broken(before)
            self._next_thorough = self._clock() + _THOROUGH_EVERY_S
        self._next = self._clock() + _EVERY_S

    async def _forget_broken(self, before: float) -> None:
        try:
            await asyncio.to_thread(aside.forget_older, self._outbox.path, before)
        except OSError as error:
            form = "a broken outbox past its time cannot be deleted: %s: delete it by hand"
            self._seldom.say(logging.ERROR, "broken", form, error)


async def _all(some: Callable[[], Future[int]]) -> None:
    """Do a work of so many at once until there is less to do."""
    while await asyncio.wrap_future(some()) == _AT_ONCE:
        pass
