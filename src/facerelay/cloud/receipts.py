"""Receipts on their way down: those that wait together go together, one message per outbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

from facerelay.cloud.voice import Voice
from facerelay.messages import Receipt
from facerelay.mqtt import NotConnectedError
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_GATHER_S: Final = 0.002
_MOST: Final = 50_000
_AGAIN_S: Final = 20.0
_LOOK_S: Final = 1.0

Publish = Callable[[str, bytes], Awaitable[None]]


class _Later(NamedTuple):
    due: float
    site: str
    outbox: str
    receipt: Receipt


class Outgoing:
    """Receipts to be published. What cannot be is dropped: the edge sends again, and is answered again.

    For a face that was held it does so after a quarter of an hour. Its last receipt is said twice, in case a
    broker falls, or a connection, as it is said.

    Args:
        publish: hands a message to the broker.
        voice: makes the messages.
        clock: monotonic seconds.
    """

    def __init__(
        self, publish: Publish, *, voice: Voice, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publish = publish
        self._voice = voice
        self._clock = clock
        self._later: deque[_Later] = deque(maxlen=_MOST)
        self._waiting: dict[tuple[str, str], list[Receipt]] = {}
        self._count = 0
        self._some = asyncio.Event()
        self._seldom = Seldom(log)

    def add(self, site: str, outbox: str, receipt: Receipt, *, twice: bool = False) -> None:
        """Take a receipt for the owner of an outbox; `twice` has it said again a little later."""
        if twice:
            self._later.append(_Later(self._clock() + _AGAIN_S, site, outbox, receipt))
        if self._count >= _MOST:
            return
        self._waiting.setdefault((site, outbox), []).append(receipt)
        self._count += 1
        self._some.set()

    async def run(self) -> None:
        """Publish until cancelled: what comes while the broker has not answered goes together."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if self._later else None):
                    await self._some.wait()
            self._repeat()
            if self._some.is_set():
                await asyncio.sleep(_GATHER_S)
                await self.flush()

    def _repeat(self) -> None:
        while self._later and self._later[0].due <= self._clock():
            _, site, outbox, receipt = self._later.popleft()
            self.add(site, outbox, receipt)

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
