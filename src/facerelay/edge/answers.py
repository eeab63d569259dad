"""What receipts do to the faces they speak of: on disk first, then to all that is known of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from facerelay.edge.flights import Flight, Flights
from facerelay.edge.held import Held, Holder
from facerelay.edge.line import Line
from facerelay.edge.outbox import Outbox
from facerelay.edge.spans import Spans
from facerelay.edge.window import Window
from facerelay.messages import Receipt


class Answers:
    """Acts on receipts.

    Args:
        outbox: where faces wait.
        flights: those that were sent and have no receipt.
        held: those that a store holds, which have their last one to come.
        line: knows which wait still.
        window: learns from them how much may be on the way.
        spans: are told of faces that are traced.
    """

    def __init__(
        self, outbox: Outbox, *, flights: Flights, held: Held, line: Line, window: Window, spans: Spans
    ) -> None:
        self._outbox = outbox
        self._flights = flights
        self._held = held
        self._line = line
        self._window = window
        self._spans = spans

    async def take(self, receipts: Sequence[Receipt], holder: Holder) -> bool:
        """Act on a batch; returns, once it is on disk, whether any was waited for.

        Raises:
            sqlite3.Error: the disk did not take it.
        """
        if not receipts:
            return False
        came = time.time()
        flights = [(self._flights.get(receipt.id, receipt.sha256), receipt) for receipt in receipts]
        held = [(self._held.for_s(receipt), receipt) for receipt in receipts if receipt.outcome != "held"]
        self._window.answered((flight.face.id, len(flight.face.data)) for flight, _ in flights if flight)
        await asyncio.wrap_future(self._outbox.answer(receipts))
        for flight, receipt in flights:
            if flight is not None:
                self._answered(flight, receipt, came, holder)
        for seconds, receipt in held:
            if seconds is not None:
                self._flights.took.observe(seconds)
                self._spans.settled(receipt, came)
        # Old receipts said again are waited for by nobody.
        return any(one is not None for one, _ in (*flights, *held))

    def _answered(self, flight: Flight, receipt: Receipt, came: float, holder: Holder) -> None:
        held = receipt.outcome == "held"
        self._spans.answered(flight, receipt, came)
        if held and self._flights.get(flight.face.id) is flight and self._line.waits(flight.face.id):
            self._held.add(flight.face, holder)
        self._flights.answered(flight, held=held)
        self._window.gone(flight.face.id)  # it may have been sent again meanwhile
