"""When a face is sent again after the way was shut, on a simulated clock."""

from __future__ import annotations

from conftest import Make
from facerelay.edge.flights import Flight, Flights
from facerelay.edge.outbox import Waiting

FIRST_S = 10.0
OUTAGE_S = 100.0


class Edge:
    """Flights, and the time."""

    def __init__(self, make_face: Make) -> None:
        self.now = 0.0
        self._make = make_face
        self.flights = Flights(overdue_s=FIRST_S, max_unanswered=5, clock=lambda: self.now)

    def send(self, count: int) -> list[Flight]:
        """Send faces, now."""
        sent = []
        for _ in range(count):
            frozen = self._make()
            one = frozen.face
            face = Waiting(1, one.id, frozen.sha256, one.site, one.camera, one.outbox, frozen.data, 0.5)
            flight = self.flights.add(face)
            self.again(flight)
            sent.append(flight)
        return sent

    def again(self, flight: Flight) -> None:
        """Send one, now."""
        self.flights.sent(flight)
        flight.busy = False

    def answer(self, sent: list[Flight]) -> None:
        """Have a receipt come for each, now."""
        for flight in sent:
            self.flights.answered(flight, held=False)
        self.flights.heard()

    def overdue_within(self, seconds: float, sent: list[Flight]) -> bool:
        """Whether some of them are sent again so many seconds from now, be it one to find out."""
        self.now += seconds
        return bool(set(sent) & set(self.flights.overdue(link_up=True).send))


def test_a_time_through_which_the_way_was_shut_is_no_round_trip(make_face: Make) -> None:
    edge = Edge(make_face)
    sent = edge.send(50)
    edge.now += OUTAGE_S
    edge.flights.came_up()
    edge.now += 0.1
    edge.answer(sent)
    lost = edge.send(50)
    assert edge.overdue_within(1.3 * FIRST_S, lost)


def test_a_time_through_which_the_store_was_gone_is_no_round_trip(make_face: Make) -> None:
    edge = Edge(make_face)
    sent = edge.send(50)
    edge.now += OUTAGE_S
    edge.flights.hurry()
    for flight in sent:
        edge.again(flight)
    edge.now += 0.1
    edge.answer(sent)
    lost = edge.send(50)
    assert edge.overdue_within(1.3 * FIRST_S, lost)


def test_what_was_lost_is_sent_soon_after_the_way_is_open_however_slow_it_was_before(make_face: Make) -> None:
    edge = Edge(make_face)
    sent = edge.send(50)
    edge.now += 50
    edge.answer(sent)  # a bucket that did not answer for so long
    lost = edge.send(50)
    edge.flights.came_up()
    assert edge.overdue_within(1.3 * FIRST_S, lost)


def test_a_slow_line_is_still_learnt(make_face: Make) -> None:
    edge = Edge(make_face)
    for _ in range(20):
        sent = edge.send(5)
        edge.now += 30
        edge.answer(sent)
    waiting = edge.send(5)
    assert not edge.overdue_within(25, waiting)
