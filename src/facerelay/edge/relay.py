"""From the outbox to the first broker: a bounded window in flight, receipts, and sending again."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from facerelay.edge.line import Line
from facerelay.edge.outbox import News, Outbox, Waiting
from facerelay.edge.roundtrip import RoundTrip
from facerelay.mqtt import NotConnectedError
from facerelay.topics import FaceTopic, Hello, Receipt

log = logging.getLogger(__name__)

_TICK: Final = 0.1
_SILENCE: Final = 10.0
_HELD: Final = 900.0
_LIVE_WINDOWS: Final = 4
_STORES: Final = 64

Publish = Callable[[str, bytes], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Flight:
    """A face that was sent and has no receipt yet. Times are monotonic seconds."""

    face: Waiting
    first: float
    last: float
    due: float
    sends: int = 0
    unanswered: int = 0
    held: bool = False
    busy: bool = False
    hurried: bool = False


class Relay:
    """Keeps the window full while the link is up; acts on receipts; sends again what is overdue.

    Live faces go first, the backlog fills the rest. With no receipt at all it probes with one face at a
    time and says so, and never falls back to less than the level of delivery that was asked for.

    Args:
        outbox: where faces wait.
        topic: where they are published.
        publish: hands one message to the broker, and returns when its quality of service is fulfilled.
        delivery: `receipt`, or `fast` and `broker`, where the broker's word is enough.
        window_bytes: in flight without a receipt, at most (one face may always be).
        overdue_s: how long a receipt may take before round trips were seen.
        max_unanswered: sends in vain, while others were answered, after which a face is parked.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        topic: FaceTopic,
        publish: Publish,
        delivery: Literal["fast", "broker", "receipt"],
        window_bytes: int,
        overdue_s: float,
        max_unanswered: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._topic = topic
        self._publish = publish
        self._receipts = delivery == "receipt"
        self._window = window_bytes
        self._max_unanswered = max_unanswered
        self._clock = clock
        self._trip = RoundTrip(first=overdue_s)
        self._line = Line(outbox, live_bytes=_LIVE_WINDOWS * window_bytes)
        self._flights: dict[str, _Flight] = {}
        self._in_flight = 0
        self._connected = False
        self._link: bool | None = None
        self._hellos: dict[str, str] = {}
        self._hurry_after = 0.0
        self._heard = self._up_since = clock()
        self._probe_at: float | None = None
        self._sent_bytes: Counter[tuple[str, str]] = Counter()
        self._sent: list[str] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Relay until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._outbox.listener = self._on_commit
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._feed())
                self._tasks.create_task(self._watch())
        finally:
            self._outbox.listener = None

    # what happened

    def on_connected(self, up: bool) -> None:  # noqa: FBT001 - the shape of a session's callback
        """Take note of the session's state."""
        if up == self._connected:
            return
        self._connected = up
        self._on_up()

    def on_link(self, up: bool | None) -> None:  # noqa: FBT001 - a state, not a switch
        """Take note of the state of the link beyond the broker; None is not known."""
        if up == self._link:
            return  # it is repeated now and then, which is no news
        log.info("the link to the cloud is %s", {True: "up", False: "down", None: "of unknown state"}[up])
        self._link = up
        self._on_up()

    def on_hello(self, hello: Hello) -> None:
        """Send again what has no receipt when a store announces itself anew: it may have lost it."""
        before = self._hellos.get(hello.store)
        if before is None and len(self._hellos) >= _STORES:
            return
        self._hellos[hello.store] = hello.start
        now = self._clock()
        if before in (None, hello.start) or now < self._hurry_after:
            return
        self._hurry_after = now + self._trip.overdue  # a store that stumbles must not have us flood it
        self._due_soon(self._trip.overdue / 4)

    async def on_receipts(self, receipts: Iterable[Receipt]) -> None:
        """Act on a batch; returns once it is on disk."""
        now = self._clock()
        if self._probe_at is not None:
            log.info("receipts come again")
            self._probe_at = None
            self._due_soon(self._trip.overdue)
        self._heard = now
        batch = list(receipts)
        for receipt in batch:
            flight = self._flights.get(receipt.id)
            if flight is None or flight.face.sha256 != receipt.sha256:
                continue
            if flight.sends == 1 and not flight.held:
                self._trip.seen(now - flight.first)
            if receipt.outcome == "held":
                self._hold(flight, now)
            else:
                self._land(flight)
        self._wake.set()
        await asyncio.wrap_future(self._outbox.answer(batch))

    @property
    def in_flight(self) -> int:
        """Bytes that were sent and have no receipt."""
        return self._in_flight

    # sending

    def _on_commit(self, news: News) -> None:
        """From the outbox's thread: faces came, or went."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_news, news)

    def _on_news(self, news: News) -> None:
        self._line.arrived(news.arrived)
        self._line.gone(news.gone)
        for face_id in news.gone:
            if flight := self._flights.get(face_id):
                self._land(flight)
        self._wake.set()

    def _on_up(self) -> None:
        self._up_since = self._clock()
        for flight in self._flights.values():
            wait = self._trip.after(flight.sends) * random.uniform(1, 1.25) if flight.sends else 0  # noqa: S311 - jitter
            flight.due = max(flight.due, self._up_since) if flight.held else self._up_since + wait
        self._wake.set()

    @property
    def _open(self) -> bool:
        """Whether first sends may go: not into a link that is known to be down."""
        return self._connected and self._link is not False

    async def _feed(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._open and (face := await self._line.take(self._room)):
                now = self._clock()
                flight = _Flight(face, now, now, now)
                self._flights[face.id] = flight
                self._in_flight += len(face.data)
                self._send(flight)

    @property
    def _room(self) -> int:
        """Bytes that may be sent now; one face may always be in flight, however large."""
        return self._window - self._in_flight if self._in_flight else sys.maxsize

    def _send(self, flight: _Flight) -> None:
        assert self._tasks is not None  # noqa: S101 - only called while running
        now = self._clock()
        flight.sends += 1
        flight.last = now
        flight.hurried = False
        flight.due = now + self._trip.after(flight.sends) * random.uniform(1, 1.25)  # noqa: S311 - jitter
        flight.busy = True
        self._tasks.create_task(self._deliver(flight))

    async def _deliver(self, flight: _Flight) -> None:
        face = flight.face
        try:
            await self._publish(self._topic.publish(face.site, face.camera), face.data)
        except NotConnectedError:
            flight.due = self._clock() + self._trip.overdue
            flight.sends -= 1
            return
        finally:
            flight.busy = False
        self._sent_bytes[face.site, face.camera] += len(face.data)
        if not self._receipts:
            self._sent.append(face.id)
            self._land(flight)
            self._wake.set()

    def _land(self, flight: _Flight) -> None:
        """It has its answer: the window opens."""
        if self._flights.pop(flight.face.id, None) and not flight.held:
            self._in_flight -= len(flight.face.data)

    def _hold(self, flight: _Flight, now: float) -> None:
        """It lies in an open shard: the window opens, the outbox keeps it."""
        if not flight.held:
            flight.held = True
            self._in_flight -= len(flight.face.data)
        flight.due = now + _HELD

    # sending again

    def _due_soon(self, within: float) -> None:
        now = self._clock()
        for flight in self._flights.values():
            flight.due = min(flight.due, now + random.uniform(0, within))  # noqa: S311 - jitter
            flight.hurried = True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            await self._flush()
            if self._connected:
                self._send_overdue(self._clock())
            self._wake.set()

    def _send_overdue(self, now: float) -> None:
        overdue = [f for f in self._flights.values() if f.due <= now and not f.busy]
        unsent = [f for f in overdue if f.sends == 0 and self._open]
        for flight in unsent:
            self._send(flight)
        again = [f for f in overdue if f.sends]
        if not again or not self._receipts:
            return
        passed_over = [f for f in again if self._heard > f.last] if self._link else []
        unheard = [f for f in again if f not in passed_over]
        for flight in passed_over:
            flight.unanswered += not flight.hurried
            if flight.unanswered >= self._max_unanswered:
                self._park(flight)
            else:
                self._send(flight)
        if unheard and (not self._link or self._silent(unheard, now)):
            self._probe(unheard, now)
        else:
            for flight in unheard:
                self._send(flight)

    def _silent(self, unheard: list[_Flight], now: float) -> bool:
        """Whether nothing at all was answered for too long."""
        since = max(self._heard, self._up_since, min(flight.first for flight in unheard))
        return now - since > max(_SILENCE, 3 * self._trip.overdue)

    def _probe(self, overdue: list[_Flight], now: float) -> None:
        """No answer at all: try one face at a time, and say so."""
        if self._link is False:
            return
        if self._probe_at is None:
            log.warning(
                "no receipt for %.0f s: is the store running, and do %s come back down the link? Nothing is"
                " lost: %d faces wait, one is sent again now and then",
                now - self._heard, "receipts/#", len(self._flights),
            )  # fmt: skip
            self._probe_at = now
        if now >= self._probe_at:
            flight = min(overdue, key=lambda f: (f.sends, f.first))
            self._send(flight)
            self._probe_at = now + self._trip.after(flight.sends)

    def _park(self, flight: _Flight) -> None:
        face = flight.face
        log.error("face %s was sent %d times and never answered, others were: parked", face.id, flight.sends)
        self._land(flight)
        self._outbox.park(face.id, "unanswered")

    async def _flush(self) -> None:
        """Write down what was sent: bytes for the books, ids where the broker's word is enough."""
        sent, self._sent = self._sent, []
        if sent:
            await asyncio.wrap_future(self._outbox.sent(sent))
        tally, self._sent_bytes = self._sent_bytes, Counter()
        for (site, camera), n in tally.items():
            self._outbox.count(site, camera, bytes=n)
