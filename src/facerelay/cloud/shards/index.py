"""Which faces lie in shards: by day, camera and hour, from the catalogues alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import Context
from datetime import datetime, timedelta
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.shards.catalogue_cache import CatalogueCache, Located, Page, Place, bits, prefix_of
from facerelay.cloud.shards.days import Days, newest
from facerelay.cloud.shards.names import Shard, parse
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_LOT: Final = 16
_MOMENT_S: Final = 0.15
_DAYS_AT_ONCE: Final = 8


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
        self._behind = behind
        self._catalogues = CatalogueCache(bucket)
        self._days = Days(bucket, self._catalogues, wanted=dates)
        self._rest: asyncio.Task[None] | None = None
        self._began = 0.0
        self._seldom = Seldom(log, every_s=60)

    async def dates(self) -> Sequence[str]:
        """Return the days that have shards, the oldest first.

        Raises:
            BucketError: the bucket cannot be read.
        """
        return await self._days.dates()

    async def places(self) -> set[Place]:
        """Return the cameras that have faces in shards.

        Raises:
            BucketError: as `dates`.
        """
        await self._read_all()
        return self._days.places()

    async def dates_of(self, place: Place) -> list[str]:
        """Return the days on which a camera has faces in shards, and those of which it is not known yet."""
        await self._read_all()
        return self._days.dates_of(place)

    async def day(self, date: str) -> Mapping[Place, int]:
        """Return the cameras of a day, each with its hours as bits."""
        if date not in await self.dates():
            return {}
        return (await self._days.read(date)).places or {}

    async def faces(self, place: Place, date: str, hour: int) -> dict[str, Located]:
        """Return a camera's faces of an hour by their names, in order; one that lies twice is there once."""
        if not (await self.day(date)).get(place, 0) >> hour & 1:
            return {}
        prefix = prefix_of(place, date, hour)
        found: dict[str, Located] = {}
        day = self._days.get(date)
        sizes = list(day.sizes.items()) if day else []
        for at in range(0, len(sizes), _LOT):
            for page in await asyncio.gather(
                *(self._page(each, size, place, hour) for each, size in sizes[at : at + _LOT])
            ):
                for name in page.hours.get(prefix, ()) if page else ():
                    if name not in found and page and (located := page.located(prefix, name)):
                        found[name] = located
        return dict(sorted(found.items()))

    def known(self, key: str) -> bool:
        """Whether a face lies in a shard, by what is in memory."""
        facts = keys.parse(key)
        day = self._days.get(keys.day(facts.time)) if facts else None
        hour, _, name = key.rpartition("/")
        pages = (self._catalogues.kept_page(each) for each in day.sizes) if day else ()
        return any(page is not None and page.located(hour, name) for page in pages)

    async def find(self, key: str, *, anew: bool = False) -> AsyncIterator[Located]:
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
        day = await self._days.listed(date, anew=anew)
        ordered = sorted(day.sizes.items(), key=lambda one: _after(one[0], facts.time))
        place, bit = (facts.site, facts.camera), facts.time.hour
        for at in range(0, len(ordered), _LOT):
            lot = ordered[at : at + _LOT]
            for page in await asyncio.gather(*(self._page(each, size, place, bit) for each, size in lot)):
                if page is not None and (located := page.located(hour, name)):
                    yield located

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
        return await self._days.landed()

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

    async def _page(self, catalogue: str, size: int, place: Place, hour: int) -> Page | None:
        """Return a shard's faces if it has any of this camera and hour."""
        outline = await self._catalogues.outline(catalogue, size)
        if not (outline or {}).get(place, 0) >> hour & 1:
            return None
        return await self._catalogues.page(catalogue, size)

    async def _read_all(self) -> None:
        """Read the days that were not read yet, or the newest, and the rest behind if it takes long."""
        dates = await self._days.dates()
        if not self._behind:
            await self._read(dates)
            return
        await asyncio.gather(*map(self._days.read, newest(dates)))
        due = self._days.unread(dates)
        if due and self._rest is None:
            self._rest = asyncio.get_running_loop().create_task(self._read_behind(due), context=Context())
            self._began = time.monotonic()
        left = self._began + _MOMENT_S - time.monotonic()
        if self._rest is not None and left > 0:
            await asyncio.wait([self._rest], timeout=left)

    async def _read(self, dates: Sequence[str]) -> None:
        for at in range(0, len(dates), _DAYS_AT_ONCE):
            await asyncio.gather(*map(self._days.read, dates[at : at + _DAYS_AT_ONCE]))

    async def _read_behind(self, dates: Sequence[str]) -> None:
        try:
            await self._read(dates)
        except BucketError as error:
            self._seldom.say(logging.WARNING, "behind", "older shards cannot be looked at: %s", error)
        finally:
            self._rest = None


def _after(catalogue: str, taken: datetime) -> tuple[bool, timedelta]:
    """Sort shards by how likely they have a face: those closed soon after it first."""
    shard = parse(catalogue)
    closed = shard.closed if isinstance(shard, Shard) else taken
    return closed < taken - timedelta(seconds=1), abs(closed - taken)
