"""Capture so many numbered faces at a rate and relay them; then end once each has its answer.

`python -m faults.feeder CONFIG JOURNAL CLOCK SEED RATE BEGIN COUNT`, the time as `time.monotonic()` has it.
Started again after a kill, it goes on with the number after the last, and catches up.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from facerelay import settings
from facerelay.commands import running
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from faults.clock import Clock
from faults.numbered import Offered, Writing, after_last, freeze

_CATCH_UP: Final = 3
MOST_UNCOMMITTED: Final = 200
"""Faces without the outbox's word at any time: what a kill may take."""

_LOOK_S: Final = 0.2


class Feeder:
    """Puts numbered faces into an outbox, and writes down what became of each."""

    def __init__(self, outbox: Outbox, journal: Path, seed: int) -> None:
        self._outbox = outbox
        self._number = after_last(journal)
        self._journal = Writing(journal)
        self._seed = seed
        self._room = asyncio.Semaphore(MOST_UNCOMMITTED)

    async def feed(self, rate: float, begin: float, count: int) -> None:
        """Offer each number when it is due, those of the past a little faster than that."""
        async with asyncio.TaskGroup() as puts:
            while self._number < count:
                due, now = begin + self._number / rate, time.monotonic()
                if due > now:
                    await asyncio.sleep(due - now)
                    continue
                await self._room.acquire()
                puts.create_task(self._put(self._number))
                self._number += 1
                await asyncio.sleep(1 / (_CATCH_UP * rate))

    async def _put(self, number: int) -> None:
        outbox, begin = self._outbox, time.monotonic()
        micros = time.time_ns() // 1000
        one = Offered(number, outbox.id, outbox.run, outbox.number(), micros)
        self._journal.offered(one)
        try:
            await asyncio.wrap_future(outbox.put(freeze(self._seed, one), chosen=micros / 1e6))
        except sqlite3.Error:
            self._journal.turned_away(number, begin, time.monotonic())
        else:
            self._journal.kept(number)
        finally:
            self._room.release()

    async def answered(self) -> None:
        """Return once no face waits."""
        while True:
            try:
                if not await asyncio.wrap_future(self._outbox.waiting()):
                    return
            except sqlite3.Error as error:
                sys.stderr.write(f"how many wait cannot be asked: {error}\n")
            await asyncio.sleep(_LOOK_S)


async def main(words: Sequence[str]) -> None:
    config_path, journal, clock, seed, rate, begin, count = words
    Clock(Path(clock)).take()
    running.set_up_log(verbose=False)
    config = settings.load(Path(config_path), environ={})
    with open_outbox(config) as outbox:
        async with relaying(config, outbox, running.connector(config)):
            feeder = Feeder(outbox, Path(journal), int(seed))
            await feeder.feed(float(rate), float(begin), int(count))
            await feeder.answered()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
