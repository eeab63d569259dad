"""A walk over the shards of a bucket, day by day, for who erases: what is in them, and what has to go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError, Entry, MissingError
from facerelay.cloud.shards import names, unpack
from facerelay.cloud.shards.names import Shard
from facerelay.cloud.shards.row import Row
from facerelay.cloud.tombstones import Tombstones
from facerelay.steps import Watch, unwatched

if TYPE_CHECKING:  # it loads pyarrow, which a bucket without shards does without
    from facerelay.cloud.shards.rewrite import Rewritten

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_AT_ONCE: Final = 8
_MOST_AT_ONCE: Final = 64_000_000
"""Bytes of the tars that are dealt with at once, or else one tar: each is held about twice."""

_CATALOGUE_WEIGHT: Final = 20
"""How much more memory a catalogue takes when it is unpacked."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A shard that the bucket holds, or what there is of it.

    Attributes:
        shard: its name.
        tar: its tar, where that was listed.
        catalogue: its catalogue, where that was listed.
    """

    shard: Shard
    tar: Entry | None
    catalogue: Entry | None

    @property
    def entries(self) -> list[Entry]:
        """What there is of it: the catalogue first."""
        return [entry for entry in (self.catalogue, self.tar) if entry is not None]

    @property
    def modified(self) -> datetime:
        """When it arrived, by the bucket's clock."""
        return min(entry.modified for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes that are read to write it anew."""
        return self.tar.size if self.tar else 0

    @property
    def weight(self) -> int:
        """Bytes, about, that it takes to know what is in it."""
        return _CATALOGUE_WEIGHT * self.catalogue.size if self.catalogue else self.size


async def dates(bucket: Bucket, wanted: Callable[[str], bool] = lambda _: True) -> list[str]:
    """Return the dates, as YYYY-MM-DD, of which there are shards and that are wanted; two requests.

    Raises:
        BucketError: the bucket cannot be read.
    """
    levels = await asyncio.gather(bucket.children(names.CATALOGUE), bucket.children(names.ROOT))
    return sorted({date for level in levels for date in keys.values(level, "date") if wanted(date)})


async def of_date(bucket: Bucket, date: str) -> list[Listed]:
    """Return the shards of a date, by name; a tar that has no catalogue yet is among them.

    Raises:
        BucketError: the bucket cannot be read.
    """
    tars = {entry.key: entry async for entry in bucket.list(f"{names.ROOT}/date={date}")}
    lines = {entry.key: entry async for entry in bucket.list(f"{names.CATALOGUE}/date={date}")}
    shards = {shard for key in (*tars, *lines) if (shard := names.parse(key)) is not None}
    return [Listed(shard, tars.get(shard.tar), lines.get(shard.catalogue)) for shard in sorted(shards)]


async def read(bucket: Bucket, listed: Listed) -> Sequence[Row]:
    """Return what is in a shard, by its catalogue or else by its tar; nothing where it is gone meanwhile.

    Raises:
        BucketError: it cannot be read.
    """
    from facerelay.cloud.shards import reading  # noqa: PLC0415 - it loads pyarrow

    rows = await reading.listed(bucket, listed.shard) if listed.catalogue else None
    if rows is not None or listed.tar is None:
        return rows or ()
    try:
        tar = await bucket.get(listed.shard.tar, max_bytes=unpack.MOST_BYTES)
    except MissingError:
        return ()
    except BucketError as error:
        if error.fault != "too-large":
            raise
        log.error("%s: no shard of facerelay's, and left as it is", error)  # noqa: TRY400 - no traceback needed
        return ()
    return await reading.read_tar(tar, listed.shard)


class Sweep:
    """The shards of a bucket, gone through once or more for one erasure.

    Args:
        bucket: where.
        tombstones: of it; read here if not given, once they are needed.
        watch: is told how far it is.
    """

    def __init__(
        self, bucket: Bucket, *, tombstones: Tombstones | None = None, watch: Watch = unwatched
    ) -> None:
        self._bucket = bucket
        self._tombstones = tombstones or Tombstones(bucket)
        self._watch = watch
        self._without: set[Listed] = set()

    async def find(
        self, wanted: Callable[[str], bool], judge: Callable[[Row], _T | None]
    ) -> AsyncIterator[tuple[Listed, list[_T]]]:
        """Yield the shards of wanted dates in which something is found, and what that is.

        A shard is never changed: one in which nothing was found is not read a second time.

        Args:
            wanted: says which dates, as YYYY-MM-DD.
            judge: says of a face what is to be told of it, if anything.

        Raises:
            BucketError: the bucket cannot be read.
        """
        looked = 0
        for date in await dates(self._bucket, wanted):
            there = [one for one in await of_date(self._bucket, date) if one not in self._without]
            for some in in_turns(there, lambda one: one.weight):
                self._watch(f"reading catalogues, at {date}", looked := looked + len(some))
                each = await _all(read(self._bucket, one) for one in some)
                for one, rows in zip(some, each, strict=True):
                    if found := [told for row in rows if (told := judge(row)) is not None]:
                        yield one, found
                    else:
                        self._without.add(one)

    def look_anew(self) -> None:
        """Read all of them the next time: more is looked for than before."""
        self._without.clear()

    async def obey(self, touched: Iterable[Listed]) -> list[str]:
        """Have shards hold nothing that a tombstone covers; return the keys of faces and tars that went.

        Raises:
            BucketError: the bucket failed; asking again is safe.
        """
        every = list(touched)
        if not every:
            return []
        from facerelay.cloud.shards import rewrite  # noqa: PLC0415 - it loads pyarrow

        done: list[Rewritten] = []
        await self._tombstones.refresh(age_s=0)
        for some in in_turns(every, lambda one: one.size):
            self._watch("rewriting shards", len(done), len(every))
            done += await _all(
                rewrite.obey(self._bucket, one.shard, self._tombstones, modified=one.modified) for one in some
            )
        return [key for one in done for key in one.deleted]


def in_turns(every: Sequence[_T], weight: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Cut a sequence into what is dealt with at once: few of them, and not too many bytes."""
    some: list[_T] = []
    bytes_ = 0
    for one in every:
        if some and (len(some) == _AT_ONCE or bytes_ + weight(one) > _MOST_AT_ONCE):
            yield some
            some, bytes_ = [], 0
        some.append(one)
        bytes_ += weight(one)
    if some:
        yield some


async def _all(work: Iterable[Awaitable[_T]]) -> list[_T]:
    """Wait for all of them, and raise what the first to fail has raised."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]
