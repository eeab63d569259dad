"""A shard is closed: the erased are left out, the tar is written, then its catalogue, then all is told."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from facerelay import face as faces
from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.counters import Counters
from facerelay.cloud.patience import REFUSALS, SAY_EVERY_S, Backoff, works
from facerelay.cloud.shards import catalogue
from facerelay.cloud.shards.names import PARQUET, TAR, Shard
from facerelay.cloud.shards.pack import Pack
from facerelay.cloud.shards.rewrite import obey, remove
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shelf import create
from facerelay.cloud.tombstones import AGE_S, MAX_IDS, Tombstone, Tombstones, bury
from facerelay.face import Limits
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_LARGE: Final = 4_000_000
"""A shard of so many bytes may be what a slow line, or a proxy, does not carry: half of it may go."""

_T = TypeVar("_T")

Settle = Callable[[Pack, str, Sequence[Row]], Awaitable[None]]
"""Is told of faces of a pack that they are `stored`, `erased`, or `refused:<reason>`."""


class _ErasedError(Exception):
    """Faces of this shard were erased while it was written."""


class _UnwantedError(Exception):
    """The bucket works, and does not take this shard."""


@dataclass(slots=True)
class Open:
    """A shard that is not in the bucket yet.

    Attributes:
        date: of its faces.
        since: when it was opened, in monotonic seconds.
        size: bytes of memory that it takes.
        shard: its name, once it has one: a closing that was cut off goes on under it.
    """

    date: str
    since: float
    pack: Pack = field(default_factory=Pack)
    size: int = 0
    shard: Shard | None = None


class Closer:
    """Closes shards. While the bucket fails it tries again and again: nobody is told anything meanwhile.

    Args:
        bucket: where they are written.
        store: whose they are.
        tombstones: say what was erased.
        counters: are told of failures, and how long the bucket takes.
        settle: is told what became of each face.
    """

    def __init__(
        self, bucket: Bucket, *, store: str, tombstones: Tombstones, counters: Counters, settle: Settle
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._tombstones = tombstones
        self._counters = counters
        self._settle = settle
        self._bucket_fails = Seldom(log, every_s=SAY_EVERY_S)

    async def close(self, one: Open) -> list[Row]:
        """Write a shard; returns what of it is stored, when each face in it has been told of."""
        shard = None
        while shard is None:
            await self._leave_out(one)
            if not one.pack.rows:
                return []
            with suppress(_ErasedError):
                try:
                    shard = await self._write(one)
                except _UnwantedError:
                    return await self._halve(one)
        self._counters.shards += 1
        self._counters.shard_bytes += len(one.pack)
        stored = await self._obeyed(one.pack, shard)
        await self._settle(one.pack, "stored", stored)
        return stored

    async def _leave_out(self, one: Open) -> None:
        """Leave out what was erased by now; what was written with it goes."""
        gone, kept = await self._sorted(one.pack, self._is_meant)
        if gone:
            await self._keep_away([row.id for row in gone if not row.erased_by(self._tombstones)])
            if one.shard is not None:
                await self._remove(one.shard)
            before, one.pack, one.shard = one.pack, await asyncio.to_thread(_only, one.pack, kept), None
            await self._settle(before, "erased", gone)

    async def _obeyed(self, pack: Pack, shard: Shard) -> list[Row]:
        """Return what stays of a shard that was written: what was erased meanwhile goes from the bucket."""
        gone, kept = await self._sorted(pack, self._is_erased, age_s=0)
        if gone:
            await self._patiently(lambda: obey(self._bucket, shard, self._tombstones))
            gone, kept = await self._sorted(pack, self._is_erased)
            await self._settle(pack, "erased", gone)
        return kept

    async def _keep_away(self, ids: Sequence[str]) -> None:
        """Have faces stay away by their ids that no rule covers: they may be sent again."""
        for at in range(0, len(ids), MAX_IDS):
            tombstone = Tombstone(made=datetime.now(UTC), ids=tuple(ids[at : at + MAX_IDS]))
            await self._patiently(partial(bury, self._bucket, tombstone))

    def _is_erased(self, row: Row) -> bool:
        return row.erased_by(self._tombstones)

    def _is_meant(self, row: Row) -> bool:
        """Whether a face is erased, or had come before an erasure and escapes it by its clock alone.

        Nobody else finds the latter while it is in memory; once it is in the bucket who erases does.
        """
        ahead = self._tombstones.comes_before(row.site, row.camera, row.time, arrived=row.arrived)
        return ahead or row.erased_by(self._tombstones)

    async def _sorted(
        self, pack: Pack, goes: Callable[[Row], bool], *, age_s: float = AGE_S
    ) -> tuple[list[Row], list[Row]]:
        """Return what goes, by tombstones that are known for no longer than `age_s`, and what stays."""
        await self._patiently(lambda: self._tombstones.refresh(age_s=age_s))
        sides: tuple[list[Row], list[Row]] = [], []
        for row in pack.rows:
            sides[not goes(row)].append(row)
        return sides

    async def _write(self, one: Open) -> Shard:
        """Write tar and catalogue; return their name.

        Raises:
            _ErasedError: faces in it were erased before they were written.
            _UnwantedError: the bucket works, and does not take them.
        """
        shard = one.shard or Shard.new(one.date, self._store, datetime.now(UTC))
        tar, sha256 = await asyncio.to_thread(_tar, one.pack)
        while True:
            one.shard = shard
            lines = await asyncio.to_thread(catalogue.write, one.pack.rows, tar=shard.tar)
            wanted = _Wanted(one)
            if await self._create(shard.tar, tar, TAR, wanted, sha256) and await self._create(
                shard.catalogue, lines, PARQUET, wanted
            ):
                return shard
            # A catalogue that somebody else gave to our tar meanwhile: it says another time of arrival.
            await self._remove(shard)
            shard = Shard.new(shard.date, shard.store, shard.closed)

    async def _create(
        self, key: str, data: bytes, media: str, wanted: _Wanted, sha256: str | None = None
    ) -> bool:
        """Create an object; False where other bytes lie there.

        No try begins later than `AGE_S` after a look at the tombstones: an erasure counts on that.

        Raises:
            _ErasedError: faces in it were erased.
            _UnwantedError: the bucket works, and does not take it.
        """

        async def put() -> bool:
            await self._tombstones.refresh(age_s=AGE_S)
            if any(self._is_meant(row) for row in wanted.rows):
                raise _ErasedError
            placed = await create(
                self._bucket, key, data, media=media, sha256=sha256, counters=self._counters
            )
            return placed != "conflict"

        return await self._patiently(put, wanted)

    async def _remove(self, shard: Shard) -> None:
        await self._patiently(lambda: remove(self._bucket, shard))

    async def _patiently(self, work: Callable[[], Awaitable[_T]], wanted: _Wanted | None = None) -> _T:
        backoff = Backoff()
        while True:
            try:
                return await work()
            except BucketError as error:
                self._counters.failures += 1
                form = "the bucket fails, shards wait to be closed: %s"
                self._bucket_fails.say(logging.WARNING, "bucket", form, error)
                if wanted is not None and wanted.doubts(error) and await works(self._bucket):
                    raise _UnwantedError from error
            await backoff.pause()

    async def _halve(self, one: Open) -> list[Row]:
        """Close as two what the bucket does not take as one; of a single face it is told."""
        rows = one.pack.rows
        if one.shard is not None:
            await self._remove(one.shard)
        if len(rows) == 1:
            log.error("face %s: the bucket refuses its shard for good", rows[0].id)
            await self._settle(one.pack, "refused:bucket", rows)
            return []
        log.error(
            "the bucket works, and does not take a shard of %d bytes, or not in time: it is halved; set"
            " store.shard_bytes lower", len(one.pack),
        )  # fmt: skip
        middle, stored = len(rows) // 2, []
        for half in (rows[:middle], rows[middle:]):
            pack = await asyncio.to_thread(_only, one.pack, half)
            stored += await self.close(Open(one.date, one.since, pack))
        return stored


class _Wanted:
    """Doubts, after some failures, whether it is the shard that the bucket does not want."""

    def __init__(self, one: Open) -> None:
        self.rows = one.pack.rows
        self._large = len(one.pack) > _LARGE and len(one.pack.rows) > 1
        self._refusals = 0

    def doubts(self, error: BucketError) -> bool:
        self._refusals += self._large or not error.passing
        return self._refusals >= REFUSALS


def _tar(pack: Pack) -> tuple[bytes, str]:
    """Return a tar and its hash."""
    tar = pack.tar()
    return tar, hashlib.sha256(tar).hexdigest()


def _only(pack: Pack, rows: Sequence[Row]) -> Pack:
    """Return some of a pack's faces as a pack of their own, which arrived when they did."""
    kept = Pack()
    for row in rows:
        data = pack.picture(row)
        kept.add(faces.parse(data, Limits(bytes=len(data), pixels=2**62)), arrived=row.arrived)
    return kept
