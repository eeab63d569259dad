"""Levels of the bucket's tree as they were listed a moment ago, and what changed since they were before."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, Entry
from facerelay.cloud.gallery.counted import PAGE
from facerelay.cloud.shards.names import parse as shard_of
from facerelay.cloud.single_flight import SingleFlight

_AT_ONCE: Final = 24
_MAX_BYTES: Final = 48_000_000
_OVERHEAD: Final = 400
_WIDEST: Final = 5_000
_MOST_OF_A_MINUTE: Final = 20_000
_BUSY_S: Final = 600.0
_SOON_S: Final = 1.0
_JUST_NOW: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Level:
    """One level: the values of the partitions below, or the names of the faces, in the order of their keys.

    They are kept as one text: a third of the memory. A `busy` hour has more faces than one request lists:
    its faces are below its minutes, as their names begin, and it lists those.
    """

    read_at: float
    text: str
    busy: bool = False

    @property
    def names(self) -> Sequence[str]:
        """Return them, sorted."""
        return self.text.split("\n") if self.text else ()


@dataclass(frozen=True, slots=True)
class Change:
    """What is other in a partition than when it was listed before."""

    prefix: str
    added: frozenset[str]
    gone: frozenset[str]


class Listings:
    """Lists levels, each once for all who ask at a time, and keeps them within a budget of memory.

    Args:
        bucket: where.
        max_bytes: of names that are kept; those not asked for the longest go first.

    Attributes:
        on_change: is told what changed in an hour's partition that is listed again. Of one that is listed
            for the first time, what arrived in the last seconds is a change.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._bucket = bucket
        self._max_bytes = max_bytes
        self.on_change: Callable[[Change], None] = lambda _: None
        self._kept: OrderedDict[str, Level] = OrderedDict()
        self._bytes = 0
        self._reading = SingleFlight[Level]()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def names(self, prefix: str, *, age_s: float) -> Sequence[str]:
        """Return what lies at a level, as it was at most `age_s` ago: partitions' values, or faces' names.

        Raises:
            BucketError: the bucket cannot be read.
        """
        return (await self.level(prefix, age_s=age_s)).names

    async def level(self, prefix: str, *, age_s: float) -> Level:
        """Return a level as it was at most `age_s` ago; that an hour is busy stays known for longer.

        Raises:
            BucketError: the bucket cannot be read.
        """
        kept = self._kept.get(prefix)
        if kept is not None and time.monotonic() - kept.read_at <= (_BUSY_S if kept.busy else age_s):
            self._kept.move_to_end(prefix)
            return kept
        return await self._reading.do(prefix, lambda: self._read(prefix))

    async def has(self, key: str, *, age_s: float) -> bool:
        """Whether a face lies in the bucket, as it was at most `age_s` ago; if not, it is looked at again.

        Raises:
            BucketError: the bucket cannot be read.
        """
        hour, _, name = key.rpartition("/")
        for oldest in (age_s, _SOON_S):
            level = await self.level(hour, age_s=oldest)
            if level.busy:
                level = await self.level(minute_of(key), age_s=oldest)
            if name in level.names:
                return True
        return False

    def faces(self) -> Sequence[str]:
        """Return the keys of all faces in the partitions that are kept."""
        kept = [(hour_of(prefix), level) for prefix, level in self._kept.items() if not level.busy]
        return [f"{hour}/{name}" for hour, level in kept if hour for name in level.names]

    def drop(self, gone: Sequence[str]) -> None:
        """Forget faces that were deleted."""
        by_prefix: dict[str, set[str]] = {}
        for key in gone:
            hour, _, name = key.rpartition("/")
            for prefix in (hour, minute_of(key)):
                by_prefix.setdefault(prefix, set()).add(name)
        for prefix, names in by_prefix.items():
            if kept := self._kept.get(prefix):
                left = [name for name in kept.names if name not in names]
                self._keep(prefix, replace(kept, text="\n".join(left)))

    async def _read(self, prefix: str) -> Level:
        begin = time.monotonic()
        hour = hour_of(prefix)
        if hour is None:
            async with self._gate:
                found = await self._bucket.children(prefix)
            values = keys.values(found, list(keys.LEVELS)[prefix.count("/")])[-_WIDEST:]
            level = Level(begin, "\n".join(values))
            self._keep(prefix, level)
            return level
        async with self._gate:
            entries, whole = await self._faces(prefix, hour)
        names = [entry.key.rpartition("/")[2] for entry in entries]
        before = self._kept.get(prefix)
        if whole:
            level = Level(begin, "\n".join(names))
            self._keep(prefix, level)
            self._tell(hour, before, level, entries)
        else:
            level = Level(begin, "\n".join(await self._minutes(hour)), busy=True)
            self._keep(prefix, level)
        return level

    async def _minutes(self, hour: str) -> list[str]:
        """Return the minutes of a busy hour, but for the tens at its end that have no faces."""

        async def goes_on(tens: int) -> bool:
            async with self._gate, self._listing(hour, f"{hour}/{hour[-2:]}{tens}0") as rest:
                return await anext(aiter(rest), None) is not None

        found = await asyncio.gather(*(goes_on(tens) for tens in range(1, 6)))
        return [f"{hour[-2:]}{minute:02}" for minute in range(10 * (1 + sum(found)))]

    async def _faces(self, prefix: str, hour: str) -> tuple[list[Entry], bool]:
        """Return the faces of an hour, or of a minute; and whether these are all of them that can be."""
        if not self._bucket.paged:
            level = await self._bucket.children(hour)
            return [entry for entry in level.entries if _lies(prefix, entry.key)], True
        found: list[Entry] = []
        is_hour = prefix == hour
        left = PAGE if is_hour else _MOST_OF_A_MINUTE
        async with self._listing(hour, None if is_hour else prefix) as entries:
            async for entry in entries:
                if not left or not entry.key.startswith(prefix):
                    return found, not is_hour
                left -= 1
                if _lies(prefix, entry.key):
                    found.append(entry)
        return found, True

    def _listing(self, hour: str, after: str | None) -> AbstractAsyncContextManager[AsyncIterator[Entry]]:
        return aclosing(self._bucket.list(hour, after=after))  # type: ignore[type-var]

    def _keep(self, prefix: str, level: Level) -> None:
        if old := self._kept.pop(prefix, None):
            self._bytes -= len(old.text) + _OVERHEAD
        self._kept[prefix] = level
        self._bytes += len(level.text) + _OVERHEAD
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.text) + _OVERHEAD

    def _tell(self, hour: str, before: Level | None, level: Level, found: Sequence[Entry]) -> None:
        if before is not None and before.text == level.text:
            return
        now = set(level.names)
        if before is not None:
            was = set(before.names)
            change = Change(hour, frozenset(now - was), frozenset(was - now))
        else:
            since = datetime.now(UTC) - _JUST_NOW
            fresh = {one.key.rpartition("/")[2] for one in found if _appeared(one) >= since}
            change = Change(hour, frozenset(now & fresh), frozenset())
        if change.added or change.gone:
            self.on_change(change)


def hour_of(prefix: str) -> str | None:
    """Return the hour's partition that a prefix is, or lies in; None where it is none."""
    depth = prefix.count("/")
    if depth < len(keys.LEVELS):
        return None
    return prefix if depth == len(keys.LEVELS) else prefix.rpartition("/")[0]


def minute_of(key: str) -> str:
    """Return the beginning of a face's key that it shares with the others of its minute."""
    hour, _, name = key.rpartition("/")
    return f"{hour}/{name[:4]}"


def _appeared(entry: Entry) -> datetime:
    """Return when a face could first be seen: in a shard, once that was closed."""
    shard = shard_of(entry.lies.tar) if entry.lies else None
    return max(entry.modified, shard.closed) if shard else entry.modified


def _lies(prefix: str, key: str) -> bool:
    """Whether this is a face, and of this hour or minute: another hour's would come out of order."""
    hour = hour_of(prefix)
    begin = prefix if prefix != hour else f"{hour}/{hour[-2:]}"
    return key.startswith(begin) and keys.parse(key) is not None
