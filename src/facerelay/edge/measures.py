"""What capture measures: the outbox's books, its link, and what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from facerelay import alarms
from facerelay.config import Config
from facerelay.edge.outbox import Outbox
from facerelay.edge.relay import Relay
from facerelay.edge.voices import REASONS
from facerelay.messages import Account, Ledger, LinkHealth
from facerelay.metrics import Reading, books
from facerelay.metrics import catalogue as c
from facerelay.metrics.lately import Lately
from facerelay.mqtt import Session

_LEAST_S: Final = 1.0
_SHARE: Final = 0.02
"""Of the time, at most, goes into putting the books together: those of many cameras are told seldomer."""


class Measures:
    """A source of the figures of one outbox.

    Args:
        config: this machine's settings.
        outbox: whose books.
        session: with the edge's broker.
        relay: knows how the link does.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        session: Session,
        relay: Relay,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = config.site
        self._configured = [(config.site, camera.name) for camera in config.camera]
        self._broker = "cloud" if config.direct else "edge", "capture"
        self._limit = config.outbox.max_bytes
        self._outbox = outbox
        self._session = session
        self._relay = relay
        self._clock = clock
        self._told = books.Books()
        self._lately = Lately(clock=clock)
        self._ledger: Ledger | None = None
        self._old_at = 0.0

    async def read(self) -> Iterator[Reading]:
        """Return the figures as they are now.

        Raises:
            sqlite3.Error: the disk fails.
        """
        ledger = await self._books()
        health = await self._relay.pulse.look(resets=self._session.resets)
        return self._readings(ledger, health)

    def _readings(self, ledger: Ledger, health: LinkHealth) -> Iterator[Reading]:
        cameras = {camera: [Account()] for camera in self._configured}
        cameras |= {books.camera_of(name): [account] for name, account in ledger.cameras.items()}
        yield from self._told.read(cameras)
        yield from books.link(self._site, [health])
        yield from books.lost(self._site, [ledger.lost])
        known = ledger.model_copy(update={"link": health})
        lately = self._lately.since(known.cameras)
        report = alarms.Report(self._site, known, lately=lately)
        yield from books.alarms(alarms.find([report], now=datetime.now(UTC)))
        yield Reading(c.CONNECTED, self._broker, int(self._session.connected))
        yield Reading(c.CONNECTION_RESETS, self._broker, self._session.resets)
        site = (self._site,)
        if self._relay.link is not None:
            yield Reading(c.LINK_UP, site, int(self._relay.link))
        yield Reading(c.RECEIPT, site, self._relay.pulse.took)
        yield Reading(c.RESENT, site, self._relay.pulse.resent)
        for reason in REASONS:
            yield Reading(c.IGNORED, (*site, reason), self._relay.pulse.voices.ignored[reason])
        yield Reading(c.OUTBOX, (), self._outbox.bytes)
        yield Reading(c.OUTBOX_LIMIT, (), self._limit)

    async def _books(self) -> Ledger:
        """Return the books, new enough for what they cost."""
        now = self._clock()
        if self._ledger is None or now >= self._old_at:
            self._ledger = await asyncio.wrap_future(self._outbox.ledger())
            took = self._clock() - now
            self._old_at = now + max(_LEAST_S, took / _SHARE)
        return self._ledger
