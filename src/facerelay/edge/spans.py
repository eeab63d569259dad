"""What the relay tells of a face's way, where traces are on."""

from __future__ import annotations

import time
from typing import Final

from facerelay.edge.flights import Flight
from facerelay.messages import Receipt
from facerelay.tracing import Tracer, Value, born

_MOST: Final = 256
"""Faces that are held and traced, of which the end is told."""


class Spans:
    """Tells sends and receipts of the faces that are traced.

    Args:
        trace: takes the spans.
    """

    def __init__(self, trace: Tracer) -> None:
        self._trace = trace
        self._held: dict[str, Flight] = {}

    def published(self, flight: Flight, began: float, *, fault: str = "") -> None:
        """Tell a send that the broker has, or has not."""
        face = flight.face
        if self._trace.takes(face.id):
            facts: dict[str, Value] = {
                "site": face.site, "camera": face.camera, "bytes": len(face.data), "send": flight.sends,
            }  # fmt: skip
            self._trace.span(face.id, "publish", start=began, end=time.time(), fault=fault, **facts)

    def answered(self, flight: Flight, receipt: Receipt, came: float) -> None:
        """Tell a receipt that is on disk, and with it the face's whole way; `held` is no end of it."""
        if not self._trace.takes(receipt.id):
            return
        if receipt.outcome == "held":
            self._keep(flight)
            return
        now = time.time()
        self._trace.span(receipt.id, "receipt", start=came, end=now, outcome=receipt.outcome)
        stored = receipt.outcome == "stored"
        self.ended(flight, receipt.outcome, fault="" if stored else receipt.outcome, at=now)

    def settled(self, receipt: Receipt, came: float) -> None:
        """Tell the last receipt of a face that was held."""
        flight = self._held.pop(receipt.id, None)
        if flight is not None:
            self.answered(flight, receipt, came)

    def _keep(self, flight: Flight) -> None:
        self._held[flight.face.id] = flight
        if len(self._held) > _MOST:
            del self._held[next(iter(self._held))]

    def ended(self, flight: Flight, outcome: str, *, fault: str = "", at: float | None = None) -> None:
        """Tell a face's whole way: from its making to what became of it."""
        face = flight.face
        if self._trace.takes(face.id):
            facts: dict[str, Value] = {
                "site": face.site, "camera": face.camera, "outbox": face.outbox, "bytes": len(face.data),
                "outcome": outcome, "sends": flight.sends,
            }  # fmt: skip
            end = time.time() if at is None else at
            self._trace.span(face.id, "face", start=born(face.id), end=end, fault=fault, **facts)
