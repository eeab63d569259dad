"""The books of the edges, as they last said them, in the bucket."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.alarms import Report
from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.room import Room
from facerelay.face import SLUG
from facerelay.seldom import Seldom
from facerelay.topics import MOST_PARTS, Ledger, WireError, shown

log = logging.getLogger(__name__)

ROOT: Final = "ledger"
_MOST: Final = 10_000
_MOST_BYTES: Final = 16_000_000
_MOST_OF_SITE: Final = 250
_MOST_CAMERAS_OF_SITE: Final = 4_000
"""Books of a site beyond these are not read: who may write one site's must not hide all others'."""

_MOST_READ: Final = 5_000
"""Outboxes of all sites together whose books are read: those heard last."""

_SHARE: Final = 2
"""Of what may wait one site takes no more than a half."""

_AT_ONCE: Final = 16
_PART: Final = r"[1-9][0-9]{0,3}"
_TOPIC: Final = re.compile(rf"ledger/({SLUG})/([0-9a-f]+)(?:/({_PART}))?")
_KEY: Final = re.compile(rf"{ROOT}/site=({SLUG})/([0-9a-f]{{8,64}})(?:\.({_PART}))?\.json")
_EMPTY: Final = frozenset({"missing", "too-large"})
_TELLS_TIME: Final = b'"link":{'
"""Is in a ledger whose edge says something new each time."""

_seldom = Seldom(log)
_Found = dict[tuple[str, str], dict[int, datetime]]
"""By site and outbox: when each of its parts was written."""


class Books:
    """Ledgers that came, of which the last of each outbox and part is written at the next `flush`.

    They are kept as they came: a ledger that is read and written anew can be many times as long. What a
    broker hands out again of an edge that says nothing new is not written again, so that an object's time is
    that of the edge's last word.

    Args:
        bucket: where.
        max_bytes: of ledgers that wait.
        heed: is told of each ledger that is taken, and of its site.
        keep: so long books are kept; what a broker retained of an edge that told it longer ago is not taken.
        count: is told of each ledger that is not kept.
        owns: whether the books of an outbox are still this store's to write.
        every_s: seconds from one writing of an object to the next, at least.
        now: the time in UTC.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        max_bytes: int = _MOST_BYTES,
        heed: Callable[[str, Ledger], None] = lambda *_: None,
        keep: timedelta | None = None,
        count: Callable[[], None] = lambda: None,
        owns: Callable[[str, str], bool] = lambda *_: True,
        every_s: float = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._count = count
        self._room = Room(bucket, ROOT)
        self._of_site: Counter[str] = Counter()
        self._count_of_site: Counter[str] = Counter()
        self._heed = heed
        self._keep = keep
        self._owns = owns
        self._every_s = every_s
        self._now = now
        self._clock = clock
        self._written: dict[str, bytes] = {}
        self._put_at: dict[str, float] = {}
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0
        self._seldom = Seldom(log)

    def take(self, topic: str, payload: bytes, *, retained: bool = False) -> bool:
        """Take a ledger; returns False where it cannot be read, speaks for somebody else, or is too old."""
        try:
            books = Ledger.from_bytes(payload)
        except WireError:
            return self._refuse("not a ledger that can be read", topic, payload)
        named = _TOPIC.fullmatch(topic)
        site, outbox, part = named.groups(default="0") if named else ("", "", "")
        ours = all(name.startswith(f"{site}/") for name in books.cameras)
        if not ours or (outbox, part) != (books.outbox, str(books.part)) or books.part >= books.parts:
            return self._refuse("the ledger is of another site, outbox or part", topic, payload)
        if retained and self._keep and books.link and self._now() - books.link.time > self._keep:
            return False
        key = _key(site, outbox, books.part)
        more = len(payload) - len(self._waiting.get(key, b""))
        if self._bytes + more > self._max_bytes or (len(self._waiting) >= _MOST and key not in self._waiting):
            return self._refuse("too many ledgers at once", topic, payload)
        whose = _site(key)
        fresh = key not in self._waiting
        full = fresh and self._count_of_site[whose] >= _MOST // _SHARE
        if full or self._of_site[whose] + more > self._max_bytes // _SHARE:
            return self._refuse("too many ledgers of one site at once", topic, payload)
        self._count_of_site[whose] += fresh
        self._waiting[key] = payload
        self._bytes += more
        self._of_site[whose] += more
        self._heed(site, books)
        return True

    async def flush(self, *, everything: bool = True) -> None:
        """Write what has changed; what the bucket does not take now is tried at the next flush.

        Args:
            everything: or only what was written so long ago that it is due.
        """
        due = self._clock() - self._every_s
        self._put_at = {key: at for key, at in self._put_at.items() if at > due}
        for key, data in list(self._waiting.items()):
            if key in self._put_at and not everything:
                continue
            try:
                if not self._is_ours(key):
                    self._written.pop(key, None)
                elif await self._room.takes(_site(key), key):
                    await self._write(key, data)
                else:
                    self._refuse("too many outboxes have books already", key, data)
            except BucketError as error:
                self._seldom.say(logging.WARNING, "write", "a ledger is not written: %s", error)
                if error.passing:
                    continue
            if self._waiting.get(key) is data:  # and no newer one came meanwhile
                del self._waiting[key]
                self._bytes -= len(data)
                self._of_site[_site(key)] -= len(data)
                self._count_of_site[_site(key)] -= 1
        self._of_site, self._count_of_site = +self._of_site, +self._count_of_site

    def anew(self) -> None:
        """Forget what lies in the bucket, for others may have written there."""
        self._written.clear()

    def _is_ours(self, key: str) -> bool:
        """Whether no other store writes these books by now, who has heard them as well."""
        named = _KEY.fullmatch(key)
        return named is None or self._owns(named[1], named[2])

    async def _write(self, key: str, data: bytes) -> None:
        """Write a ledger; one that tells its time, and is there already, is not written again."""
        if _TELLS_TIME not in data:
            await self._bucket.put(key, data)
            return
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if key not in self._written:
            self._written[key] = await self._digest(key)
        if self._written[key] != digest:
            await self._bucket.put(key, data)
            self._put_at[key] = self._clock()
        self._written[key] = digest
        if len(self._written) > _MOST:
            del self._written[next(iter(self._written))]

    async def _digest(self, key: str) -> bytes:
        """Return the digest of what lies under a key; nothing where that is no ledger."""
        try:
            there = await self._bucket.get(key, max_bytes=Ledger.most_bytes)
        except BucketError as error:
            if error.fault not in _EMPTY:
                raise
            return b""
        return hashlib.blake2b(there, digest_size=16).digest()

    def _refuse(self, why: str, topic: str, payload: bytes) -> bool:
        form = "%s: %d bytes: %s: not kept"
        self._seldom.say(logging.WARNING, why, form, shown(topic), len(payload), why)
        self._count()
        return False


async def read_books(bucket: Bucket) -> AsyncIterator[Report]:
    """Yield what each outbox has reported to the bucket, put together from its parts, and when.

    A part that is not of the same books as the first counts for nothing; one that is not there is logged.
    Of a site with very many outboxes those heard last are read, of very many cameras the first.

    Raises:
        BucketError: the bucket cannot be read.
    """
    found: _Found = {}
    async for entry in bucket.list(ROOT):
        if named := _KEY.fullmatch(entry.key):
            site, outbox, part = named.groups(default="0")
            found.setdefault((site, outbox), {})[int(part)] = entry.modified
    places = _latest(found)
    room = Counter({site: _MOST_CAMERAS_OF_SITE for site, _ in found})
    for at in range(0, len(places), _AT_ONCE):
        batch = places[at : at + _AT_ONCE]
        whole = await asyncio.gather(*(_whole(bucket, *place, there) for place, there in batch))
        for ((site, _), there), books in zip(batch, whole, strict=True):
            if books:
                yield Report(site, _fitted(site, books, room), there.get(0))


async def read_outbox(bucket: Bucket, site: str, outbox: str) -> Ledger | None:
    """Return what one outbox has reported to the bucket; None where it has not.

    Raises:
        BucketError: the bucket cannot be read.
    """
    begin = f"{ROOT}/site={site}/{outbox}"
    found = set()
    async with aclosing(bucket.list(f"{ROOT}/site={site}", after=begin)) as entries:  # type: ignore[type-var]
        async for entry in entries:
            if not entry.key.startswith(f"{begin}."):
                break
            found.add(entry.key)
    there = [part for part in range(MOST_PARTS) if _key(site, outbox, part) in found]
    return await _whole(bucket, site, outbox, there) if there[:1] == [0] else None


def _latest(found: _Found) -> list[tuple[tuple[str, str], dict[int, datetime]]]:
    """Return the outboxes that were heard last, of each site so many at most."""
    order = sorted(found.items(), key=lambda each: max(each[1].values()), reverse=True)
    places, seen = [], Counter[str]()
    for place, there in order:
        seen[place[0]] += 1
        if seen[place[0]] <= _MOST_OF_SITE:
            places.append((place, there))
    for site, n in seen.items():
        if n > _MOST_OF_SITE:
            form = "site %s has the books of %d outboxes: %d are read"
            _seldom.say(logging.WARNING, "outboxes", form, site, n, _MOST_OF_SITE)
    if len(places) > _MOST_READ:
        form = "the books of %d outboxes: the %d heard last are read"
        _seldom.say(logging.WARNING, "all", form, len(places), _MOST_READ)
    return sorted(places[:_MOST_READ], key=lambda each: each[0])


def _fitted(site: str, books: Ledger, room: Counter[str]) -> Ledger:
    """Return the books with as many cameras as there is still room for at their site."""
    left = room[site]
    room[site] -= min(left, len(books.cameras))
    if len(books.cameras) <= left:
        return books
    form = "site %s has the books of more than %d cameras: read no further"
    _seldom.say(logging.WARNING, "cameras", form, site, _MOST_CAMERAS_OF_SITE)
    return books.model_copy(update={"cameras": dict(list(books.cameras.items())[:left])})


async def _whole(bucket: Bucket, site: str, outbox: str, there: Collection[int]) -> Ledger | None:
    """Put the books of an outbox together from the parts that are there."""
    head = await _read(bucket, _key(site, outbox, 0))
    if head is None:
        return None
    cameras = dict(head.cameras)
    missing = 0
    for number in range(1, head.parts):
        if len(cameras) > _MOST_CAMERAS_OF_SITE:
            break
        part = await _read(bucket, _key(site, outbox, number)) if number in there else None
        if part is None or (part.part, part.parts) != (number, head.parts):
            missing += 1
        else:
            cameras |= part.cameras
    if missing:
        form = "the books of outbox %s of site %s are not whole: %d of %d parts have not come yet"
        log.warning(form, outbox, site, missing, head.parts)
    return head.model_copy(update={"cameras": cameras, "parts": 1})


async def _read(bucket: Bucket, key: str) -> Ledger | None:
    """Return a ledger, or None where it is gone meanwhile or cannot be read."""
    try:
        return Ledger.from_bytes(await bucket.get(key, max_bytes=Ledger.most_bytes))
    except (WireError, BucketError) as error:
        if isinstance(error, BucketError) and error.fault not in _EMPTY:
            raise
        log.warning("%s: %s: left out", key, error)
        return None


def _site(key: str) -> str:
    """Return the folder of a site below the books' own."""
    return key.split("/")[1]


def _key(site: str, outbox: str, part: int) -> str:
    return f"{ROOT}/site={site}/{outbox}" + (f".{part}" if part else "") + ".json"
