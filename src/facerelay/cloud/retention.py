"""Retention: faces, foreign pictures, books, history go so long after they arrived, whatever clocks said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud import books, history, keys
from facerelay.cloud.contract import Bucket, Entry

FOREIGN: Final = "foreign"


async def expire(bucket: Bucket, *, keep: timedelta) -> int:
    """Delete what arrived longer ago than `keep`; return how many objects went.

    Raises:
        BucketError: the bucket failed; asking again is safe.
    """
    before = datetime.now(UTC) - keep
    gone = 0
    async for entry in _candidates(bucket, before):
        if entry.modified < before:
            await bucket.delete(entry.key)
            gone += 1
    return gone


async def _candidates(bucket: Bucket, before: datetime) -> AsyncIterator[Entry]:
    """Yield what may be old enough: dates up to that day, and those of clocks that ran ahead."""
    day = keys.day(before)
    tomorrow = keys.tomorrow()
    async for date in keys.dates(bucket, wanted=lambda d: d <= day or d > tomorrow):
        async for entry in bucket.list(date):
            yield entry
    for prefix in (FOREIGN, books.ROOT, history.ROOT):
        async for entry in bucket.list(prefix):
            yield entry
