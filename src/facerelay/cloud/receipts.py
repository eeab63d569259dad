"""Receipts on their way down: those that wait together go together, one message per outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from facerelay.cloud.voice import Voice
from facerelay.mqtt import NotConnectedError
from facerelay.seldom import Seldom
from facerelay.topics import Receipt

log = logging.getLogger(__name__)

_GATHER_S: Final = 0.002
_MOST: Final = 50_000

Publish = Callable[[str, bytes], Awaitable[None]]


class Outgoing:
    """Receipts to be published. What cannot be is dropped: the edge sends again, and is answered again.

    Args:
        publish: hands a message to the broker.
        voice: makes the messages.
    """

    def __init__(self, publish: Publish, *, voice: Voice) -> None:
        self._publish = publish
        self._voice = voice
        self._waiting: dict[tuple[str, str], list[Receipt]] = {}
        self._count = 0
        self._some = asyncio.Event()
        self._seldom = Seldom(log)

    def add(self, site: str, outbox: str, receipt: Receipt) -> None:
        """Take a receipt for the owner of an outbox."""
        if self._count >= _MOST:
            return
        self._waiting.setdefault((site, outbox), []).append(receipt)
        self._count += 1
        self._some.set()

    async def run(self) -> None:
        """Publish until cancelled: what comes while the broker has not answered goes together."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER_S)
            await self.flush()

    async def flush(self) -> None:
        """Publish all that waits, all outboxes at once."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        self._some.clear()
        await asyncio.gather(*(self._send(*owner, found) for owner, found in waiting.items()))

    async def _send(self, site: str, outbox: str, found: list[Receipt]) -> None:
        topic, batches = self._voice.receipts(site, outbox, found)
        try:
            for payload in batches:
                await self._publish(topic, payload)
        except NotConnectedError:
            form = "receipts for %s were not sent, of %d: no connection"
            self._seldom.say(logging.INFO, "unsent", form, site, len(found))
