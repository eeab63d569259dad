"""How many bytes may be sent at this moment, beside what is in flight."""

from __future__ import annotations

import sys
from typing import Final

from facerelay.edge.flights import Flights
from facerelay.edge.window import Window

_MOST_FACES: Final = 500
"""In flight, however small they are: Mosquitto queues 1,000 for a client, and drops what comes beyond."""


class Headroom:
    """What the window leaves. One face may always be in flight, however large.

    Args:
        flights: what is in flight.
        window: bytes that may be.
    """

    def __init__(self, flights: Flights, window: Window) -> None:
        self._flights = flights
        self._window = window
        self._spare = False

    def spare(self, *, link_up: bool) -> None:
        """Let one face go beside a window full of faces that no store answers: they must not stop all."""
        self._spare = link_up and self._flights.bytes < 2 * self._window.bytes

    def taken(self) -> None:
        """Take note that a face goes."""
        self._spare = False

    @property
    def bytes(self) -> int:
        """Bytes that may be sent now."""
        if self._spare or not self._flights.bytes:
            return sys.maxsize
        return self._window.bytes - self._flights.bytes if len(self._flights) < _MOST_FACES else 0

    @property
    def live_bytes(self) -> int:
        """Live faces may go beyond the window while what fills it may be lost: an outage has just ended."""
        more = self._flights.in_doubt and len(self._flights) < _MOST_FACES * 5 // 4
        return self.bytes + (self._window.bytes // 4 if more else 0)
