"""A store's hello: said at each connection, and again where an edge missed it or may have lost faces."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from facerelay.cloud.peers import Peers
from facerelay.cloud.voice import Voice
from facerelay.mqtt import NotConnectedError, Session

log = logging.getLogger(__name__)

_HEAR_S: Final = 2.0


class Greeter:
    """Announces a store.

    A hello with a new `start` has every edge send again what has no receipt. So one that joins others of its
    name, at whose start nothing is lost, says theirs again; it says a new one when it comes back.

    Args:
        voice: puts the hello into words.
        peers: the other stores.
        joins: whether others of this name may be at work already.
        count: is told of each that went out.

    Attributes:
        up: set at each new connection.
        unheard: set where an edge says that it waits for a hello: NATS loses a retained message on who
            subscribes at that very moment.
        lost: set where another store was lost with faces that edges believe to be held.
    """

    def __init__(
        self, voice: Voice, peers: Peers, *, joins: bool = False, count: Callable[[], None] = lambda: None
    ) -> None:
        self._voice = voice
        self._peers = peers
        self._joins = joins
        self._count = count
        self.up = asyncio.Event()
        self.unheard = asyncio.Event()
        self.lost = asyncio.Event()

    async def run(self, session: Session, ready: Callable[[], None] | None) -> None:
        """Announce it until cancelled.

        Args:
            session: with the cloud's broker.
            ready: called once, at the first connection.
        """
        joins = self._joins
        while True:
            await _any(self.up, self.unheard, self.lost)
            if not self.up.is_set() and not self.lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HEAR_S):  # one answer for all who ask meanwhile
                        await self.up.wait()
            anew = self.up.is_set() or self.lost.is_set()
            self.up.clear()
            self.lost.clear()
            self.unheard.clear()
            if ready is not None:
                ready()
                ready = None
            if joins:
                await self._peers.settled()
                anew, joins = self._peers.hello is None, False
            if anew or self._peers.hello is None:
                self._peers.hello = _start()
            try:
                await session.publish(*self._voice.hello(self._peers.hello), qos=1, retain=True)
                self._count()
            except NotConnectedError:
                log.info("not announced: the connection is gone again")


def _start() -> str:
    """Return what no hello had before; of two the later one is the greater."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


async def _any(*events: asyncio.Event) -> None:
    """Wait until one of some events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
