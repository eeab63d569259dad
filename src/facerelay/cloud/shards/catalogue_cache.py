"""Catalogues as they were read: each once, within bounds of memory; they never change."""

from __future__ import annotations

import asyncio
import importlib
import logging
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias, TypeVar

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError, Entry, Lies, MissingError
from facerelay.cloud.shards.lru import LruCache
from facerelay.cloud.shards.names import MOST_CATALOGUE_BYTES, parse
from facerelay.cloud.single_flight import SingleFlight
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_T = TypeVar("_T")

Place: TypeAlias = tuple[str, str]
"""A site, and a camera of it."""

_AT_ONCE: Final = 16
_RAW_BYTES: Final = 16_000_000
_OUTLINE_BYTES: Final = 16_000_000
_PAGE_BYTES: Final = 40_000_000
_PLACE_BYTES: Final = 200
_LINE_BYTES: Final = 320
_HOURS: Final = 24
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LINE: Final = struct.Struct("<QQq32s")


class Located(NamedTuple):
    """A face of a shard: where its bytes lie, their hash, and when it arrived."""

    lies: Lies
    sha256: str
    arrived: datetime

    def entry(self, key: str) -> Entry:
        """Return it as a listing has it."""
        return Entry(key, self.lies.length, self.arrived, self.lies)


@dataclass(frozen=True, slots=True)
class Page:
    """The faces of a shard, by their hours' partitions and by their names therein."""

    tar: str
    hours: Mapping[str, Mapping[str, bytes]]

    def located(self, hour: str, name: str) -> Located | None:
        """Return a face, if it is there."""
        packed = self.hours.get(hour, {}).get(name)
        if packed is None:
            return None
        offset, length, arrived, sha256 = _LINE.unpack(packed)
        return Located(Lies(self.tar, offset, length), sha256.hex(), _EPOCH + timedelta(microseconds=arrived))


class CatalogueCache:
    """Reads catalogues: which cameras and hours they have, and their faces.

    One that cannot be read as a catalogue has none: it is said in the log now and then, and hides no other.

    Args:
        bucket: where.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._outlining = SingleFlight[Mapping[Place, int] | None]()
        self._paging = SingleFlight[Page | None]()
        self._raw: LruCache[bytes] = LruCache(_RAW_BYTES)
        self._outlines: LruCache[Mapping[Place, int]] = LruCache(_OUTLINE_BYTES)
        self._pages: LruCache[Page] = LruCache(_PAGE_BYTES)
        self._seldom = Seldom(log, every_s=60)

    async def outline(self, catalogue: str, size: int) -> Mapping[Place, int] | None:
        """Return the cameras of a shard with their hours as bits; None where it is gone meanwhile.

        Raises:
            BucketError: the bucket cannot be read, or pyarrow is not installed.
        """
        if (kept := self._outlines.get(catalogue)) is not None:
            return kept
        return await self._outlining.do(catalogue, lambda: self._outline(catalogue, size))

    async def page(self, catalogue: str, size: int) -> Page | None:
        """Return the faces of a shard; None where it is gone meanwhile.

        Raises:
            BucketError: as `outline`.
        """
        if (kept := self._pages.get(catalogue)) is not None:
            return kept
        return await self._paging.do(catalogue, lambda: self._page(catalogue, size))

    def kept_page(self, catalogue: str) -> Page | None:
        """Return the faces of a shard if they are kept."""
        return self._pages.get(catalogue)

    async def _outline(self, catalogue: str, size: int) -> Mapping[Place, int] | None:
        nothing: Mapping[Place, int] = {}
        found = await self._understood(catalogue, size, outline_of, nothing)
        if found is not None:
            self._outlines.put(catalogue, found, _PLACE_BYTES * (1 + len(found)))
        return found

    async def _page(self, catalogue: str, size: int) -> Page | None:
        found = await self._understood(catalogue, size, page_of, Page("", {}))
        if found is not None:
            self._raw.drop(catalogue)
            count = sum(map(len, found.hours.values()))
            self._pages.put(catalogue, found, _LINE_BYTES * (1 + count))
        return found

    async def _understood(
        self, catalogue: str, size: int, work: Callable[[str, bytes], _T], nothing: _T
    ) -> _T | None:
        if size > MOST_CATALOGUE_BYTES:
            self._say(catalogue, f"{size} bytes, more than can be")
            return nothing
        try:
            async with self._gate:
                data = self._raw.get(catalogue) or await self._bucket.get(
                    catalogue, max_bytes=MOST_CATALOGUE_BYTES
                )
        except MissingError:
            return None
        except BucketError as error:
            if error.fault != "too-large":
                raise
            self._say(catalogue, "more bytes than were listed")
            return nothing
        self._raw.put(catalogue, data, len(data))
        try:
            return await asyncio.to_thread(work, catalogue, data)
        except ImportError:
            raise lacking() from None
        except ValueError as error:  # a CatalogueError
            self._say(catalogue, str(error))
            return nothing

    def _say(self, catalogue: str, why: str) -> None:
        self._seldom.say(logging.WARNING, "broken", "%s is passed over, with its faces: %s", catalogue, why)


def load() -> None:
    """Load pyarrow, where it is installed, before anybody waits for it: it takes a third of a second."""
    with suppress(ImportError):
        importlib.import_module("facerelay.cloud.shards.catalogue")


def lacking() -> BucketError:
    """Return the error of a bucket with shards where nothing can read their catalogues."""
    hint = "this bucket has faces in shards: install facerelay with its extra `shards`, which has pyarrow"
    return BucketError("", hint, "setting")


def outline_of(catalogue: str, data: bytes) -> Mapping[Place, int]:
    """Return the cameras of a catalogue with their hours as bits.

    Raises:
        CatalogueError: it is none.
    """
    from facerelay.cloud.shards import catalogue as reading  # noqa: PLC0415 - pyarrow may not be there

    shard = parse(catalogue)
    return reading.places(data, date=shard.date if shard else "")


def page_of(catalogue: str, data: bytes) -> Page:
    """Return the faces of a catalogue.

    Raises:
        CatalogueError: it is none, or has faces of another day.
    """
    from facerelay.cloud.shards import catalogue as reading  # noqa: PLC0415 - as above

    shard = parse(catalogue)
    if shard is None:
        raise reading.CatalogueError("it is named as none is")
    hours: dict[str, dict[str, bytes]] = {}
    for line in reading.lines(data, tar=shard.tar, date=shard.date):
        hour = prefix_of((line.site, line.camera), shard.date, line.hour)
        packed = _LINE.pack(line.offset, line.length, line.arrived, bytes.fromhex(line.sha256))
        hours.setdefault(hour, {})[line.name] = packed
    return Page(shard.tar, hours)


def prefix_of(place: Place, date: str, hour: int) -> str:
    """Return the partition of a camera's hour."""
    return f"{keys.ROOT}/site={place[0]}/camera={place[1]}/date={date}/hour={hour:02}"


def bits(hours: int) -> list[int]:
    """Return the hours that are set."""
    return [hour for hour in range(_HOURS) if hours >> hour & 1]
