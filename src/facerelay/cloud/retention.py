"""Retention: faces, foreign pictures, books, history go so long after they arrived, whatever clocks said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud import books, foreign, history, keys
from facerelay.cloud.contract import Bucket, Entry

BY_AGE: Final = (keys.ROOT, foreign.ROOT, books.ROOT, history.ROOT)
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
    gone = 0
    async for entry in _candidates(bucket, before, now()):
        if entry.modified < before:
            await bucket.delete(entry.key)
            gone += 1
    return gone


async def _candidates(bucket: Bucket, before: datetime, now: datetime) -> AsyncIterator[Entry]:
    """Yield what may be old enough: dates up to that day, and those of clocks that ran ahead."""
    day, tomorrow = keys.day(before), keys.day(now + timedelta(days=1))
    async for date in keys.dates(bucket, wanted=lambda d: d <= day or d > tomorrow):
        async for entry in bucket.list(date):
            yield entry
    for prefix in BY_AGE[1:]:
        async for entry in bucket.list(prefix):
            yield entry
