"""Faces that are sent again: they wait here until the budget lets them go; what nobody answers is parked."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable

from facerelay.edge.flights import Flight, Flights
from facerelay.edge.line import Line
from facerelay.edge.outbox import Outbox
from facerelay.edge.spans import Spans
from facerelay.edge.window import Window

log = logging.getLogger(__name__)


class Resending:
    """The queue of what is sent again.

    Args:
        outbox: where faces are parked.
        flights: those that were sent and have no receipt.
        line: knows which wait still.
        window: is told of what is in flight no more.
        spans: are told of faces that are traced.
    """

    def __init__(self, outbox: Outbox, *, flights: Flights, line: Line, window: Window, spans: Spans) -> None:
        self._outbox = outbox
        self._flights = flights
        self._line = line
        self._window = window
        self._spans = spans
        self._queue: deque[Flight] = deque()

    def add(self, flights: Iterable[Flight]) -> None:
        """Queue for the budget; `busy` meanwhile, so that they are not found overdue once more."""
        for flight in flights:
            if self._waits(flight):
                flight.busy = True
                self._queue.append(flight)

    def take(self) -> Flight | None:
        """Return the next that still waits for its answer; None where there is none."""
        while self._queue:
            flight = self._queue.popleft()
            if self._waits(flight):
                return flight
        return None

    async def park(self, flight: Flight) -> None:
        """Set a face aside that was sent often and never answered.

        Raises:
            sqlite3.Error: the disk does not take it; it is found overdue once more.
        """
        face = flight.face
        await asyncio.wrap_future(self._outbox.park(face.id, "unanswered"))
        self._land(flight)
        self._spans.ended(flight, "unanswered", fault="parked")
        log.error("face %s was sent %d times and never answered, others were: parked", face.id, flight.sends)

    def _waits(self, flight: Flight) -> bool:
        """Whether a face is to be sent again; one dropped on its way has filled the line till now."""
        if self._flights.get(flight.face.id) is not flight:
            return False
        if self._line.waits(flight.face.id):
            return True
        self._land(flight)
        return False

    def _land(self, flight: Flight) -> None:
        self._flights.land(flight)
        self._window.gone(flight.face.id)
