"""The books of an outbox on their way up: retained messages, as many as its cameras need."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

from facerelay import topics
from facerelay.edge.outbox import Outbox
from facerelay.messages import MOST_PARTS, Account, Ledger, LinkHealth
from facerelay.mqtt import NotConnectedError, Session

_EVERY_S: Final = 10.0
_LONGEST_S: Final = 30.0
"""An edge that is not heard for a minute counts as silent (`alarms.SILENT_S`)."""

_QUIET_S: Final = 25.0
"""Books in which frames alone were counted are told so often: at every third look."""

_NO_NEWS: Final = re.compile(rb'"frames":[0-9]+|"link":\{"time":"[^"]*"')

_SHARE: Final = 0.02
"""Of the time, at most, goes into putting the books together."""

_PART_BYTES: Final = 16_384
_AT_ONCE: Final = 65_536
"""Bytes told at once, so that the books of a thousand cameras leave a thin line to the faces."""

_AGAIN_S: Final = 3600.0
"""What did not change is told so often all the same: a broker or a bucket may have lost it."""

_FAREWELL_S: Final = 5.0


class _Told(NamedTuple):
    """A part as it was told: its digest, that of what is news in it, and when."""

    digest: bytes
    news: bytes
    at: float


class Teller:
    """Publishes an outbox's books: the parts that changed, those first that wait longest.

    A camera's part follows from its name and the number of parts alone, which only grows: so a part that was
    told stays true. A camera that is renamed keeps its old books, for its faces lie in the bucket under the
    old name.

    Args:
        outbox: whose books.
        session: where they are published.
        site: this machine's; an outbox may hold books of an earlier one as well, told apart from these.
        health: gives how the link does; it travels with the first part.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        outbox: Outbox,
        session: Session,
        *,
        site: str,
        health: Callable[[], Awaitable[LinkHealth]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._session = session
        self._site = site
        self._health = health
        self._clock = clock
        self._parts: dict[str, int] = {}
        self._told: dict[str, _Told] = {}

    def anew(self) -> None:
        """Forget what was told: the broker may be another."""
        self._told.clear()

    async def run(self) -> None:
        """Tell now and then, until cancelled."""
        pause = _EVERY_S
        while True:
            await asyncio.sleep(pause)
            pause = min(max(_EVERY_S, await self.tell() / _SHARE), _LONGEST_S)

    async def farewell(self) -> None:
        """Tell all that changed, in a few seconds or not at all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self.tell(everything=True)

    async def tell(self, *, everything: bool = False) -> float:
        """Publish what is to be told now; returns how long the books took, in seconds."""
        begin = self._clock()
        messages: dict[str, bytes] = {}
        with suppress(sqlite3.Error):
            books = await asyncio.wrap_future(self._outbox.ledger())
            link = await self._health()
            for site in sorted({self._site} | {name.partition("/")[0] for name in books.cameras}):
                messages |= self._messages(site, books, link if site == self._site else None)
        took = self._clock() - begin
        with suppress(NotConnectedError):
            await self._publish(messages, everything=everything)
        return took

    def _messages(self, site: str, books: Ledger, link: LinkHealth | None) -> dict[str, bytes]:
        """Return a site's books by topic, in as many parts as it takes."""
        cameras = {name: a for name, a in books.cameras.items() if name.startswith(f"{site}/")}
        parts = self._parts.get(site, 1)
        while True:
            found = _cut(books.model_copy(update={"link": link}), cameras, parts)
            most = Ledger.most_bytes if parts == 1 else _PART_BYTES
            if parts == MOST_PARTS or max(map(len, found)) <= most:
                break
            parts *= 2
        self._parts[site] = parts
        return {topics.ledger(site, books.outbox, part): payload for part, payload in enumerate(found)}

    async def _publish(self, messages: dict[str, bytes], *, everything: bool) -> None:
        now = self._clock()
        fresh = {topic: _told(payload, now) for topic, payload in messages.items()}
        due = [topic for topic, one in fresh.items() if self._is_due(topic, one)]
        left = sum(map(len, messages.values())) if everything else _AT_ONCE
        for topic in sorted(due, key=self._rank):
            left -= len(messages[topic])
            if left < 0:
                return
            await self._session.publish(topic, messages[topic], qos=0, retain=True)
            self._told[topic] = fresh[topic]

    def _is_due(self, topic: str, fresh: _Told) -> bool:
        told = self._told.get(topic)
        if told is None or told.news != fresh.news:
            return True
        return fresh.at - told.at >= (_AGAIN_S if told.digest == fresh.digest else _QUIET_S)

    def _rank(self, topic: str) -> tuple[bool, float]:
        """The first part goes first, for it tells how the link does."""
        further = topic.count("/") > topics.ledger("", "").count("/")
        return further, self._told[topic].at if topic in self._told else 0.0


def _told(payload: bytes, now: float) -> _Told:
    """Return what is to be remembered of a part that is told now."""
    news = _NO_NEWS.sub(b"", payload)
    return _Told(hashlib.blake2b(payload).digest(), hashlib.blake2b(news).digest(), now)


def _cut(books: Ledger, cameras: dict[str, Account], parts: int) -> list[bytes]:
    """Return the books in so many messages, each with the cameras whose names fall to it."""
    shares: list[dict[str, Account]] = [{} for _ in range(parts)]
    for name, account in cameras.items():
        shares[zlib.crc32(name.encode()) % parts][name] = account
    return [
        books.model_copy(
            update={
                "cameras": share,
                "part": part,
                "parts": parts,
                "link": None if part else books.link,
            }
        ).to_bytes()
        for part, share in enumerate(shares)
    ]
