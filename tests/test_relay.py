from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from conftest import Make
from facerelay import face
from facerelay.edge.budget import Budget
from facerelay.edge.outbox import Outbox
from facerelay.edge.relay import Relay
from facerelay.edge.roundtrip import RoundTrip
from facerelay.edge.thrift import Thrift
from facerelay.messages import Hello, LinkHealth, Receipt
from facerelay.mqtt import NotConnectedError
from facerelay.topics import FaceTopic

LIMITS = face.Limits()


class Wire:
    """The far side of `publish`: what was sent, whether it takes it, and a clock that the test moves."""

    def __init__(self) -> None:
        self.sent: list[face.Frozen] = []
        self.broken = False
        self.now = 1000.0

    async def publish(self, topic: str, payload: bytes) -> None:
        assert topic == "faces/home/door"
        if self.broken:
            raise NotConnectedError("cut")
        self.sent.append(face.parse(payload, LIMITS))

    @property
    def times(self) -> Counter[str]:
        return Counter(frozen.face.id for frozen in self.sent)


class Bench:
    """An outbox with its relay running, and a wire."""

    def __init__(self, outbox: Outbox, relay: Relay, wire: Wire, make: Make) -> None:
        self.outbox, self.relay, self.wire, self._make = outbox, relay, wire, make

    async def capture(self, **known: object) -> face.Frozen:
        frozen = self._make(outbox=self.outbox.id, run=self.outbox.run, seq=self.outbox.number(), **known)
        await asyncio.wrap_future(self.outbox.put(frozen, chosen=time.time()))
        return frozen

    async def until(self, sends: int) -> None:
        async with asyncio.timeout(10):
            while len(self.wire.sent) < sends:
                await asyncio.sleep(0.01)

    async def pass_time(self, seconds: float) -> None:
        self.wire.now += seconds
        await asyncio.sleep(0.35)

    async def answer(self, *faces: face.Frozen, outcome: str = "stored") -> None:
        batch = [Receipt(id=each.face.id, sha256=each.sha256, outcome=outcome) for each in faces]
        await self.relay.on_receipts(batch)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        yield outbox


@asynccontextmanager
async def bench(
    outbox: Outbox,
    make: Make,
    *,
    delivery: str = "receipt",
    window: int = 10**6,
    up: bool = True,
    budget: Budget | None = None,
    thrift: Thrift | None = None,
    expire_s: float | None = None,
    reset: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[Bench]:
    wire = Wire()
    relay = Relay(
        outbox, topic=FaceTopic("faces/{site}/{camera}"), publish=wire.publish, delivery=delivery,  # type: ignore[arg-type]
        window_bytes=window, overdue_s=5.0, max_unanswered=3, clock=lambda: wire.now,
        budget=budget, thrift=thrift, expire_s=expire_s, reset=reset,
    )  # fmt: skip
    task = asyncio.create_task(relay.run())
    if up:
        relay.on_link(True)
        relay.on_connected(True)
    try:
        yield Bench(outbox, relay, wire, make)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_the_window_bounds_what_is_in_flight(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=3 * size + 100) as b:
            faces = [await b.capture() for _ in range(8)]
            await b.until(3)
            await b.pass_time(0)
            assert [s.face.id for s in b.wire.sent] == [f.face.id for f in faces[:3]]
            await b.answer(faces[1])
            await b.until(4)
            await b.answer(*faces)
            await b.pass_time(0)
            assert b.relay.in_flight == 0
            assert outbox.waiting().result() == 0

    asyncio.run(check())


def test_so_many_are_in_flight_at_most_however_small_they_are(outbox: Outbox, make_face: Make) -> None:
    """Mosquitto queues 1,000 for a client, and drops what comes beyond."""

    async def check() -> None:
        async with bench(outbox, make_face, window=10**8) as b:
            b.relay._window._answered = 10**8
            b.wire.now += 60
            faces = [await b.capture() for _ in range(520)]
            await b.until(500)
            await b.pass_time(0)
            assert len(b.wire.sent) == 500
            await b.answer(*faces[:20])
            await b.until(520)

    asyncio.run(check())


def test_while_all_is_in_doubt_live_faces_go_beyond_by_a_quarter_and_no_more(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        async with bench(outbox, make_face, window=10**8) as b:
            b.relay._window._answered = 10**8
            for _ in range(640):
                await b.capture()
            await b.until(625)
            await b.pass_time(0)
            assert len(b.wire.sent) == 625

    asyncio.run(check())


def test_two_answers_at_once_open_the_window_once(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            first, second = await b.capture(), await b.capture()
            await b.until(2)
            await asyncio.gather(b.answer(first), b.answer(first, outcome="held"), b.answer(first))
            assert b.relay.in_flight == len(second.data)
            await b.answer(second)
            assert b.relay.in_flight == 0
            assert not b.relay._window._marks

    asyncio.run(check())


def test_live_faces_go_before_the_backlog(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=size + 100) as b:
            old = [await b.capture() for _ in range(3)]
            await b.until(1)
        async with bench(outbox, make_face, window=size + 100) as b:
            await b.until(1)
            live = await b.capture()
            await b.answer(old[0])
            await b.until(2)
            await b.answer(live)
            await b.until(3)
            assert [s.face.id for s in b.wire.sent] == [f.face.id for f in (old[0], live, old[1])]

    asyncio.run(check())


def test_more_live_faces_than_memory_join_the_backlog(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=size + 100) as b:
            faces = [await b.capture() for _ in range(40)]
            for sent in range(1, 41):
                await b.until(sent)
                await b.answer(b.wire.sent[-1])
            assert {s.face.id for s in b.wire.sent} == {f.face.id for f in faces}
            assert max(b.wire.times.values()) == 1

    asyncio.run(check())


def test_what_a_silent_outage_holds_up_is_not_sent_over_and_over(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=20 * size) as b:
            for _ in range(30):
                await b.capture()
            await b.until(20)
            before = len(b.wire.sent)
            for _ in range(12):  # seconds beyond the time for a receipt, the link said to be up
                await b.pass_time(1)
            assert len(b.wire.sent) - before <= 4, "a probe or two, and a fresh face beside each"

    asyncio.run(check())


def test_a_live_face_need_not_wait_for_what_an_outage_has_swallowed(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=8 * size + 100) as b:
            b.wire.now += 60
            for _ in range(12):
                await b.capture()
            await b.until(8)
            b.relay.on_link(False)
            b.wire.now += 600
            b.relay.on_link(True)
            fresh = await b.capture(quality=0.9)
            await b.until(9)
            assert b.wire.sent[8].face.id == fresh.face.id

    asyncio.run(check())


def test_nothing_is_sent_into_a_link_that_is_down(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            b.relay.on_link(False)
            await b.capture()
            await b.pass_time(100)
            assert b.wire.sent == []
            b.relay.on_link(True)
            await b.until(1)

    asyncio.run(check())


def test_an_overdue_face_is_sent_again_only_while_the_link_is_up(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            frozen = await b.capture()
            await b.until(1)
            b.relay.on_link(False)
            await b.pass_time(100)
            assert len(b.wire.sent) == 1
            b.relay.on_link(True)
            await b.pass_time(1)
            assert len(b.wire.sent) == 1
            await b.pass_time(6)
            assert b.wire.times == {frozen.face.id: 2}

    asyncio.run(check())


def test_a_link_state_said_again_puts_nothing_off(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            await b.capture()
            await b.until(1)
            for _ in range(8):
                b.wire.now += 1
                b.relay.on_link(True)
            await b.until(2)

    asyncio.run(check())


def test_a_cut_while_publishing_sends_again(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            b.wire.broken = True
            await b.capture()
            await b.pass_time(0)
            b.relay.on_connected(False)
            b.wire.broken = False
            b.relay.on_connected(True)
            await b.until(1)

    asyncio.run(check())


def test_a_store_that_announces_itself_anew_gets_what_it_may_have_lost(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            b.relay.on_hello(Hello(store="s", start="a" * 8))
            await b.capture()
            await b.until(1)
            b.relay.on_hello(Hello(store="s", start="a" * 8))
            await b.pass_time(2)
            assert len(b.wire.sent) == 1
            b.relay.on_hello(Hello(store="s", start="b" * 8))
            await b.pass_time(2)
            assert len(b.wire.sent) == 2

    asyncio.run(check())


def test_with_no_answer_at_all_it_probes_with_one_face_and_says_so(
    outbox: Outbox, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            faces = [await b.capture() for _ in range(10)]
            await b.until(10)
            await b.pass_time(40)
            assert len(b.wire.sent) == 11
            assert "no receipt for" in caplog.text
            await b.pass_time(1)
            assert len(b.wire.sent) == 11
            await b.pass_time(60)
            assert len(b.wire.sent) == 12
            assert outbox.waiting().result() == 10
            await b.answer(faces[0])
            await b.pass_time(6)
            assert {b.wire.times[f.face.id] for f in faces} <= {2, 3}, "all are sent again, none is forgotten"

    asyncio.run(check())


def test_a_link_that_is_up_and_silent_is_made_anew_more_and_more_seldom(
    outbox: Outbox, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        resets: list[float] = []

        async def reset() -> None:
            resets.append(b.wire.now)

        async with bench(outbox, make_face, reset=reset) as b:
            face_ = await b.capture()
            await b.until(1)
            begin = b.wire.now
            for _ in range(40):
                b.wire.now += 20
                await asyncio.sleep(0.12)
            after = [round(at - begin) for at in resets]
            assert len(after) == 3
            assert ((await b.relay.pulse.take(resets=3)).silent_s or 0) > 600
            assert 60 <= after[0] <= 120
            assert 120 <= after[1] - after[0] <= 180
            assert 240 <= after[2] - after[1] <= 300
            assert "restart that broker" in caplog.text
            b.relay.on_link(False)
            await b.pass_time(5000)
            assert len(resets) == 3, "the link is down, and that is reason enough"
            b.relay.on_link(True)
            await b.answer(face_)
            await b.pass_time(5000)
            assert len(resets) == 3, "nothing is owed any more"
            health = await b.relay.pulse.take(resets=3)
            assert (health.cuts, health.silent_s) == (1, None)

    asyncio.run(check())


def test_a_store_that_answers_at_last_makes_the_next_silence_begin_anew(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        resets: list[float] = []

        async def reset() -> None:
            resets.append(b.wire.now)

        async with bench(outbox, make_face, reset=reset) as b:
            for count in (1, 2):
                face_ = await b.capture()
                for _ in range(8):
                    await b.pass_time(20)
                assert len(resets) == count
                await b.answer(face_)
                await b.pass_time(1)

    asyncio.run(check())


def test_the_same_trouble_with_the_disk_is_said_once_a_minute(
    outbox: Outbox, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with bench(outbox, make_face, delivery="broker") as b:
            with sqlite3.connect(outbox.path) as db:
                db.execute("CREATE TRIGGER full BEFORE UPDATE ON faces BEGIN SELECT RAISE(FAIL, 'full'); END")
            db.close()
            await b.capture()
            await b.until(1)
            failures = 0
            async with asyncio.timeout(20):
                while failures < 2:
                    failures = len([r for r in caplog.records if "see that its disk has room" in r.message])
                    if failures and b.relay._seldom._unsaid.get("disk"):
                        break
                    await asyncio.sleep(0.05)
            assert failures == 1
            with sqlite3.connect(outbox.path) as db:
                db.execute("DROP TRIGGER full")
            db.close()
            async with asyncio.timeout(20):
                while outbox.waiting().result():
                    await asyncio.sleep(0.05)

    asyncio.run(check())


def test_the_figures_of_the_link_are_those_of_what_happened(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face, window=10**6) as b:
            idle = await b.relay.pulse.take(resets=0)
            assert (idle.oldest_s, idle.round_trip_s, idle.up_bytes_s, idle.in_flight) == (None, None, 0, 0)
            assert (idle.broker_dropped, idle.cuts, idle.resets) == (None, 0, 0)
            assert 0 < idle.window == b.relay._window.bytes
            first = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
            await asyncio.wrap_future(outbox.put(first, chosen=time.time() - 300))
            second = await b.capture()
            await b.until(2)
            b.wire.now += 4
            await b.answer(second)
            for payload in (b"17", b"-1", b"x", b"9" * 4000, b""):
                b.relay.pulse.on_broker(payload)
            health = await b.relay.pulse.take(resets=2)
            assert health.oldest_s == pytest.approx(300, abs=30)
            assert health.round_trip_s == pytest.approx(4)
            assert health.up_bytes_s == round((len(first.data) + len(second.data)) / 4)
            assert health.in_flight == len(first.data)
            assert (health.broker_dropped, health.resets) == (17, 2)
            b.wire.now += 10
            assert (await b.relay.pulse.take(resets=2)).up_bytes_s == 0
            note = outbox.noted("link").result()
            assert LinkHealth.from_bytes((note or "").encode()).in_flight == len(first.data)

    asyncio.run(check())


def test_a_face_that_alone_is_never_answered_is_parked(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            poison = await b.capture()
            await b.until(1)
            for _ in range(4):
                b.wire.now += 1
                await b.answer(await b.capture())
                await b.pass_time(65)
            books = outbox.ledger().result().cameras["home/door"]
            assert books.reasons == {"unanswered": 1}
            assert books.closes
            sends = b.wire.times[poison.face.id]
            await b.pass_time(500)
            assert b.wire.times[poison.face.id] == sends == 3
            await b.answer(poison)
            assert outbox.ledger().result().cameras["home/door"].refused == 0

    asyncio.run(check())


def test_a_window_full_of_faces_that_no_store_answers_stops_nobody_for_ever(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=2 * size + 100) as b:
            poison = {(await b.capture()).face.id for _ in range(2)}
            await b.until(2)
            good = [await b.capture() for _ in range(4)]
            for _ in range(40):
                await b.answer(*(s for s in b.wire.sent if s.face.id not in poison))
                b.wire.now += 15
                await asyncio.sleep(0.25)
                if outbox.waiting().result() == 0:
                    break
            books = outbox.ledger().result().cameras["home/door"]
            assert books.stored == len(good)

    asyncio.run(check())


def test_a_slow_link_is_given_its_time(outbox: Outbox, make_face: Make) -> None:
    """A line that carries a face each four seconds, with a window of twelve: nothing is sent thrice."""

    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=12 * size + 100) as b:
            faces = [await b.capture() for _ in range(12)]
            await b.until(12)
            for face_ in faces:
                b.wire.now += 4
                await asyncio.sleep(0.15)
                await b.answer(face_)
            books = outbox.ledger().result().cameras["home/door"]
            assert (books.stored, books.refused) == (12, 0)
            assert max(b.wire.times.values()) <= 2

    asyncio.run(check())


def test_a_link_that_flaps_does_not_starve_sending_again(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            await b.capture()
            await b.until(1)
            for _ in range(6):
                await b.pass_time(10)
                b.relay.on_link(False)
                b.wire.now += 4
                b.relay.on_link(True)
            assert len(b.wire.sent) >= 4

    asyncio.run(check())


def test_receipts_that_the_disk_does_not_take_leave_the_faces_in_flight(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            frozen = await b.capture()
            await b.until(1)
            with sqlite3.connect(outbox.path) as db:
                full = "SELECT RAISE(ABORT, 'the disk is full')"
                db.execute(f"CREATE TRIGGER full BEFORE UPDATE ON faces BEGIN {full}; END")
            db.close()
            with pytest.raises(sqlite3.Error):
                await b.answer(frozen)
            assert b.relay.in_flight == len(frozen.data)
            with sqlite3.connect(outbox.path) as db:
                db.execute("DROP TRIGGER full")
            db.close()
            await b.answer(frozen)
            assert outbox.waiting().result() == 0

    asyncio.run(check())


def test_a_held_face_frees_the_window_not_the_outbox(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face) as b:
            frozen = await b.capture()
            await b.until(1)
            await b.answer(frozen, outcome="held")
            assert b.relay.in_flight == 0
            assert outbox.waiting().result() == 1
            await b.pass_time(120)
            assert len(b.wire.sent) == 1
            await b.answer(frozen)
            assert outbox.waiting().result() == 0

    asyncio.run(check())


@pytest.mark.parametrize("delivery", ["fast", "broker"])
def test_without_receipts_a_face_goes_on_the_brokers_word(
    outbox: Outbox, make_face: Make, delivery: str
) -> None:
    async def check() -> None:
        async with bench(outbox, make_face, delivery=delivery) as b:
            await b.capture()
            await b.until(1)
            await b.pass_time(0)
            books = outbox.ledger().result().cameras["home/door"]
            assert (books.sent, books.stored, books.waiting) == (1, 0, 0)
            assert books.closes
            assert books.bytes == len(b.wire.sent[0].data)

    asyncio.run(check())


def test_a_receipt_is_overdue_by_the_round_trips_that_were_seen() -> None:
    trip = RoundTrip(first=5.0, least=0.1)
    assert trip.overdue == 5.0
    trip.seen(1.0)
    assert trip.overdue == pytest.approx(3.0)
    for _ in range(200):
        trip.seen(1.0)
    assert trip.overdue == pytest.approx(1.0, abs=0.01)
    assert [round(trip.after(n)) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 32, 32]
