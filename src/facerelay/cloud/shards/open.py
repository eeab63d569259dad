"""The open shards of a store: faces in memory, held until the bucket has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from facerelay.cloud.contract import Bucket
from facerelay.cloud.counters import Counters
from facerelay.cloud.shards.closing import Closer, Open, Settle
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shelf import Placed
from facerelay.cloud.tombstones import Tombstones
from facerelay.face import Frozen
from facerelay.sections import Store

log = logging.getLogger(__name__)

_DAYS: Final = 4
"""Shards that are open at once: one a day of faces' times. Past it the oldest is closed."""

_AT_ONCE: Final = 2
_MOST_SHARDS: Final = 3
"""So many shards' bytes are in memory at most, open ones and those that are being closed."""

_LOOK_S: Final = 0.5
_LATELY: Final = 200_000
_HEX: Final = 16


class OpenShards:
    """A shelf: faces of one day go into one shard, which is closed when it is large or old.

    Nothing of it survives the process: whose faces they are is told `held`, and sends them again.

    Args:
        closer: writes shards, and tells what became of their faces.
        counters: are told of each face that is held.
        most_bytes: from which a shard is closed.
        most_s: seconds after which it is closed, however small.
        clock: monotonic seconds.
    """

    holds = True

    def __init__(
        self,
        closer: Closer,
        *,
        counters: Counters,
        most_bytes: int,
        most_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._closer = closer
        self._counters = counters
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._clock = clock
        self._open: dict[str, Open] = {}
        self._closing: list[Open] = []
        self._bytes = 0
        self._held: dict[str, str] = {}
        self._lately = _Lately()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._tasks: asyncio.TaskGroup | None = None
        self._freed = asyncio.Event()

    def __len__(self) -> int:
        """How many faces are held."""
        return len(self._held)

    async def place(self, frozen: Frozen) -> Placed:
        """Take a face into the shard of its day; waits where there is no room in memory.

        One that was taken before is not taken twice: it is held still, or it is in the bucket.
        """
        while (placed := self._known(frozen)) is None and not self._has_room(len(frozen.data)):
            self._freed.clear()
            await self._freed.wait()
        if placed is not None:
            return placed
        one = self._of(frozen.face.time.astimezone(UTC).date().isoformat())
        one.pack.add(frozen, arrived=datetime.now(UTC))
        self._bytes += len(one.pack) - one.size
        one.size = len(one.pack)
        self._held[frozen.face.id] = frozen.sha256
        self._counters.held += 1
        if one.size >= self._most_bytes:
            self._close(one)
        return "held"

    async def remove(self, frozen: Frozen) -> None:
        """Do nothing: closing looks at tombstones, and who erases rewrites what is closed."""

    async def run(self) -> None:
        """Close what is due, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for one in self._closing:
                    self._tasks.create_task(self._settle(one))
                while True:
                    await asyncio.sleep(min(_LOOK_S, self._most_s / 2))
                    before = self._clock() - self._most_s
                    for one in [one for one in self._open.values() if one.since <= before]:
                        self._close(one)
        finally:
            self._tasks = None

    async def finish(self) -> None:
        """Close all that is open, once `run` has ended."""
        for one in list(self._open.values()):
            self._close(one)
        await asyncio.gather(*(self._settle(one) for one in list(self._closing)))

    def _known(self, frozen: Frozen) -> Placed | None:
        """Return what is known of a face that came before."""
        held = self._held.get(frozen.face.id)
        if held is not None:
            return "held" if held == frozen.sha256 else "conflict"
        return self._lately.get(frozen)

    def _has_room(self, size: int) -> bool:
        """Whether a face may come in; where not, see that there will be room."""
        if not self._bytes or self._bytes + size <= _MOST_SHARDS * self._most_bytes:
            return True
        if not self._closing:
            self._close(next(iter(self._open.values())))
        return False

    def _of(self, date: str) -> Open:
        """Return the open shard of a day; opened here if there is none."""
        one = self._open.get(date)
        if one is None:
            if len(self._open) >= _DAYS:
                self._close(next(iter(self._open.values())))
            one = self._open[date] = Open(date, self._clock())
        return one

    def _close(self, one: Open) -> None:
        """Have a shard closed; faces of its day go into another from now on."""
        del self._open[one.date]
        self._closing.append(one)
        if self._tasks is not None:
            self._tasks.create_task(self._settle(one))

    async def _settle(self, one: Open) -> None:
        """Close a shard, and let go of its faces."""
        rows, stored = one.pack.rows, list[Row]()
        async with self._turn:
            try:
                stored = await self._closer.close(one)
            except Exception:
                log.exception("a fault of ours: %d faces were not stored, and are sent again", len(rows))
        for row in rows:
            self._held.pop(row.id, None)
        for row in stored:
            self._lately.add(row)
        self._closing.remove(one)
        self._bytes -= one.size
        self._freed.set()


def open_shards(
    settings: Store, bucket: Bucket, *, tombstones: Tombstones, counters: Counters, settle: Settle
) -> OpenShards:
    """Return the open shards of a store; `settle` is told what became of their faces."""
    closer = Closer(bucket, store=settings.name, tombstones=tombstones, counters=counters, settle=settle)
    return OpenShards(closer, counters=counters, most_bytes=settings.shard_bytes, most_s=settings.shard_s)


class _Lately:
    """What was stored lately: as much of ids and hashes as tells them apart, and so many at most."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def add(self, row: Row) -> None:
        self._known[_number(row.id)] = int(row.sha256[:_HEX], 16)
        if len(self._known) > _LATELY:
            del self._known[next(iter(self._known))]

    def get(self, frozen: Frozen) -> Placed | None:
        known = self._known.get(_number(frozen.face.id))
        if known is None:
            return None
        return "same" if known == int(frozen.sha256[:_HEX], 16) else "conflict"


def _number(face_id: str) -> int:
    return int(face_id.replace("-", ""), 16)
