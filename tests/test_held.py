"""Faces that a store holds in an open shard: what the edge keeps of them, and when it sends them again."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import Make
from facerelay import alarms, face
from facerelay.edge.held import LAST_S, Held, Holder
from facerelay.edge.line import Line
from facerelay.edge.outbox import Outbox, Waiting
from facerelay.edge.relay import Relay
from facerelay.messages import Hello, Ledger, Receipt
from facerelay.topics import FaceTopic
from waiting import until

WINDOW = 200_000
SMALL = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
STORE = Holder("s", None, "a" * 16)


class Bench:
    """A relay on a clock of the test's, and a store that holds whatever it gets."""

    def __init__(self, outbox: Outbox, make: Make) -> None:
        self.outbox, self._make = outbox, make
        self.now = 1000.0
        self.sent: Counter[str] = Counter()
        self.most_in_flight = 0
        self.holder: Holder | None = STORE
        self.faces: dict[str, face.Frozen] = {}
        self.relay = Relay(
            outbox, topic=FaceTopic("faces/{site}/{camera}"), publish=self._publish, delivery="receipt",
            window_bytes=WINDOW, overdue_s=5.0, max_unanswered=3, clock=lambda: self.now,
        )  # fmt: skip
        self._answers: list[Receipt] = []

    async def _publish(self, _topic: str, payload: bytes) -> None:
        one = face.parse(payload, face.Limits())
        self.sent[one.face.id] += 1
        self.most_in_flight = max(self.most_in_flight, self.relay.in_flight)
        self._answers.append(Receipt(id=one.face.id, sha256=one.sha256, outcome="held"))

    async def capture(self, count: int, **known: object) -> list[face.Frozen]:
        made = []
        for _ in range(count):
            seq = self.outbox.number()
            one = self._make(SMALL, outbox=self.outbox.id, run=self.outbox.run, seq=seq, **known)
            put = self.outbox.put(one, chosen=one.face.time.timestamp())
            made.append(one)
        await asyncio.wrap_future(put)
        self.faces |= {one.face.id: one for one in made}
        return made

    async def answer(self) -> None:
        """Play the store: until cancelled, whatever comes is held."""
        while True:
            await asyncio.sleep(0.005)
            answers, self._answers = self._answers, []
            if answers and self.holder is not None:
                await self.relay.on_receipts(answers, self.holder)

    async def settle(self, *ids: str, outcome: str = "stored") -> None:
        faces = [self.faces[face_id] for face_id in ids or self.faces]
        for at in range(0, len(faces), 500):
            batch = [
                Receipt(id=one.face.id, sha256=one.sha256, outcome=outcome) for one in faces[at : at + 500]
            ]
            await self.relay.on_receipts(batch, STORE)

    async def held(self, count: int) -> None:
        """Wait until so many are held, and no other."""
        end = time.monotonic() + 60
        while (await self.relay.pulse.look(resets=0)).held != count:
            assert time.monotonic() < end, "it did not come to pass"
            await asyncio.sleep(0.05)

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(1.3)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6, sync="normal") as outbox:
        yield outbox


@asynccontextmanager
async def bench(outbox: Outbox, make: Make) -> AsyncIterator[Bench]:
    b = Bench(outbox, make)
    tasks = [asyncio.create_task(b.relay.run()), asyncio.create_task(b.answer())]
    b.relay.on_link(True)
    b.relay.on_connected(True)
    b.relay.on_hello(Hello(store="s", start="1" * 8, run=STORE.run))
    try:
        yield b
    finally:
        for task in tasks:
            assert not task.done(), task.exception()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def test_twenty_thousand_held_faces_are_not_in_memory_and_go_again_within_the_window(
    outbox: Outbox, make_face: Make
) -> None:
    count = 20_000

    async def check() -> None:
        async with bench(outbox, make_face) as b:
            await b.capture(count)
            await b.held(count)
            await b.pass_time(1)
            assert sum(isinstance(one, Waiting) for one in gc.get_objects()) < 100
            assert b.relay.in_flight == 0
            b.relay.on_hello(Hello(store="s", start="2" * 8, run="b" * 16))
            b.holder = b.holder and b.holder._replace(run="b" * 16)
            b.most_in_flight = 0
            await b.pass_time(11)
            await until(lambda: b.sent.total() == 2 * count)
            assert set(b.sent.values()) == {2}
            assert b.most_in_flight <= WINDOW
            await b.held(count)
            await b.settle()
            assert outbox.waiting().result() == 0
            await b.held(0)

    asyncio.run(check())


def waiting(one: face.Frozen, row: int = 1) -> Waiting:
    known = one.face
    return Waiting(row, known.id, one.sha256, known.site, known.camera, known.outbox, one.data, 0.5)


@pytest.mark.parametrize(
    ("hello", "again"),
    [
        (Hello(store="s", start="2" * 8, run=STORE.run), 0),
        (Hello(store="s", start="2" * 8, run="b" * 16, instance="pod-2"), 0),
        (Hello(store="other", start="2" * 8, run="b" * 16), 0),
        (Hello(store="s", start="2" * 8, run="b" * 16), 20),
        (Hello(store="s", start="2" * 8), 20),
        (Hello(store="other", start="2" * 8, run="b" * 16, lost=("c" * 16, "a" * 16)), 20),
    ],
    ids=["reconnected", "a-pod-beside-it", "another", "anew", "an-older-version", "lost"],
)
def test_what_a_process_held_goes_again_when_that_process_is_gone(
    make_face: Make, hello: Hello, again: int
) -> None:
    now = 1000.0
    held = Held(clock=lambda: now)
    faces = [make_face(SMALL) for _ in range(40)]
    for row, one in enumerate(faces):
        held.add(waiting(one, row), STORE if row < 20 else Holder("t", None, "d" * 16))
    held.on_hello(hello)
    assert held.due() == []
    now += 11
    assert [one.id for one in held.due()] == [one.face.id for one in faces[:again]]
    assert len(held) == 40 - again


def test_an_old_hello_said_again_sends_nothing_again(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            await b.capture(20)
            await b.held(20)
            b.relay.on_hello(Hello(store="s", start="1" * 8, run="b" * 16))
            await b.pass_time(11)
            assert b.sent.total() == 20

    asyncio.run(check())


def test_the_first_word_of_a_store_may_be_that_another_fell(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            await b.capture(20)
            await b.held(20)
            b.relay.on_hello(Hello(store="other", start="1" * 8, run="b" * 16, lost=(str(STORE.run),)))
            await b.pass_time(11)
            assert b.sent.total() == 40

    asyncio.run(check())


def test_what_is_held_for_too_long_goes_again_from_the_disk(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            first = await b.capture(100)
            await b.held(100)
            await b.pass_time(LAST_S - 1)
            later = await b.capture(50)
            await b.held(150)
            await b.pass_time(2)
            await until(lambda: b.sent.total() == 250)
            assert {b.sent[one.face.id] for one in first} == {2}
            assert {b.sent[one.face.id] for one in later} == {1}
            await b.held(150)

    asyncio.run(check())


def test_while_nobody_answers_what_is_held_is_held_still(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            first = await b.capture(20)
            await b.held(20)
            b.holder = None
            await b.capture(1)
            await until(lambda: b.sent.total() == 21)
            await b.pass_time(60)
            await until(lambda: b.relay._flights.probing)
            await b.pass_time(LAST_S + 1)
            assert {b.sent[one.face.id] for one in first} == {1}
            b.holder = STORE
            await b.pass_time(LAST_S / 2)  # the next probe is due
            await until(lambda: {b.sent[one.face.id] for one in first} == {2})

    asyncio.run(check())


def test_a_parked_face_that_goes_again_while_a_page_is_read_is_not_passed_over(
    outbox: Outbox, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        made = []
        for _ in range(6):
            one = make_face(SMALL, outbox=outbox.id, run=outbox.run, seq=outbox.number())
            outbox.put(one, chosen=time.time())
            made.append(one.face.id)
        outbox.park(made[2], "version").result()
        line, real = Line(outbox, live_bytes=0), outbox.backlog

        def backlog(after: int, most: int) -> Future[list[Waiting]]:
            page = real(after, most)
            page.result()
            for kept in outbox.resend(0, 10).result():
                line.again(kept.row)
            return page

        monkeypatch.setattr(outbox, "backlog", backlog)
        taken = []
        while (waits := await line.take_old(10**6)) is not None:
            taken.append(waits.id)
        assert taken == made

    asyncio.run(check())


def test_a_held_face_whose_row_is_another_now_is_found_all_the_same(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            made = await b.capture(3)
            await b.held(3)
            kept = b.relay._held._kept  # as after a damaged file was replaced
            kept[made[1].face.id] = kept[made[1].face.id]._replace(row=1000)
            await b.pass_time(LAST_S + 1)
            await until(lambda: b.sent.total() == 6)
            assert set(b.sent.values()) == {2}

    asyncio.run(check())


def test_a_held_face_that_was_given_up_is_stored_all_the_same(tmp_path: Path, make_face: Make) -> None:
    async def check(outbox: Outbox) -> None:
        async with bench(outbox, make_face) as b:
            made = await b.capture(10)
            await b.held(10)
            await asyncio.wrap_future(outbox.expire(time.time() + 60, 4))
            await b.held(6)
            account = outbox.ledger().result().cameras["home/door"]
            assert (account.waiting, account.dropped, account.closes) == (6, 4, True)
            await b.settle(*(one.face.id for one in made))
            account = outbox.ledger().result().cameras["home/door"]
            assert (account.stored, account.waiting, account.dropped, account.closes) == (10, 0, 0, True)

    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        asyncio.run(check(outbox))


def test_no_alarm_rings_for_what_is_held_for_minutes_but_for_what_waits_and_what_never_ends(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            now = datetime.now(UTC)
            await b.capture(5, time=now - timedelta(seconds=280))
            await b.held(5)
            await b.pass_time(280)
            assert await rung(b) == set()
            b.holder = None  # a store that is silent
            await b.capture(1, time=now - timedelta(seconds=200))
            await until(lambda: b.sent.total() == 6)
            assert "late" in await rung(b)
            await b.settle()
            await b.held(0)
            assert "late" not in await rung(b)
            b.holder = STORE
            await b.capture(1, time=now - timedelta(seconds=LAST_S + 60))
            await b.held(1)
            assert "late" in await rung(b)

    async def rung(b: Bench) -> set[str]:
        books = Ledger.model_validate(outbox.ledger().result().model_dump())
        books = books.model_copy(update={"link": await b.relay.pulse.look(resets=0)})
        now = datetime.now(UTC)
        return {alarm.kind for alarm in alarms.find([alarms.Report("home", books, heard=now)], now=now)}

    asyncio.run(check())


def test_a_receipt_of_other_bytes_is_not_taken_for_the_last_one(make_face: Make) -> None:
    held, one = Held(clock=lambda: 5.0), make_face()
    known = one.face
    held.add(waiting(one), STORE)
    assert held.for_s(Receipt(id=known.id, sha256="0" * 64, outcome="stored")) is None
    assert held.for_s(Receipt(id=known.id, sha256=one.sha256, outcome="stored")) == 0
    held.gone([known.id])
    assert len(held) == 0
    assert held.due() == []
