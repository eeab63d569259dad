"""Which faces lie in shards: by day, camera and hour, from the catalogues alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.shards.names import CATALOGUE, Shard, parse
from facerelay.cloud.shards.shelf import Line, Page, Place, Shelf, prefix_of
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_NONE_S: Final = 60.0
"""That a bucket has no shards at all is believed for so long."""

_DATES_S: Final = 5.0
_OPEN_S: Final = 1.0
_CLOSED_S: Final = 15.0
_TRIES: Final = 3
_LOT: Final = 16
_NEWEST: Final = 2
_MOMENT_S: Final = 0.15
_DAYS_AT_ONCE: Final = 8
_MOST_OF_A_DAY: Final = 50_000
_MOST_LANDED: Final = 5_000
_HOURS: Final = 24


@dataclass(slots=True)
class _Day:
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


class Index:
    """Knows the shards of a bucket, as old as a listing of them may be.

    Args:
        bucket: where.
        dates: which days are wanted, as YYYY-MM-DD.
        behind: whether days but the newest are read behind whoever asks which cameras there are.
    """

    def __init__(
        self, bucket: Bucket, *, dates: Callable[[str], bool] = lambda _: True, behind: bool = False
    ) -> None:
        self._bucket = bucket
        self._wanted = dates
        self._behind = behind
        self._shelf = Shelf(bucket)
        self._dates = _Dates()
        self._days: dict[str, _Day] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._rest: asyncio.Task[None] | None = None
        self._began = 0.0
        self._landed: set[str] = set()
        self._seldom = Seldom(log, every_s=60)

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

    async def places(self) -> set[Place]:
        """Return the cameras that have faces in shards.

        Raises:
            BucketError: as `dates`.
        """
        await self._read_all()
        return {place for day in self._days.values() for place in day.places or ()}

    async def dates_of(self, place: Place) -> list[str]:
        """Return the days on which a camera has faces in shards, and those of which it is not known yet."""
        await self._read_all()
        unknown = {place: 0}
        return [
            date
            for date in self._dates.known
            if place in ((day.places if (day := self._days.get(date)) else None) or unknown)
        ]

    async def day(self, date: str) -> Mapping[Place, int]:
        """Return the cameras of a day, each with its hours as bits."""
        if date not in await self.dates():
            return {}
        return (await self._day(date)).places or {}

    async def faces(self, place: Place, date: str, hour: int) -> dict[str, Line]:
        """Return a camera's faces of an hour by their names, in order; one that lies twice is there once."""
        if not (await self.day(date)).get(place, 0) >> hour & 1:
            return {}
        prefix = prefix_of(place, date, hour)
        found: dict[str, Line] = {}
        day = self._days.get(date)
        sizes = list(day.sizes.items()) if day else []
        for at in range(0, len(sizes), _LOT):
            for page in await asyncio.gather(
                *(self._page(each, size, place, hour) for each, size in sizes[at : at + _LOT])
            ):
                for name in page.hours.get(prefix, ()) if page else ():
                    if name not in found and page and (line := page.line(prefix, name)):
                        found[name] = line
        return dict(sorted(found.items()))

    def known(self, key: str) -> bool:
        """Whether a face lies in a shard, by what is in memory."""
        facts = keys.parse(key)
        day = self._days.get(keys.day(facts.time)) if facts else None
        hour, _, name = key.rpartition("/")
        pages = (self._shelf.kept_page(each) for each in day.sizes) if day else ()
        return any(page is not None and page.line(hour, name) for page in pages)

    async def find(self, key: str, *, anew: bool = False) -> AsyncIterator[Line]:
        """Yield the places where a face lies, those in shards closed soon after it was taken first.

        Args:
            key: of the face.
            anew: look at the catalogues again.

        Raises:
            BucketError: as `dates`.
        """
        facts = keys.parse(key)
        date = keys.day(facts.time) if facts else ""
        if facts is None or date not in await self.dates():
            return
        hour, _, name = key.rpartition("/")
        day = await self._listed(date, age_s=0 if anew else _age(date))
        ordered = sorted(day.sizes.items(), key=lambda one: _after(one[0], facts.time))
        place, bit = (facts.site, facts.camera), facts.time.hour
        for at in range(0, len(ordered), _LOT):
            lot = ordered[at : at + _LOT]
            for page in await asyncio.gather(*(self._page(each, size, place, bit) for each, size in lot)):
                if page is not None and (line := page.line(hour, name)):
                    yield line

    async def named(self, face_id: str, dates: Sequence[str]) -> AsyncIterator[str]:
        """Yield the keys under which a face of that id lies in the shards of some days.

        Raises:
            BucketError: as `dates`.
        """
        for date in dates:
            for place, hours in (await self.day(date)).items():
                for hour in bits(hours):
                    for name in await self.faces(place, date, hour):
                        if f"-{face_id}-" in name:
                            yield f"{prefix_of(place, date, hour)}/{name}"

    async def landed(self) -> set[str]:
        """Return the hours' partitions that new shards have faces of, since this was asked the last time.

        The newest days are looked at.

        Raises:
            BucketError: as `dates`.
        """
        for date in [one for one in await self.dates() if one <= keys.tomorrow()][-_NEWEST:]:
            await self._day(date)
        found, self._landed = self._landed, set()
        return found

    async def warm(self) -> None:
        """Read what whoever asks will want first; a bucket that fails is left to him."""
        try:
            await self._read_all()
        except BucketError as error:
            self._seldom.say(logging.WARNING, "behind", "shards cannot be looked at: %s", error)

    async def close(self) -> None:
        """End what goes on behind."""
        if self._rest is not None:
            self._rest.cancel()
            await asyncio.wait([self._rest])

    # a day

    async def _day(self, date: str) -> _Day:
        """Return a day, looked at anew where it is due, with all that its catalogues have."""
        async with self._locks.setdefault(date, asyncio.Lock()):
            for _ in range(_TRIES):
                day = await self._look(date, _age(date))
                if day.places is not None:
                    return day
                found = await asyncio.gather(*map(self._shelf.outline, day.sizes, day.sizes.values()))
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

    async def _listed(self, date: str, *, age_s: float) -> _Day:
        async with self._locks.setdefault(date, asyncio.Lock()):
            return await self._look(date, age_s)

    async def _look(self, date: str, age_s: float) -> _Day:
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
            day = self._days[date] = _Day(begin, sizes)
            return day
        if day.places is not None:
            new = {key: size for key, size in sizes.items() if key not in day.sizes}
            outlines = await asyncio.gather(*map(self._shelf.outline, new, new.values()))
            for outline in outlines:
                self._land(date, outline or {})
                for place, hours in (outline or {}).items():
                    day.places[place] = day.places.get(place, 0) | hours
            if None in outlines or day.sizes.keys() - sizes.keys():
                day.places = None
        day.looked_at, day.sizes = begin, sizes
        return day

    async def _page(self, catalogue: str, size: int, place: Place, hour: int) -> Page | None:
        """Return a shard's faces if it has any of this camera and hour."""
        outline = await self._shelf.outline(catalogue, size)
        if not (outline or {}).get(place, 0) >> hour & 1:
            return None
        return await self._shelf.page(catalogue, size)

    def _land(self, date: str, places: Mapping[Place, int]) -> None:
        for place, hours in places.items():
            if len(self._landed) < _MOST_LANDED:
                self._landed |= {prefix_of(place, date, hour) for hour in bits(hours)}

    # all days

    async def _read_all(self) -> None:
        """Read the days that were not read yet, or the newest, and the rest behind if it takes long."""
        dates = await self.dates()
        if not self._behind:
            await self._read(dates)
            return
        now = [one for one in dates if one <= keys.tomorrow()][-_NEWEST:]
        await asyncio.gather(*map(self._day, now))
        due = [one for one in reversed(dates) if (day := self._days.get(one)) is None or day.places is None]
        if due and self._rest is None:
            self._rest = asyncio.get_running_loop().create_task(self._read_behind(due), context=Context())
            self._began = time.monotonic()
        left = self._began + _MOMENT_S - time.monotonic()
        if self._rest is not None and left > 0:
            await asyncio.wait([self._rest], timeout=left)

    async def _read(self, dates: Sequence[str]) -> None:
        for at in range(0, len(dates), _DAYS_AT_ONCE):
            await asyncio.gather(*map(self._day, dates[at : at + _DAYS_AT_ONCE]))

    async def _read_behind(self, dates: Sequence[str]) -> None:
        try:
            await self._read(dates)
        except BucketError as error:
            self._seldom.say(logging.WARNING, "behind", "older shards cannot be looked at: %s", error)
        finally:
            self._rest = None


def bits(hours: int) -> list[int]:
    """Return the hours that are set."""
    return [hour for hour in range(_HOURS) if hours >> hour & 1]


def _age(date: str) -> float:
    return _OPEN_S if date >= keys.day(datetime.now(UTC) - timedelta(days=1)) else _CLOSED_S


def _after(catalogue: str, taken: datetime) -> tuple[bool, timedelta]:
    """Sort shards by how likely they have a face: those closed soon after it first."""
    shard = parse(catalogue)
    closed = shard.closed if isinstance(shard, Shard) else taken
    return closed < taken - timedelta(seconds=1), abs(closed - taken)


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
