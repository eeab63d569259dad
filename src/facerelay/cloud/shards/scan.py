"""The faces of shards by the bytes of their tars: read in pieces, and compared with the catalogues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError, Entry, MissingError
from facerelay.cloud.shards import names, unpack
from facerelay.cloud.shards.catalogue_cache import lacking
from facerelay.cloud.shards.names import MOST_CATALOGUE_BYTES, Shard
from facerelay.cloud.shards.row import Row

_PIECE: Final = 8_000_000
_TRIES: Final = 3
_BLOCK: Final = 512
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YOUNG: Final = timedelta(minutes=2)
"""A tar that is no older may be on its way into a catalogue."""


class Content(NamedTuple):
    """Something that shards have, or should have.

    Attributes:
        key: the face's, by its catalogue; of what is in none, where it lies; of a broken catalogue its own.
        data: its bytes; None where they are not there, or are too large.
        orphan: whether no catalogue names it.
    """

    key: str
    data: bytes | None = None
    orphan: bool = False


async def contents(
    bucket: Bucket,
    *,
    dates: Callable[[str], bool],
    holds: Callable[[Row], bool],
    longest: int,
) -> AsyncIterator[Content]:
    """Yield the faces of shards, those that a catalogue only claims, and what no catalogue names.

    A tar is read if its catalogue has a face that is meant, with some requests, not one a face. Without
    shards this is one request.

    Args:
        bucket: where.
        dates: which days are meant, as YYYY-MM-DD.
        holds: which faces are meant.
        longest: bytes of a face that are read, at most.

    Raises:
        BucketError: the bucket cannot be read, or pyarrow is not installed.
    """
    known = keys.values(await bucket.children(names.CATALOGUE), "date")
    if not known:
        return
    known += keys.values(await bucket.children(names.ROOT), "date")
    for date in sorted(filter(dates, set(known))):
        async for one in _Scan(bucket, holds, longest).day(date):
            yield one


class _Scan:
    """Reads the shards of a day."""

    def __init__(self, bucket: Bucket, holds: Callable[[Row], bool], longest: int) -> None:
        self._bucket = bucket
        self._holds = holds
        self._longest = longest

    async def day(self, date: str) -> AsyncIterator[Content]:
        done: set[Shard] = set()
        for last in (*[False] * (_TRIES - 1), True):  # shards may be written anew meanwhile
            listed = await self._listed(names.CATALOGUE, date)
            tars = await self._listed(names.ROOT, date)
            gone = False
            for shard in listed.keys() - done:
                try:
                    async for one in self._shard(shard, tars.get(shard), claimed=last):
                        yield one
                    done.add(shard)
                except MissingError:
                    gone = True
            if not gone:
                break
        ripe = datetime.now(UTC) - _YOUNG
        for shard in tars.keys() - listed.keys():
            if tars[shard].modified < ripe:
                yield Content(shard.tar, orphan=True)

    async def _listed(self, root: str, date: str) -> dict[Shard, Entry]:
        found = [entry async for entry in self._bucket.list(f"{root}/date={date}")]
        shards = {entry.key: shard for entry in found if (shard := names.parse(entry.key))}
        return {shards[entry.key]: entry for entry in found if entry.key in shards}

    async def _shard(self, shard: Shard, tar: Entry | None, *, claimed: bool) -> AsyncIterator[Content]:
        """Yield a shard's faces; without its tar they are missing, or, when `claimed`, told without bytes."""
        try:
            rows = await self._rows(shard)
        except ValueError:  # a CatalogueError
            yield Content(shard.catalogue)
            return
        lines = {names.member(row.id, row.sha256, row.extension): row for row in rows}
        left = {row.key for row in rows if self._holds(row)}
        if not left:
            return
        try:
            async for one in self._tar(tar or Entry(shard.tar, _BLOCK, _EPOCH), lines):
                if one.orphan or one.key in left:
                    left.discard(one.key)
                    yield one
        except unpack.TarError:
            pass  # what is behind the place where it ends is told as not there
        except MissingError:
            if not claimed:
                raise
        for key in sorted(left):
            yield Content(key)

    async def _tar(self, tar: Entry, lines: Mapping[str, Row]) -> AsyncIterator[Content]:
        """Yield the pictures of a tar by what its catalogue's lines say of them."""
        async for member, data in members(self._bucket, tar, longest=self._longest):
            row = lines.get(member.name)
            if row and (row.offset, row.length) == (member.offset, member.length):
                yield Content(row.key, data)
            elif not member.name.endswith(".json"):
                yield Content(f"{tar.key}/{member.name}", orphan=True)

    async def _rows(self, shard: Shard) -> list[Row]:
        try:
            from facerelay.cloud.shards import catalogue  # noqa: PLC0415 - pyarrow may not be there
        except ImportError:
            raise lacking() from None
        try:
            data = await self._bucket.get(shard.catalogue, max_bytes=MOST_CATALOGUE_BYTES)
        except BucketError as error:
            if error.fault == "too-large":
                raise catalogue.CatalogueError("too large") from error
            raise
        return await asyncio.to_thread(catalogue.read, data, tar=shard.tar)


async def members(
    bucket: Bucket, tar: Entry, *, longest: int
) -> AsyncIterator[tuple[unpack.Member, bytes | None]]:
    """Yield the members of a tar with their bytes, of which a piece at a time is in memory.

    Args:
        bucket: where.
        tar: as it was listed.
        longest: bytes of a member that are read, at most; for a larger one there is None.

    Raises:
        TarError: it is no shard's, from here on.
        BucketError: it cannot be read.
    """
    pieces = _Pieces(bucket, tar)
    at = 0
    while any(head := await pieces.take(at, _BLOCK)):
        member = unpack.member_at(head, at)
        yield member, await pieces.take(member.offset, member.length) if member.length <= longest else None
        at = member.blocks.stop


class _Pieces:
    """An object that is read from its beginning to its end, some megabytes at a time."""

    def __init__(self, bucket: Bucket, entry: Entry) -> None:
        self._bucket = bucket
        self._entry = entry
        self._start = 0
        self._data = b""

    async def take(self, at: int, length: int) -> bytes:
        end = self._start + len(self._data)
        if at + length > self._entry.size:
            raise unpack.TarError("it is cut off")
        if at + length > end:
            kept = self._data[at - self._start :] if at < end else b""
            start = max(at, end)
            more = min(max(_PIECE, length - len(kept)), self._entry.size - start)
            more = max(more, at + length - start)
            self._data = kept + await self._bucket.get_range(self._entry.key, start=start, length=more)
            self._start = at
        here = at - self._start
        return self._data[here : here + length]
