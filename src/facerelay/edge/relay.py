"""From the outbox to the first broker: a bounded window in flight, receipts, and sending again."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, Literal

from facerelay.edge.answers import Answers
from facerelay.edge.budget import NOTE, Budget
from facerelay.edge.expiry import Expiry
from facerelay.edge.flights import Flight, Flights, Stores
from facerelay.edge.headroom import Headroom
from facerelay.edge.held import Held, Holder
from facerelay.edge.line import Line
from facerelay.edge.outbox import News, Outbox
from facerelay.edge.pulse import Pulse
from facerelay.edge.resending import Resending
from facerelay.edge.sent import Sent
from facerelay.edge.silence import Silence
from facerelay.edge.spans import Spans
from facerelay.edge.thrift import Thrift
from facerelay.edge.way import Way
from facerelay.edge.window import Window
from facerelay.messages import Hello, Receipt
from facerelay.mqtt import NotConnectedError
from facerelay.seldom import Seldom
from facerelay.topics import FaceTopic
from facerelay.tracing import OFF, Tracer

log = logging.getLogger(__name__)

_TICK: Final = 0.1
_REST_S: Final = 1.0
"""Between two looks while nothing is on its way and nothing waits to go."""

_LIVE_WINDOWS: Final = 4
NOBODY: Final = Holder("")
Publish = Callable[[str, bytes], Awaitable[None]]


class Relay:
    """Keeps the window full while the link is up; acts on receipts; sends again what is overdue.

    Live faces go first, then what is sent again; the backlog fills the rest. With no receipt at all it
    probes with one face at a time and says so, and never falls back to less than was asked for.

    Args:
        outbox: where faces wait.
        topic: where they are published.
        publish: hands one message to the broker, and returns when its quality of service is fulfilled.
        delivery: `receipt`, or `fast` and `broker`, where the broker's word is enough.
        window_bytes: in flight without a receipt, at most (one face may always be); fewer where receipts
            tell of a line on which so many would queue.
        overdue_s: how long a receipt may take before round trips were seen.
        max_unanswered: sends in vain, while later faces were answered, after which a face is parked.
        budget: what may be sent per second and per day; none if not given.
        thrift: is told how the line copes; cameras ask it how to encode.
        reset: makes the connections anew, for a link that is up and carries nothing.
        expire_s: a face that was chosen so long ago and still waits is dropped, counted as expired.
        trace: is told of each send and each receipt.
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
        budget: Budget | None = None,
        thrift: Thrift | None = None,
        reset: Callable[[], Awaitable[None]] | None = None,
        expire_s: float | None = None,
        trace: Tracer = OFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._topic = topic
        self._publish = publish
        self._receipts = delivery == "receipt"
        self._window = Window(most=window_bytes, clock=clock)
        self._line = Line(outbox, live_bytes=_LIVE_WINDOWS * window_bytes, clock=clock)
        self._budget = budget or Budget(clock=clock)
        self._thrift = thrift or Thrift(clock=clock)
        self._expiry = Expiry(outbox, after_s=expire_s, clock=clock)
        self._flights = Flights(overdue_s=overdue_s, max_unanswered=max_unanswered, clock=clock)
        self._headroom = Headroom(self._flights, self._window)
        self._held = Held(clock=clock)
        self._way = Way()
        self._stores = Stores()
        self._sent = Sent(outbox, clock=clock)
        self._silence = Silence(self._flights, reset=reset, clock=clock)
        self._seldom = Seldom(log, every_s=60.0)
        self._spans = Spans(trace)
        self._answers = Answers(
            outbox, flights=self._flights, held=self._held, line=self._line, window=self._window,
            spans=self._spans,
        )  # fmt: skip
        self._resending = Resending(
            outbox, flights=self._flights, line=self._line, window=self._window, spans=self._spans
        )
        self.pulse = Pulse(outbox, flights=self._flights, window=self._window, sent=self._sent)
        self.pulse.held = lambda: (len(self._held), self._behind)
        self._wake = asyncio.Event()
        self._busy = asyncio.Event()
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
            self._sent.count()

    def on_connected(self, up: bool) -> None:  # noqa: FBT001 - the shape of a session's callback
        """Take note of the session's state."""
        if self._way.see_connection(up=up):
            self._on_way()

    def on_link(self, up: bool | None) -> None:  # noqa: FBT001 - a state, not a switch
        """Take note of the state of the link beyond the broker; None is not known."""
        if self._way.see_link(up=up):
            self.pulse.cuts = self._way.cuts
            self._on_way()

    def on_hello(self, hello: Hello) -> None:
        """Send again what has no receipt when a store announces itself anew: it may have lost it."""
        if self._stores.knows(hello):
            return
        if self._stores.began(hello):
            self._flights.hurry()
        self._held.on_hello(hello)

    async def on_receipts(self, receipts: Iterable[Receipt], holder: Holder = NOBODY) -> None:
        """Act on a batch; returns once it is on disk, and only then opens the window.

        Args:
            receipts: what became of faces.
            holder: whose word it is.

        Raises:
            sqlite3.Error: the disk did not take it; the faces become overdue, and are answered again.
        """
        if await self._answers.take(list(receipts), holder):
            self._flights.heard()
        self._wake.set()

    @property
    def link(self) -> bool | None:
        """Whether the way to the cloud is up; None where that is not known."""
        return self._way.link

    @property
    def held(self) -> int:
        """Faces that a store holds in an open shard: their last receipt comes within minutes."""
        return len(self._held)

    @property
    def in_flight(self) -> int:
        """Bytes that were sent and have no receipt."""
        return self._flights.bytes

    @property
    def _carries(self) -> float | None:
        """Bytes per second that go, as far as anything is known to limit them."""
        return min((rate for rate in (self._window.rate, self._budget.per_second) if rate), default=None)

    def _on_commit(self, news: News) -> None:
        """From the outbox's thread: faces came, or went."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop was closed: nobody relays any more
                self._loop.call_soon_threadsafe(self._on_news, news)

    def _on_news(self, news: News) -> None:
        self._line.arrived(news.arrived)
        self._line.gone(news.gone)
        self._held.gone(news.gone)
        if news.again:
            self._line.again(news.again)
        self._wake.set()

    def _on_way(self) -> None:
        if self._way.open:
            self._flights.came_up()
        self._wake.set()

    async def _restore(self) -> None:
        while True:
            try:
                return self._budget.restore(await asyncio.wrap_future(self._outbox.noted(NOTE)))
            except sqlite3.Error as error:
                await self._bear(error)

    async def _feed(self) -> None:
        await self._restore()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._way.open and self._budget.open and (flight := await self._next()):
                    self._send(flight)
            except sqlite3.Error as error:
                await self._bear(error)

    async def _next(self) -> Flight | None:
        """Live faces, then what is to be sent again, then the backlog."""
        face = self._line.take_live(self._headroom.live_bytes)
        if face is None and (flight := self._resending.take()):
            return flight
        face = face or await self._line.take_old(self._headroom.bytes)
        if face is None:
            return None
        self._headroom.taken()
        return self._flights.add(face)

    @property
    def _behind(self) -> int:
        """The row behind which all faces lie that wait and are not held."""
        return min((self._line.behind, *(flight.face.row - 1 for flight in self._flights)))

    def _send(self, flight: Flight) -> None:
        assert self._tasks is not None  # noqa: S101 - only called while running
        self._busy.set()
        self._flights.sent(flight)
        self._window.sent(flight.face.id, len(flight.face.data))
        self._budget.spend(len(flight.face.data))
        self._tasks.create_task(self._deliver(flight))

    async def _deliver(self, flight: Flight) -> None:
        face, began = flight.face, time.time()
        try:
            await self._publish(self._topic.publish(face.site, face.camera), face.data)
        except NotConnectedError:
            self._spans.published(flight, began, fault="not connected")
            self._flights.failed(flight)
            self._window.gone(face.id)
            return
        finally:
            flight.busy = False
        self._spans.published(flight, began)
        self._sent.add(face, gone=not self._receipts)
        if not self._receipts:
            self._spans.ended(flight, "sent")
            self._flights.land(flight)
            self._window.gone(face.id)
            self._wake.set()

    async def _watch(self) -> None:
        while True:
            await self._pause()
            try:
                await self._sent.write_down()
                if note := self._budget.news():
                    self._outbox.note(NOTE, note)
                if not (self._flights and self._flights.probing):  # while nobody answers, it is held still
                    self._line.back(self._held.due())
                await self._send_overdue()
                await self._expiry.look()
            except sqlite3.Error as error:
                await self._bear(error)
            await self._silence.look(link_up=self.link is True)
            self._budget.tell()
            if self._way.open and not self._budget.day_is_spent:
                self._thrift.look(self._line.live_bytes, self._carries)
            self._wake.set()

    async def _pause(self) -> None:
        """Wait for the next look: a second where there is nothing to look at, unless there is meanwhile."""
        await asyncio.sleep(_TICK)
        self._busy.clear()
        if self._flights or self._sent.owed or self._line.live_bytes or not self._budget.open:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_S - _TICK):
                await self._busy.wait()

    async def _bear(self, error: sqlite3.Error) -> None:
        """Say that the disk fails, and give it a moment; nothing is lost, it is tried again."""
        self._seldom.say(logging.ERROR, "disk", "the outbox: %s: see that its disk has room", error)
        await asyncio.sleep(1)

    async def _send_overdue(self) -> None:
        if not self._way.open or not self._budget.open:
            return
        self._resending.add(self._flights.unsent())
        if not self._receipts:
            return
        overdue = self._flights.overdue(link_up=self.link is True)
        self._resending.add(overdue.send)
        if overdue.probing:
            self._headroom.spare(link_up=self.link is True)
        for flight in overdue.park:
            await self._resending.park(flight)
