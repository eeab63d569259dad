"""A bucket as readers want it: each face under its own key, whether it is an object or lies in a shard."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from facerelay.cloud import keys
from facerelay.cloud.contract import (
    Bucket,
    BucketError,
    Children,
    Entry,
    MissingError,
    WrappedBucket,
    check_key,
    check_prefix,
    cut_short,
)
from facerelay.cloud.shards.catalogue_cache import Located, Place, bits, prefix_of
from facerelay.cloud.shards.index import Index
from facerelay.cloud.shards.levels import Levels

_LEVELS: Final = tuple(keys.LEVELS)


class _Scope(NamedTuple):
    """The faces below a prefix: those of a site, a camera, a date, an hour; None asks nothing."""

    site: str | None = None
    camera: str | None = None
    date: str | None = None
    hour: str | None = None

    def holds(self, place: Place) -> bool:
        return self.site in {None, place[0]} and self.camera in {None, place[1]}

    def hours(self, known: int) -> list[int]:
        return [hour for hour in bits(known) if self.hour in {None, f"{hour:02}"}]


class ShardView(WrappedBucket):
    """Another bucket, with the faces of its shards among the objects below `faces/`.

    A face that lies several times, in shards or as an object, is there once. What is not a face passes
    through; so do writing and deleting, which never touch a shard. Reading an object
    costs nothing more; where there are no shards, one look a minute is all that this costs.

    Args:
        bucket: with objects, shards and catalogues.
        dates: which days' shards are wanted, as YYYY-MM-DD.
        behind: whether who lists sites and cameras need not wait until all days were read.
    """

    def __init__(
        self, bucket: Bucket, *, dates: Callable[[str], bool] = lambda _: True, behind: bool = False
    ) -> None:
        super().__init__(bucket)
        self._index = Index(bucket, dates=dates, behind=behind)
        self._levels = Levels(bucket)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object, or a face out of its shard: its own bytes, as their hash says, or an error."""
        check_key(key)
        alone = self._is_in_shards_alone(key)
        if not alone:
            try:
                return await self._bucket.get(key, max_bytes=max_bytes)
            except MissingError:
                if not await self._may_lie_in_shard(key):
                    raise
                # So that the next one is not looked for among objects.
                await self._levels.is_absent(key.rpartition("/")[0])
        fault: BucketError = MissingError(key)
        for anew in (False, True):  # a shard may be written anew meanwhile
            async for located in self._index.find(key, anew=anew):
                if located.lies.length > max_bytes:
                    raise BucketError(key, f"{located.lies.length} bytes, over {max_bytes}", "too-large")
                try:
                    return await self._read(key, located)
                except BucketError as error:
                    if error.fault not in {"missing", "refused"}:
                        raise
                    fault = fault if isinstance(error, MissingError) else error
        if alone and isinstance(fault, MissingError):  # it may have come since
            return await self._bucket.get(key, max_bytes=max_bytes)
        raise fault

    async def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Read a part of an object, or of a face in a shard."""
        check_key(key)
        try:
            return await self._bucket.get_range(key, start=start, length=length)
        except MissingError:
            if not await self._may_lie_in_shard(key):
                raise
        for anew in (False, True):
            async for located in self._index.find(key, anew=anew):
                lies = located.lies
                if start < 0 or start + length > lies.length:
                    raise cut_short(key, start, length)
                try:
                    return await self._bucket.get_range(lies.tar, start=lies.offset + start, length=length)
                except MissingError:
                    continue
        raise MissingError(key)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        """Yield objects and faces; where the bucket lists an hour in the order of its keys, so does this."""
        bare = check_prefix(prefix)
        scope = await self._scope(bare)
        if scope is None:
            async for entry in self._bucket.list(bare, after=after):
                yield entry
            return
        done: set[str] = set()
        if not await self._levels.is_absent(bare):
            objects = self._bucket.list(bare, after=after)
            async for entry in _merged(objects, lambda hour: self._faces(hour, after), done):
                yield entry
        async for hour in self._hours(scope):
            if hour not in done:
                for entry in await self._faces(hour, after):
                    yield entry

    async def children(self, prefix: str = "") -> Children:
        """Return one level, of objects and of faces."""
        bare = check_prefix(prefix)
        scope = await self._scope(bare)
        if scope is None:
            return await self._bucket.children(bare)
        level = Children([], []) if await self._levels.is_absent(bare) else await self._levels.children(bare)
        folders = {*level.folders, *await self._folders(bare, scope)}
        entries = {entry.key: entry for entry in await self._faces(bare, None)}
        entries |= {entry.key: entry for entry in level.entries}
        return Children(sorted(folders), sorted(entries.values()))

    async def landed(self) -> set[str]:
        """Return the hours' partitions that new shards have faces of, since this was asked the last time.

        Raises:
            BucketError: the bucket cannot be read.
        """
        return await self._index.landed()

    async def find(self, face_id: str, dates: Sequence[str]) -> str | None:
        """Return the key of a face in a shard of some days, by its id.

        Raises:
            BucketError: the bucket cannot be read.
        """
        async for key in self._index.named(face_id, dates):
            return key
        return None

    async def lies_in_shard(self, key: str) -> bool:
        """Whether a face lies in a shard.

        Raises:
            BucketError: the bucket cannot be read.
        """
        async for _ in self._index.find(key):
            return True
        return False

    async def warm(self) -> None:
        """Read catalogues before anybody asks."""
        await self._index.warm()

    async def close(self) -> None:
        """End what goes on behind, and give back what is held open."""
        await self._index.close()
        await super().close()

    async def _read(self, key: str, located: Located) -> bytes:
        lies = located.lies
        data = await self._bucket.get_range(lies.tar, start=lies.offset, length=lies.length)
        digest = await asyncio.to_thread(hashlib.sha256, data)
        if digest.hexdigest() != located.sha256:
            hint = (
                f"{lies.tar} has other bytes there than its catalogue says, and somebody has changed one of"
            )
            raise BucketError(
                key, f"{hint} them: `facerelay ledger --audit` tells what else is wrong", "refused"
            )
        return data

    def _is_in_shards_alone(self, key: str) -> bool:
        """Whether a face is no object, as far as is known without a request."""
        return self._index.known(key) or self._levels.seems_absent(key.rpartition("/")[0])

    async def _may_lie_in_shard(self, key: str) -> bool:
        facts = keys.parse(key)
        return facts is not None and keys.day(facts.time) in await self._index.dates()

    async def _scope(self, bare: str) -> _Scope | None:
        """Return which faces lie below a prefix; None where none in a shard can."""
        root, *parts = bare.split("/")
        if root not in {"", keys.ROOT} or len(parts) > len(_LEVELS) or not await self._index.dates():
            return None
        values = []
        for level, part in zip(_LEVELS, parts, strict=False):
            name, _, value = part.partition("=")
            if name != level or not keys.LEVELS[level].fullmatch(value):
                return None
            values.append(value)
        return _Scope(*values)

    async def _hours(self, scope: _Scope) -> AsyncIterator[str]:
        """Yield the hours' partitions of a scope that shards have faces of, day by day."""
        for date in [scope.date] if scope.date else await self._index.dates():
            places = await self._index.day(date)
            for place in sorted(filter(scope.holds, places)):
                for hour in scope.hours(places[place]):
                    yield prefix_of(place, date, hour)

    async def _faces(self, hour: str, after: str | None) -> Sequence[Entry]:
        """Return the faces that shards have of an hour's partition, in order; of another prefix none."""
        scope = await self._scope(hour)
        if scope is None or scope.site is None or scope.camera is None or not (scope.date and scope.hour):
            return []
        found = await self._index.faces((scope.site, scope.camera), scope.date, int(scope.hour))
        listed = (located.entry(f"{hour}/{name}") for name, located in found.items())
        return [entry for entry in listed if after is None or entry.key > after]

    async def _folders(self, bare: str, scope: _Scope) -> set[str]:
        if not bare:
            return {keys.ROOT}
        if scope.site is None:
            return {f"site={site}" for site, _ in await self._index.places()}
        if scope.camera is None:
            return {f"camera={camera}" for site, camera in await self._index.places() if site == scope.site}
        place = (scope.site, scope.camera)
        if scope.date is None:
            return {f"date={date}" for date in await self._index.dates_of(place)}
        if scope.hour is None:
            return {f"hour={hour:02}" for hour in bits((await self._index.day(scope.date)).get(place, 0))}
        return set()


async def _merged(
    objects: AsyncIterator[Entry], faces: Callable[[str], Awaitable[Sequence[Entry]]], done: set[str]
) -> AsyncIterator[Entry]:
    """Yield objects, and among those of an hour's partition the faces that shards have of it, each once.

    Args:
        objects: those of a partition one after another.
        faces: returns what shards have of a partition, in order.
        done: takes the partitions of which shards have faces, and which are told here.
    """
    here = ""
    waiting: deque[Entry] = deque()
    async for entry in objects:
        hour = entry.key.rpartition("/")[0]
        if hour != here:
            while waiting:
                yield waiting.popleft()
            here = hour
            waiting.extend([] if hour in done else await faces(hour))
            if waiting:
                done.add(hour)
        while waiting and waiting[0].key <= entry.key:
            one = waiting.popleft()
            if one.key != entry.key:
                yield one
        yield entry
    while waiting:
        yield waiting.popleft()
