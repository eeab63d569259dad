"""A store's hello: said at each connection, and again where an edge has not heard it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from facerelay.cloud.voice import Voice
from facerelay.mqtt import NotConnectedError, Session

log = logging.getLogger(__name__)

_HEAR_S: Final = 2.0


class Greeter:
    """Announces a store.

    Args:
        voice: puts the hello into words.
        count: is told of each that went out.

    Attributes:
        up: set at each new connection.
        unheard: set where an edge says that it waits for a hello: NATS loses a retained message on who
            subscribes at that very moment.
    """

    def __init__(self, voice: Voice, *, count: Callable[[], None] = lambda: None) -> None:
        self._voice = voice
        self._count = count
        self.up = asyncio.Event()
        self.unheard = asyncio.Event()

    async def run(self, session: Session, ready: Callable[[], None] | None) -> None:
        """Announce it until cancelled.

        Args:
            session: with the cloud's broker.
            ready: called once, at the first connection.
        """
        hello = self._hello()
        while True:
            await _any(self.up, self.unheard)
            if not self.up.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HEAR_S):  # one answer for all who ask meanwhile
                        await self.up.wait()
            if self.up.is_set():
                hello = self._hello()
            self.up.clear()
            self.unheard.clear()
            if ready is not None:
                ready()
                ready = None
            try:
                await session.publish(*hello, qos=1, retain=True)
                self._count()
            except NotConnectedError:
                log.info("not announced: the connection is gone again")

    def _hello(self) -> tuple[str, bytes]:
        return self._voice.hello(secrets.token_hex(8))


async def _any(*events: asyncio.Event) -> None:
    """Wait until one of some events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
