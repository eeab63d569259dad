from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from conftest import Make
from facerelay import face, picture
from facerelay.config import Camera, Config
from facerelay.edge.eyes.detect import make_detector
from facerelay.edge.line import Line
from facerelay.edge.outbox import News, Outbox
from facerelay.edge.thrift import Thrift
from facerelay.edge.turns import Turns
from facerelay.edge.watcher import Watcher
from facerelay.edge.window import Window
from facerelay.sections import PictureFormat
from test_relay import LIMITS, bench

MOST = 512_000
FACE = 9_000


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        yield outbox


class Pipe:
    """A line that carries faces one after the other, and a clock: simulated."""

    def __init__(self, *, rate: float, trip: float) -> None:
        self.rate, self.trip = rate, trip
        self.now = 0.0
        self.window = Window(most=MOST, clock=lambda: self.now)
        self.in_flight = self.delivered = 0
        self.twice = False
        self.trips: list[float] = []
        self._free = self._due = 0.0
        self._answers: list[tuple[float, str, float]] = []
        self._n = 0

    def run(self, seconds: float, *, offered: float) -> None:
        """Offer so many bytes a second for some time; what does not fit into the window is not sent."""
        end = self.now + seconds
        self._due = max(self._due, self.now)
        while self.now < end:
            self.now = min([self._due, end, *(at for at, _, _ in self._answers[:1])])
            while self._answers and self._answers[0][0] <= self.now:
                _, face_id, sent = heapq.heappop(self._answers)
                self.in_flight -= FACE
                self.delivered += FACE
                self.trips.append(self.now - sent)
                self.window.answered([(face_id, FACE)] * (1 + self.twice))
            if self._due <= self.now:
                self._due += FACE / offered
                self._offer()

    def _offer(self) -> None:
        if self.in_flight and self.in_flight + FACE > self.window.bytes:
            return
        self._n += 1
        self.window.sent(str(self._n), FACE)
        self.in_flight += FACE
        self._free = max(self._free, self.now) + FACE / self.rate
        heapq.heappush(self._answers, (self._free + self.trip, str(self._n), self.now))


def test_on_a_thin_line_the_queue_is_short_and_the_line_is_full() -> None:
    pipe = Pipe(rate=32_000, trip=0.15)
    pipe.run(30, offered=96_000)
    before, count = pipe.delivered, len(pipe.trips)
    pipe.run(300, offered=96_000)
    assert pipe.delivered - before > 0.95 * 300 * 32_000
    assert max(pipe.trips[count:]) < 1.5
    assert pipe.window.rate == pytest.approx(32_000, rel=0.1)


def test_on_a_wide_line_the_window_stays_as_it_is_set() -> None:
    pipe = Pipe(rate=45_000_000, trip=0.006)
    assert pipe.window.bytes == MOST
    pipe.run(3, offered=100_000_000)
    assert pipe.window.bytes == MOST


def test_the_window_grows_with_the_answers_up_to_what_is_set() -> None:
    window = Window(most=2_000_000, clock=lambda: 0.0)
    assert window.bytes == 512_000
    for n in range(1000):
        window.sent(str(n), FACE)
        window.answered([(str(n), FACE)])
        assert window.bytes == min(2_000_000, 512_000 + (n + 1) * FACE)


def test_a_face_that_two_stores_answer_counts_once() -> None:
    pipe = Pipe(rate=32_000, trip=0.15)
    pipe.twice = True
    pipe.run(30, offered=96_000)
    assert pipe.window.rate == pytest.approx(32_000, rel=0.15)


def test_a_lack_of_faces_says_nothing_of_the_line() -> None:
    pipe = Pipe(rate=1_000_000, trip=0.2)
    pipe.run(100, offered=3_000)
    assert pipe.window.rate is None
    assert pipe.window.bytes == MOST


def test_a_line_that_gets_wider_is_used_again() -> None:
    pipe = Pipe(rate=32_000, trip=0.15)
    pipe.run(60, offered=96_000)
    pipe.rate = 1_000_000
    pipe.run(10, offered=2_000_000)
    before = pipe.delivered
    pipe.run(60, offered=2_000_000)
    assert pipe.delivered - before > 0.9 * 60 * 1_000_000


def test_a_line_that_gets_thinner_is_not_flooded() -> None:
    pipe = Pipe(rate=1_000_000, trip=0.15)
    pipe.run(60, offered=2_000_000)
    pipe.rate = 32_000
    pipe.run(60, offered=96_000)
    count = len(pipe.trips)
    pipe.run(60, offered=96_000)
    assert max(pipe.trips[count:]) < 2


def test_a_way_that_gets_longer_is_noticed() -> None:
    pipe = Pipe(rate=100_000, trip=0.05)
    pipe.run(60, offered=300_000)
    pipe.trip = 0.6
    pipe.run(180, offered=300_000)
    before = pipe.delivered
    pipe.run(60, offered=300_000)
    assert pipe.delivered - before > 0.9 * 60 * 100_000


def test_a_face_sent_twice_tells_no_round_trip() -> None:
    pipe = Pipe(rate=32_000, trip=0.15)
    window = pipe.window
    window.sent("a", FACE)
    pipe.now = 100.0
    window.sent("a", FACE)
    pipe.now = 100.2
    window.answered([("a", FACE)])
    window.sent("b", FACE)
    window.gone("b")
    window.answered([("b", FACE)])
    assert window.bytes == MOST


def test_the_best_of_the_live_faces_goes_first(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=size + 100) as b:
            for quality in (0.5, 0.1, 0.9, 0.3):
                await b.capture(quality=quality)
            for sends in range(1, 5):
                await b.until(sends)
                await b.answer(b.wire.sent[-1])
            assert [s.face.quality for s in b.wire.sent] == [0.5, 0.9, 0.3, 0.1]

    asyncio.run(check())


def test_a_face_that_waited_for_a_second_is_live_no_more(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=size + 100) as b:
            first = await b.capture()
            await b.until(1)
            stale = [await b.capture(quality=0.9) for _ in range(2)]
            await b.pass_time(2)
            live = await b.capture(quality=0.1)
            await b.answer(first)
            for sends in (2, 3, 4):
                await b.until(sends)
                await b.answer(b.wire.sent[-1])
            wanted = [first, live, *stale]
            assert [s.face.id for s in b.wire.sent] == [f.face.id for f in wanted]
            assert outbox.waiting().result() == 0

    asyncio.run(check())


def test_after_an_outage_the_newest_face_goes_before_all_that_waited(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=2 * size + 100) as b:
            b.relay.on_link(False)
            old = [await b.capture(quality=0.9) for _ in range(30)]
            await b.pass_time(3600)
            live = await b.capture(quality=0.1)
            b.relay.on_link(True)
            for sends in range(1, 32):
                await b.until(sends)
                await b.answer(b.wire.sent[sends - 1])
            assert b.wire.sent[0].face.id == live.face.id
            assert [s.face.id for s in b.wire.sent[1:]] == [f.face.id for f in old]

    asyncio.run(check())


def test_a_camera_in_poor_light_is_not_starved_by_one_in_good_light(outbox: Outbox, make_face: Make) -> None:
    rng = random.Random(1)  # noqa: S311 - the same each time
    clock, news = Clock(), list[News]()
    line = Line(outbox, live_bytes=10**7, clock=clock)
    outbox.listener = news.append
    offered: dict[str, list[float]] = {"good": [], "poor": []}
    sent: dict[str, list[float]] = {"good": [], "poor": []}

    def tell() -> None:
        for each in news:
            line.arrived(each.arrived)
            line.gone(each.gone)
        news.clear()

    async def send() -> None:
        waiting = line.take_live(10**9) or await line.take_old(10**9)
        assert waiting is not None
        sent[waiting.camera].append(waiting.quality)
        await asyncio.wrap_future(outbox.sent([waiting.id]))
        tell()

    async def check() -> None:
        for _ in range(60):  # a quarter of a second each, in which the line carries one face of two
            for camera, light in (("good", 0.9), ("poor", 0.5)):
                quality = light + rng.uniform(-0.1, 0.1)
                frozen = make_face(camera=camera, quality=quality, outbox=outbox.id, run=outbox.run)
                await asyncio.wrap_future(outbox.put(frozen, chosen=0.0))
                offered[camera].append(quality)
            tell()
            clock.now += 0.25
            await send()

    asyncio.run(check())
    outbox.listener = None
    assert abs(len(sent["good"]) - len(sent["poor"])) <= 2
    for camera, qualities in offered.items():
        assert mean(sent[camera]) > mean(qualities) + 0.02, "the best of each camera go first"


def test_cameras_take_turns_and_the_best_of_them_begins() -> None:
    turns = Turns()
    row = itertools.count()
    for camera, qualities in (("a", (0.9, 0.8, 0.7)), ("b", (0.2,)), ("c", (0.5, 0.6))):
        for quality in qualities:
            turns.add(f"{camera}{quality}", ("home", camera), quality=quality, row=next(row))
    order = []
    while (face_id := turns.first) is not None:
        order.append(face_id)
        turns.sent(face_id)
        if len(order) == 2:
            turns.add("d0.1", ("home", "d"), quality=0.1, row=next(row))
            turns.add("a1.0", ("home", "a"), quality=1.0, row=next(row))
    assert order == ["a0.9", "c0.6", "b0.2", "d0.1", "a1.0", "c0.5", "a0.8", "a0.7"]


@pytest.mark.parametrize("seed", range(5))
def test_turns_agree_with_their_definition(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - the same each time
    turns = Turns()
    there: dict[str, tuple[str, float, int]] = {}
    done: set[str] = set()
    for row in range(3000):
        action = rng.choice(("add", "add", "sent", "drop"))
        if action == "add" and len(there) < 300:
            camera, quality = rng.choice("abcdefgh"), rng.random()
            there[str(row)] = camera, quality, row
            turns.add(str(row), ("home", camera), quality=quality, row=row)
        elif action == "drop" and there:
            face_id = rng.choice(list(there))
            del there[face_id]
            turns.drop(face_id)
        elif action == "sent" and there:
            if {camera for camera, _, _ in there.values()} <= done:
                done.clear()
            due = [key for key, (camera, _, _) in there.items() if camera not in done]
            wanted = min(due, key=lambda key: (-there[key][1], there[key][2]))
            assert turns.first == wanted
            turns.sent(wanted)
            done.add(there.pop(wanted)[0])
    assert (turns.first is None) == (not there)


def test_faces_evicted_while_they_are_live_are_not_sent(tmp_path: Path, make_face: Make) -> None:
    async def check(outbox: Outbox) -> None:
        async with bench(outbox, make_face, up=False) as b:
            for n in range(6):
                await b.capture(quality=n / 10)
            await b.pass_time(0)
            b.relay.on_link(True)
            b.relay.on_connected(True)
            await b.until(3)
            await b.pass_time(0)
            assert [s.face.quality for s in b.wire.sent] == [0.5, 0.4, 0.3]

    size = len(make_face().data)
    with Outbox(tmp_path / "small.db", max_bytes=3 * size + 100, max_message=10**6) as outbox:
        asyncio.run(check(outbox))
        books = outbox.ledger().result().cameras["home/door"]
        assert (books.dropped, books.reasons) == (3, {"evicted": 3})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def press(thrift: Thrift, clock: Clock, waiting: int, seconds: float, rate: float | None = 32_000) -> None:
    for _ in range(round(10 * seconds)):
        clock.now += 0.1
        thrift.look(waiting, rate)


def test_pictures_get_smaller_while_live_faces_wait_and_grow_again() -> None:
    clock, form = Clock(), PictureFormat()
    thrift = Thrift(min_quality=50, min_side=160, clock=clock)
    assert thrift.encoding(form, 400) == (form, None)
    press(thrift, clock, 96_000, 2)
    middle, note = thrift.encoding(form, 400)
    assert 50 < middle.quality < 90
    assert 160 < middle.max_side < 400
    assert note == face.Thinned(quality=middle.quality, side=middle.max_side)
    press(thrift, clock, 96_000, 60)
    least, _ = thrift.encoding(form, 400)
    assert (least.quality, least.max_side) == (50, 160)
    press(thrift, clock, 0, 60)
    assert thrift.encoding(form, 400) == (form, None)


def test_pictures_stay_as_they_are_where_no_limit_or_no_line_is_known() -> None:
    clock, form = Clock(), PictureFormat()
    nothing_set, no_line = Thrift(clock=clock), Thrift(min_quality=50, clock=clock)
    press(nothing_set, clock, 10**6, 60)
    press(no_line, clock, 10**6, 60, rate=None)
    assert nothing_set.encoding(form, 400) == no_line.encoding(form, 400) == (form, None)


def test_a_picture_that_does_not_get_smaller_is_not_called_thinned() -> None:
    clock = Clock()
    thrift = Thrift(min_quality=50, min_side=160, clock=clock)
    press(thrift, clock, 10**6, 60)
    png = PictureFormat(format="png")
    assert thrift.encoding(png, 150) == (png, None)
    poor = PictureFormat(quality=30)
    assert thrift.encoding(poor, 150) == (poor, None)
    assert thrift.encoding(poor, 200)[1] == face.Thinned(quality=30, side=160)


def test_the_picture_says_how_it_was_thinned_and_nothing_where_it_was_not(make_face: Make) -> None:
    note = face.Thinned(quality=50, side=160)
    thinned, plain = make_face(thinned=note), make_face()
    assert face.parse(thinned.data, LIMITS).face.thinned == note
    assert face.parse(plain.data, LIMITS).face.thinned is None
    assert b"thinned" not in plain.data
    begin = thinned.data.index(b'{"v":1')
    comment = json.JSONDecoder().raw_decode(thinned.data[begin:].decode("latin-1"))[0]
    assert comment["thinned"] == {"quality": 50, "side": 160}


def test_the_relay_tells_cameras_to_save_while_a_budget_makes_live_faces_wait(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        clock = Clock()
        thrift = Thrift(min_quality=50, clock=clock)
        size = len(make_face().data)
        async with bench(outbox, make_face, window=size + 100, thrift=thrift) as b:
            for _ in range(4):
                await b.capture()
            b.relay._window._trip = 0.1
            b.relay._window._see_rate(size / 4, 10.0, b.wire.now)
            for _ in range(40):
                clock.now += 0.5
                await asyncio.sleep(0.1)
                if thrift.level:
                    break
            assert thrift.level > 0

    asyncio.run(check())


def test_the_relay_keeps_less_in_flight_once_receipts_tell_of_a_thin_line(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        size = len(make_face().data)
        async with bench(outbox, make_face, window=100 * size) as b:
            first = await b.capture()
            await b.until(1)
            b.wire.now += 0.3
            await b.answer(first)
            for _ in range(30):
                await b.capture()
            await b.until(31)
            for sent in range(1, 22):
                b.wire.now += 0.3
                await b.answer(b.wire.sent[sent])
            for _ in range(20):
                await b.capture()
            await b.pass_time(0)
            assert len(b.wire.sent) == 31, "nine are in flight, and three would do"
            assert b.relay._window.rate == pytest.approx(size / 0.3, rel=0.05)

    asyncio.run(check())


def test_a_face_that_is_dropped_on_its_way_fills_the_line_until_its_answer(
    tmp_path: Path, make_face: Make
) -> None:
    async def check(outbox: Outbox) -> None:
        async with bench(outbox, make_face, window=2 * size + 100) as b:
            poor = [await b.capture(quality=0.1) for _ in range(2)]
            await b.until(2)
            for _ in range(4):
                await b.capture(quality=0.5)
            await b.pass_time(0)
            assert outbox.ledger().result().cameras["home/door"].dropped == 2
            assert len(b.wire.sent) == 2
            await b.answer(poor[0])
            await b.until(3)
            await b.pass_time(7)
            await b.until(4)
            assert b.wire.times[poor[1].face.id] == 1
            books = outbox.ledger().result().cameras["home/door"]
            assert (books.stored, books.dropped, books.waiting) == (1, 1, 4)

    size = len(make_face().data)
    with Outbox(tmp_path / "small.db", max_bytes=4 * size + 100, max_message=10**6) as outbox:
        asyncio.run(check(outbox))


def longest(frozen: face.Frozen) -> int:
    seen = picture.read(frozen.data, max_bytes=10**6, max_pixels=10**7)
    return max(seen.width, seen.height)


def test_a_camera_s_picture_is_thinned_and_counted(tmp_path: Path, portrait: Path) -> None:
    camera, clock = Camera(name="door", source=str(portrait)), Clock()
    thrift = Thrift(min_quality=50, min_side=100, clock=clock)
    press(thrift, clock, 10**6, 60)
    detector = make_detector("auto")
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        for each in (None, thrift):
            watcher = Watcher(
                camera, config=Config(camera=(camera,)), detector=detector, outbox=outbox,
                stop=threading.Event(), thrift=each,
            )  # fmt: skip
            watcher.run()
            assert watcher.failure is None
        full, thin = [face.parse(each.data, LIMITS) for each in outbox.backlog(0, 10**8).result()]
        books = outbox.ledger().result().cameras["home/door"]
    assert longest(full) > longest(thin) == 100
    assert full.face.thinned is None
    assert thin.face.thinned == face.Thinned(quality=50, side=100)
    assert books.reasons["thinned"] == 1
