"""How the link does, by what the outbox sees of it: noted beside the books, and sent up with them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from facerelay.edge.erasing import MARK
from facerelay.edge.flights import Flights
from facerelay.edge.held import LAST_S
from facerelay.edge.outbox import Outbox
from facerelay.edge.sent import Sent
from facerelay.edge.voices import Voices
from facerelay.edge.window import Window
from facerelay.messages import LinkHealth
from facerelay.metrics import Spread

NOTE: Final = "link"
"""The name under which the outbox keeps it."""

BROKER_DROPPED: Final = "$SYS/broker/publish/messages/dropped"
"""Where Mosquitto says what it dropped since it began; a NATS server has no such topic."""

_MOST_S: Final = 1e9


class Pulse:
    """Puts the figures together.

    Args:
        outbox: knows who waits; the figures are noted there.
        flights: knows who is on the way, and how long receipts take.
        window: knows how much may be.
        sent: knows what went.

    Attributes:
        cuts: how often the way to the cloud was lost.
        voices: know what came down and did not count.
        held: returns how many faces are held by a store, and the row behind which all others lie.
    """

    def __init__(self, outbox: Outbox, *, flights: Flights, window: Window, sent: Sent) -> None:
        self._outbox = outbox
        self._flights = flights
        self._window = window
        self._sent = sent
        self._broker_dropped: int | None = None
        self.cuts = 0
        self.voices = Voices(None)
        self.held: Callable[[], tuple[int, int]] = lambda: (0, 0)

    def on_broker(self, payload: bytes) -> None:
        """Take the broker's word of what it dropped; what is no number is passed over."""
        if re.fullmatch(rb"[0-9]{1,15}", payload):
            self._broker_dropped = int(payload)

    @property
    def took(self) -> Spread:
        """Seconds from a face's first send to its receipt."""
        return self._flights.took

    @property
    def resent(self) -> int:
        """How many sends were of faces that had been sent before."""
        return self._flights.resent

    async def take(self, *, resets: int) -> LinkHealth:
        """Return the figures as they are now, and note them.

        Raises:
            sqlite3.Error: the disk fails.
        """
        health = await self.look(resets=resets)
        await asyncio.wrap_future(self._outbox.note(NOTE, health.to_bytes().decode()))
        return health

    async def look(self, *, resets: int) -> LinkHealth:
        """Return the figures as they are now; see `LinkHealth` for what they are.

        Raises:
            sqlite3.Error: the disk fails.
        """
        trip = self._flights.round_trip
        held, _ = self.held()
        return LinkHealth(
            time=datetime.now(UTC).replace(microsecond=0),
            oldest_s=await self._oldest(),
            held=held,
            silent_s=round(self._flights.silence, 1) if self._flights.unheard else None,
            round_trip_s=None if trip is None else round(trip, 4),
            up_bytes_s=round(self._sent.rate),
            in_flight=self._flights.bytes,
            window=self._window.bytes,
            broker_dropped=self._broker_dropped,
            cuts=self.cuts,
            resets=resets,
            ignored=self.voices.ignored.total(),
            strange=self.voices.strange,
            erasures=await asyncio.wrap_future(self._outbox.noted(MARK)) or "",
        )

    async def _oldest(self) -> float | None:
        """Return the age of the oldest face that waits; one that a store holds counts if that lasts."""
        held, behind = self.held()
        oldest = _age(await asyncio.wrap_future(self._outbox.oldest()))
        if not held or oldest is None or oldest > LAST_S:
            return oldest
        return _age(await asyncio.wrap_future(self._outbox.oldest(behind)))


def _age(chosen: float | None) -> float | None:
    return None if chosen is None else round(min(max(0.0, time.time() - chosen), _MOST_S), 1)
