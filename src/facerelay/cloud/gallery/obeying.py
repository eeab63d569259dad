"""What was erased is shown no more, wherever it was: by the bucket's tombstones, and by its listings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import groupby
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.gallery.cache import Cache
from facerelay.cloud.gallery.listings import Listings
from facerelay.cloud.tombstones import AGE_S, Tombstones

log = logging.getLogger(__name__)

TOMBSTONES_S: Final = 600.0
"""While nobody looks at the pages, new tombstones are read so often."""

VERIFY_S: Final = 86_400.0
"""So often all that is kept is compared with the bucket: faces go by age, too, and by other tools."""

_FIRST_S: Final = 60.0
_SOME: Final = 1000


class Obedience:
    """Knows what was erased, and has it vanish from what is kept here.

    Args:
        bucket: where the tombstones lie.
        cache: what is kept on disk.
        listings: what is kept in memory.
        age_s: what is known of tombstones is no older when something is shown.
    """

    def __init__(self, bucket: Bucket, cache: Cache, listings: Listings, *, age_s: float = AGE_S) -> None:
        self._bucket = bucket
        self._cache = cache
        self._listings = listings
        self._tombstones = Tombstones(bucket, age_s=age_s)
        self._known = 0
        self._purge = asyncio.Event()
        self.tell_gone: Callable[[str], None] = lambda _: None
        """Is told of each face that vanished."""
        self.tell_alive: Callable[[Sequence[str]], None] = lambda _: None
        """Is told of faces that lie in the bucket, and should not."""

    async def look(self, *, age_s: float | None = None) -> None:
        """Read new tombstones, if the last look is old enough.

        Raises:
            BucketError: they cannot be read, so nobody can know what may be shown.
        """
        await self._tombstones.refresh(age_s=age_s)
        if self._tombstones.known != self._known:
            self._known = self._tombstones.known
            gone = [key for key in self._listings.faces() if self.is_erased(key)]
            self._listings.drop(gone)
            for key in gone:
                self.tell_gone(key)
            self._purge.set()

    def is_erased(self, key: str) -> bool:
        """Whether a face was erased, by the tombstones of the last look."""
        facts = keys.parse(key)
        return facts is None or self._tombstones.covered(facts.id, facts.site, facts.camera, facts.time)

    async def may_show(self, key: str) -> bool:
        """Whether a face was not erased.

        Raises:
            BucketError: the tombstones cannot be read.
        """
        await self.look()
        return not self.is_erased(key)

    async def left(self, found: Sequence[str]) -> list[str]:
        """Return those of the faces found in the bucket that may be shown.

        Raises:
            BucketError: the tombstones cannot be read.
        """
        await self.look()
        covered = {key for key in found if self.is_erased(key)}
        if covered:
            self.tell_alive(sorted(covered))
        return [key for key in found if key not in covered]

    async def forget(self, gone: Sequence[str]) -> None:
        """Have faces vanish that were deleted just now."""
        self._listings.drop(gone)
        await self._cache.drop(gone)
        for key in gone:
            self.tell_gone(key)

    async def run(self) -> None:
        """Keep at it until cancelled, whoever looks."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._clean())
            tasks.create_task(self._verify())

    async def _follow(self) -> None:
        while True:
            try:
                await self.look(age_s=TOMBSTONES_S / 2)
            except BucketError as error:
                log.warning("the tombstones cannot be read: %s", error)
            await asyncio.sleep(TOMBSTONES_S)

    async def _clean(self) -> None:
        """Go through what is kept on disk whenever there are new tombstones."""
        while True:
            await self._purge.wait()
            self._purge.clear()
            async for some in self._kept():
                await self._cache.drop([key for key in some if self.is_erased(key)])

    async def _verify(self) -> None:
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self.verify()
            except BucketError as error:
                log.warning("what is kept cannot be compared with the bucket: %s", error)
            await asyncio.sleep(VERIFY_S)

    async def verify(self) -> int:
        """Delete what is kept of faces that are not in the bucket any more; return how many there were.

        Raises:
            BucketError: the bucket cannot be read.
        """
        count = 0
        async for some in self._kept():
            for date, group in groupby(some, lambda key: key.rpartition("/hour=")[0]):
                there = {entry.key async for entry in self._bucket.list(date)}
                gone = [key for key in group if key not in there]
                await self._cache.drop(gone)
                count += len(gone)
        return count

    async def _kept(self) -> AsyncIterator[list[str]]:
        last = ""
        while some := await self._cache.keys(after=last, most=_SOME):
            last = some[-1]
            yield some
            await asyncio.sleep(0)
