"""The books of the edges, as they last said them, in the bucket."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.read_books import EMPTY, KEY, PART, ROOT, key_of
from facerelay.cloud.room import Room
from facerelay.face import SLUG
from facerelay.messages import Ledger, WireError
from facerelay.seldom import Seldom
from facerelay.topics import shown

log = logging.getLogger(__name__)

_MOST: Final = 10_000
_MOST_BYTES: Final = 16_000_000
_SHARE: Final = 2
"""Of what may wait one site takes no more than a half."""

_TOPIC: Final = re.compile(rf"ledger/({SLUG})/([0-9a-f]+)(?:/({PART}))?")
_TELLS_TIME: Final = b'"link":{'
"""Is in a ledger whose edge says something new each time."""


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
        except WireError as error:
            return self._refuse("not a ledger that can be read", topic, payload, what=str(error))
        named = _TOPIC.fullmatch(topic)
        site, outbox, part = named.groups(default="0") if named else ("", "", "")
        ours = all(name.startswith(f"{site}/") for name in books.cameras)
        if not ours or (outbox, part) != (books.outbox, str(books.part)) or books.part >= books.parts:
            return self._refuse("the ledger is of another site, outbox or part", topic, payload)
        if retained and self._keep and books.link and self._now() - books.link.time > self._keep:
            return False
        key = key_of(site, outbox, books.part)
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
        named = KEY.fullmatch(key)
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
            if error.fault not in EMPTY:
                raise
            return b""
        return hashlib.blake2b(there, digest_size=16).digest()

    def _refuse(self, why: str, topic: str, payload: bytes, what: str = "") -> bool:
        form = "%s: %d bytes: %s: not kept"
        said = f"{why} ({shown(what[:200])})" if what else why
        self._seldom.say(logging.WARNING, why, form, shown(topic), len(payload), said)
        self._count()
        return False


def _site(key: str) -> str:
    """Return the folder of a site below the books' own."""
    return key.split("/")[1]
