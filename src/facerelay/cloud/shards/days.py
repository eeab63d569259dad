"""The days of which a bucket has shards: which catalogues each has, and which cameras are in them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket
from facerelay.cloud.shards.catalogue_cache import CatalogueCache, Place, bits, prefix_of
from facerelay.cloud.shards.names import CATALOGUE, parse

_NONE_S: Final = 60.0
"""That a bucket has no shards at all is believed for so long."""

_DATES_S: Final = 5.0
_OPEN_S: Final = 1.0
_CLOSED_S: Final = 15.0
_TRIES: Final = 3
_NEWEST: Final = 2
_MOST_OF_A_DAY: Final = 50_000
_MOST_LANDED: Final = 5_000


@dataclass(slots=True)
class Day:
    """A day's catalogues with their sizes, the newest first, and what all of them have, once that is read."""

    looked_at: float
    sizes: dict[str, int]
    places: dict[Place, int] | None = None


@dataclass(slots=True)
class _Dates:
    looked_at: float = -float("inf")
    known: tuple[str, ...] = ()
    asked: bool = False
    fresh: set[str] = field(default_factory=set)


class Days:
    """Knows the days of a bucket's shards, as old as a listing of them may be.

    Args:
        bucket: where.
        catalogues: reads them.
        wanted: which days are, as YYYY-MM-DD.
    """

    def __init__(self, bucket: Bucket, catalogues: CatalogueCache, *, wanted: Callable[[str], bool]) -> None:
        self._bucket = bucket
        self._catalogues = catalogues
        self._wanted = wanted
        self._dates = _Dates()
        self._days: dict[str, Day] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._landed: set[str] = set()

    async def dates(self) -> Sequence[str]:
        """Return the days that have shards, the oldest first.

        Raises:
            BucketError: the bucket cannot be read.
        """
        async with self._locks.setdefault("", asyncio.Lock()):
            here = self._dates
            if time.monotonic() - here.looked_at <= (_DATES_S if here.known else _NONE_S):
                return here.known
            begin = time.monotonic()
            level = await self._bucket.children(CATALOGUE)
            found = keys.values(level, "date")
            known = tuple(date for date in found if _is_date(date) and self._wanted(date))
            if here.asked:
                here.fresh |= set(known) - set(here.known)
            here.looked_at, here.known, here.asked = begin, known, True
            for gone in self._days.keys() - set(known):
                del self._days[gone]
            return known

    def get(self, date: str) -> Day | None:
        """Return a day by what is in memory."""
        return self._days.get(date)

    def places(self) -> set[Place]:
        """Return the cameras that have faces in shards, by what is in memory."""
        return {place for day in self._days.values() for place in day.places or ()}

    def dates_of(self, place: Place) -> list[str]:
        """Return the days on which a camera has faces in shards, and those of which it is not known yet."""
        unknown = {place: 0}
        return [
            date
            for date in self._dates.known
            if place in ((day.places if (day := self._days.get(date)) else None) or unknown)
        ]

    def unread(self, dates: Sequence[str]) -> list[str]:
        """Return those days of which it is not known which cameras they have, the newest first."""
        return [one for one in reversed(dates) if (day := self._days.get(one)) is None or day.places is None]

    async def landed(self) -> set[str]:
        """Return the hours' partitions that new shards have faces of, since this was asked the last time.

        The newest days are looked at.

        Raises:
            BucketError: as `dates`.
        """
        for date in newest(await self.dates()):
            await self.read(date)
        found, self._landed = self._landed, set()
        return found

    async def read(self, date: str) -> Day:
        """Return a day, looked at anew where it is due, with all that its catalogues have.

        Raises:
            BucketError: as `dates`, or pyarrow is not installed.
        """
        async with self._locks.setdefault(date, asyncio.Lock()):
            for _ in range(_TRIES):
                day = await self._look(date, _age(date))
                if day.places is not None:
                    return day
                found = await asyncio.gather(*map(self._catalogues.outline, day.sizes, day.sizes.values()))
                if None not in found:
                    break
                day.looked_at = -float("inf")  # a shard was written anew meanwhile
            day.places = {}
            for outline in found:
                for place, hours in (outline or {}).items():
                    day.places[place] = day.places.get(place, 0) | hours
            if date in self._dates.fresh:
                self._dates.fresh.discard(date)
                self._land(date, day.places)
            return day

    async def listed(self, date: str, *, anew: bool) -> Day:
        """Return a day with its catalogues.

        Args:
            date: YYYY-MM-DD.
            anew: look at it again, due or not.

        Raises:
            BucketError: as `dates`.
        """
        async with self._locks.setdefault(date, asyncio.Lock()):
            return await self._look(date, 0 if anew else _age(date))

    async def _look(self, date: str, age_s: float) -> Day:
        """List a day's catalogues if that is due; what new ones have is added, where the rest is known."""
        day = self._days.get(date)
        if day is not None and time.monotonic() - day.looked_at <= age_s:
            return day
        begin = time.monotonic()
        sizes: dict[str, int] = {}
        async for entry in self._bucket.list(f"{CATALOGUE}/date={date}"):
            if len(sizes) < _MOST_OF_A_DAY and (shard := parse(entry.key)) and shard.date == date:
                sizes[entry.key] = entry.size
        sizes = dict(sorted(sizes.items(), reverse=True))
        if day is None:
            day = self._days[date] = Day(begin, sizes)
            return day
        if day.places is not None:
            new = {key: size for key, size in sizes.items() if key not in day.sizes}
            outlines = await asyncio.gather(*map(self._catalogues.outline, new, new.values()))
            for outline in outlines:
                self._land(date, outline or {})
                for place, hours in (outline or {}).items():
                    day.places[place] = day.places.get(place, 0) | hours
            if None in outlines or day.sizes.keys() - sizes.keys():
                day.places = None
        day.looked_at, day.sizes = begin, sizes
        return day

    def _land(self, date: str, places: Mapping[Place, int]) -> None:
        for place, hours in places.items():
            if len(self._landed) < _MOST_LANDED:
                self._landed |= {prefix_of(place, date, hour) for hour in bits(hours)}


def newest(dates: Sequence[str]) -> Sequence[str]:
    """Return those days to which shards are added."""
    return [one for one in dates if one <= keys.tomorrow()][-_NEWEST:]


def _age(date: str) -> float:
    return _OPEN_S if date >= keys.day(datetime.now(UTC) - timedelta(days=1)) else _CLOSED_S


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
