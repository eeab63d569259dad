"""Retention: faces, foreign pictures, books, history go so long after they arrived, whatever clocks said."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud import foreign, history, keys, read_books
from facerelay.cloud.contract import Bucket, Entry
from facerelay.cloud.shards import names
from facerelay.cloud.shards.sweep import Listed, dates, of_date, read

log = logging.getLogger(__name__)

_ANYWHERE: Final = (foreign.ROOT, read_books.ROOT, history.ROOT)
BY_AGE: Final = (keys.ROOT, *_ANYWHERE, names.ROOT, names.CATALOGUE)
"""What goes by age. Tombstones and proofs are not here: they outlive all that could send a face again."""


def _now() -> datetime:
    return datetime.now(UTC)


async def expire(bucket: Bucket, *, keep: timedelta, now: Callable[[], datetime] = _now) -> int:
    """Delete what arrived longer ago than `keep`; return how many objects went.

    Stores may do so at once: what one has deleted, the other finds gone.

    Args:
        bucket: where.
        keep: how long.
        now: the time, with its zone.

    Raises:
        BucketError: the bucket failed; asking again is safe.
    """
    before = now() - keep
    day, tomorrow = keys.day(before), keys.day(now() + timedelta(days=1))

    def may_be_old(date: str) -> bool:
        return date <= day or date > tomorrow  # the latter are of clocks that ran ahead

    gone = 0
    async for entry in _candidates(bucket, may_be_old):
        if entry.modified < before:
            await bucket.delete(entry.key)
            gone += 1
    for date in await dates(bucket, may_be_old):
        for listed in await of_date(bucket, date):
            if await _is_old(bucket, listed, before):
                for entry in listed.entries:  # the catalogue first: no reader is led to what is not there
                    await bucket.delete(entry.key)
                    gone += 1
    return gone


async def _candidates(bucket: Bucket, may_be_old: Callable[[str], bool]) -> AsyncIterator[Entry]:
    """Yield the objects that may be old enough, but for shards."""
    async for date in keys.dates(bucket, wanted=may_be_old):
        async for entry in bucket.list(date):
            yield entry
    for prefix in _ANYWHERE:
        async for entry in bucket.list(prefix):
            yield entry


async def _is_old(bucket: Bucket, listed: Listed, before: datetime) -> bool:
    """Whether a shard's faces arrived longer ago.

    The bucket's clock says so, but for a shard that was written anew to erase a face: it was closed before.
    That its name is of such a one is looked at, for a store's clock may have been wrong when it made a name.
    """
    if listed.modified < before:
        return True
    if listed.shard.closed >= before:
        return False
    try:
        from facerelay.cloud.shards.rewrite import arrival  # noqa: PLC0415 - it loads pyarrow
    except ModuleNotFoundError as error:
        log.warning("%s stays for now: %s is not installed", listed.shard.tar, error.name)
        return False
    return arrival(listed.shard, await read(bucket, listed), listed.modified) < before
