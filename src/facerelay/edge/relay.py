"""From the outbox to the first broker: a bounded window in flight, receipts, and sending again."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final, Literal

from facerelay.edge.flights import Flight, Flights
from facerelay.edge.line import Line
from facerelay.edge.outbox import News, Outbox
from facerelay.mqtt import NotConnectedError
from facerelay.topics import FaceTopic, Hello, Receipt

log = logging.getLogger(__name__)

_TICK: Final = 0.1
_LIVE_WINDOWS: Final = 4
_STORES: Final = 64

Publish = Callable[[str, bytes], Awaitable[None]]


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
        max_unanswered: sends in vain, while later faces were answered, after which a face is parked.
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
        self._line = Line(outbox, live_bytes=_LIVE_WINDOWS * window_bytes)
        self._flights = Flights(overdue_s=overdue_s, max_unanswered=max_unanswered, clock=clock)
        self._connected = False
        self._link: bool | None = None
        self._hellos: dict[str, str] = {}
        self._spare = False
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
        if up != self._connected:
            self._connected = up
            self._on_way()

    def on_link(self, up: bool | None) -> None:  # noqa: FBT001 - a state, not a switch
        """Take note of the state of the link beyond the broker; None is not known."""
        if up == self._link:
            return  # it is repeated now and then, which is no news
        log.info("the link to the cloud is %s", {True: "up", False: "down", None: "of unknown state"}[up])
        self._link = up
        self._on_way()

    def on_hello(self, hello: Hello) -> None:
        """Send again what has no receipt when a store announces itself anew: it may have lost it."""
        before = self._hellos.get(hello.store)
        if before is None and len(self._hellos) >= _STORES:
            return
        self._hellos[hello.store] = hello.start
        if before not in (None, hello.start):
            self._flights.hurry()

    async def on_receipts(self, receipts: Iterable[Receipt]) -> None:
        """Act on a batch; returns once it is on disk, and only then opens the window.

        Raises:
            sqlite3.Error: the disk did not take it; the faces become overdue, and are answered again.
        """
        batch = list(receipts)
        if not batch:
            return
        flights = [(self._flights.get(receipt.id, receipt.sha256), receipt) for receipt in batch]
        await asyncio.wrap_future(self._outbox.answer(batch))
        for flight, receipt in flights:
            if flight is not None:
                self._flights.answered(flight, held=receipt.outcome == "held")
        if self._flights.heard():
            log.info("receipts come again")
        self._wake.set()

    @property
    def in_flight(self) -> int:
        """Bytes that were sent and have no receipt."""
        return self._flights.bytes

    def _on_commit(self, news: News) -> None:
        """From the outbox's thread: faces came, or went."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop was closed: nobody relays any more
                self._loop.call_soon_threadsafe(self._on_news, news)

    def _on_news(self, news: News) -> None:
        self._line.arrived(news.arrived)
        self._line.gone(news.gone)
        for face_id in news.gone:
            if flight := self._flights.get(face_id):
                self._flights.land(flight)
        self._wake.set()

    def _on_way(self) -> None:
        if self._open:
            self._flights.came_up()
        self._wake.set()

    # sending

    @property
    def _open(self) -> bool:
        """Whether first sends may go: not into a link that is known to be down."""
        return self._connected and self._link is not False

    async def _feed(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._open and (face := await self._line.take(self._room)):
                self._spare = False
                self._send(self._flights.add(face))

    @property
    def _room(self) -> int:
        """Bytes that may be sent now; one face may always be in flight, however large."""
        return sys.maxsize if self._spare or not self.in_flight else self._window - self.in_flight

    def _send(self, flight: Flight) -> None:
        assert self._tasks is not None  # noqa: S101 - only called while running
        self._flights.sent(flight)
        self._tasks.create_task(self._deliver(flight))

    async def _deliver(self, flight: Flight) -> None:
        face = flight.face
        try:
            await self._publish(self._topic.publish(face.site, face.camera), face.data)
        except NotConnectedError:
            self._flights.failed(flight)
            return
        finally:
            flight.busy = False
        self._sent_bytes[face.site, face.camera] += len(face.data)
        if not self._receipts:
            self._sent.append(face.id)
            self._flights.land(flight)
            self._wake.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            try:
                await self._write_down()
                await self._send_overdue()
            except sqlite3.Error as error:
                log.error("the outbox: %s: see that its disk has room", error)  # noqa: TRY400 - the message is for a user
                await asyncio.sleep(1)
            self._wake.set()

    async def _send_overdue(self) -> None:
        if not self._open:
            return
        for flight in self._flights.unsent():
            self._send(flight)
        if not self._receipts:
            return
        before = self._flights.probing
        overdue = self._flights.overdue(link_up=self._link is True)
        if overdue.probing and not before:
            self._sound_the_alarm()
        for flight in overdue.send:
            self._send(flight)
        if overdue.probing:
            # Beside the old face a fresh one: a window full of faces that no store answers must not stop all.
            self._spare = self._link is True and self.in_flight < 2 * self._window
        for flight in overdue.park:
            await self._park(flight)

    def _sound_the_alarm(self) -> None:
        log.warning(
            "no receipt for %.0f s: is the store running, and do receipts/# come back down the link?"
            " Nothing is lost: %d faces wait, one is sent again now and then",
            self._flights.silence, len(self._flights),
        )  # fmt: skip

    async def _park(self, flight: Flight) -> None:
        face = flight.face
        await asyncio.wrap_future(self._outbox.park(face.id, "unanswered"))
        self._flights.land(flight)
        log.error("face %s was sent %d times and never answered, others were: parked", face.id, flight.sends)

    async def _write_down(self) -> None:
        """Write down what was sent: bytes for the books, ids where the broker's word is enough."""
        if sent := list(self._sent):
            await asyncio.wrap_future(self._outbox.sent(sent))
            del self._sent[: len(sent)]
        tally, self._sent_bytes = self._sent_bytes, Counter()
        for (site, camera), n in tally.items():
            self._outbox.count(site, camera, bytes=n)
