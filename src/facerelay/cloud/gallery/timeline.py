"""Which days have faces, and how many faces their hours have."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, OrderedDict
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket
from facerelay.cloud.gallery.counted import PAGE
from facerelay.cloud.gallery.listings import Listings
from facerelay.cloud.gallery.tallies import Tallies
from facerelay.cloud.gallery.walk import Walk, age

_MOST_PAGES: Final = 20
"""Requests for one camera's day, at most: of one with more than 20,000 faces the hours are not counted."""

_MOST_CAMERAS: Final = 400
"""With more cameras than that, days are not counted by the hour."""

_AT_ONCE: Final = 24
_REMEMBERED: Final = 5_000
_HOUR: Final = re.compile(r"/hour=([01][0-9]|2[0-3])/\1")


@dataclass(frozen=True, slots=True)
class _Day:
    """Faces of one camera's day by the hour; None: too many to count."""

    counted_at: float
    hours: Counter[int] | None


class Timeline:
    """Days by one listing a camera; the hours of a day by one for each thousand faces of a camera."""

    def __init__(self, bucket: Bucket, listings: Listings) -> None:
        self._bucket = bucket
        self._listings = listings
        self._tallies = Tallies(bucket)
        self._days: OrderedDict[str, _Day] = OrderedDict()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def days(self, *, site: str | None, camera: str | None) -> dict[str, Any]:
        """Return the days that have faces, the oldest first, and how many were stored where that is known.

        Raises:
            BucketError: the bucket cannot be read.
        """
        cameras = await Walk(self._listings, site=site, camera=camera).prefixes()
        found = await asyncio.gather(*(self._listings.names(each, age_s=age(each)) for each in cameras))
        latest = keys.tomorrow()
        dates = sorted({day for each in found for day in each if day <= latest and _is_date(day)})
        counts = await self._tallies.of(dates, site=site, camera=camera)
        return {"days": [{"date": day, "faces": n} for day, n in zip(dates, counts, strict=True)]}

    async def hours(self, day: str, *, site: str | None, camera: str | None) -> dict[str, Any]:
        """Return how many faces each hour of a day has in UTC; null where they are too many to count.

        Raises:
            BucketError: the bucket cannot be read.
        """
        cameras = await Walk(self._listings, site=site, camera=camera).prefixes()
        if len(cameras) > _MOST_CAMERAS:
            return {"hours": [None] * 24}
        days = await asyncio.gather(*(self._day(f"{each}/date={day}") for each in cameras))
        sums: Counter[int] = Counter()
        for one in days:
            if one.hours is None:
                return {"hours": [None] * 24}
            sums.update(one.hours)
        return {"hours": [sums[hour] for hour in range(24)]}

    async def close(self) -> None:
        """Stop what goes on behind."""
        await self._tallies.close()

    async def _day(self, prefix: str) -> _Day:
        known = self._days.get(prefix)
        if known is not None and time.monotonic() - known.counted_at <= age(prefix):
            self._days.move_to_end(prefix)
            return known
        async with self._gate:
            day = _Day(time.monotonic(), await self._count(prefix))
        self._days[prefix] = day
        if len(self._days) > _REMEMBERED:
            self._days.popitem(last=False)
        return day

    async def _count(self, prefix: str) -> Counter[int] | None:
        hours: Counter[int] = Counter()
        async with aclosing(self._bucket.list(prefix)) as entries:  # type: ignore[type-var]
            async for entry in entries:
                if found := _HOUR.match(entry.key, len(prefix)):
                    hours[int(found[1])] += 1
                if hours.total() > _MOST_PAGES * PAGE:
                    return None
        return hours


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
