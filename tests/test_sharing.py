"""Stores that share the work: who takes faces, whose the ledgers are, what a start or an end costs."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

import enrolled
from chains import Part, eventually, facerelay
from conftest import lacking
from enrolled import Enrolled
from facerelay import messages, sections, settings, topics
from facerelay.cloud import housekeeping
from facerelay.cloud.greeter import Greeter
from facerelay.cloud.heard import Heard
from facerelay.cloud.housekeeping import Housekeeping
from facerelay.cloud.intake import Intake
from facerelay.cloud.peers import BEAT_S, GONE_S, Peers
from facerelay.cloud.store import _Store, serve_store
from facerelay.cloud.voice import Voice
from facerelay.commands import enrol
from facerelay.commands.running import connector
from facerelay.config import Broker, Config
from facerelay.fleet import join, read_bundle
from facerelay.link.greeting import RefusedError, see_suback
from facerelay.link.session import Session
from facerelay.messages import Account, Beat, Hello, Ledger
from facerelay.metrics import Meters, catalogue
from facerelay.mqtt import Message
from facerelay.sections import Trust
from facerelay.settings import ConfigError
from facerelay.tracing import OFF
from servers import MOSQUITTO, Server, mosquitto, nats
from test_session import run, session
from waiting import running, until

HERE = Path(__file__).parent
NOWHERE = Peers("any").word().keeps
WORDS = [f"ledger/home/{n:032x}" for n in range(300)]


# Who is at work, and whose a word is.


class Hall:
    """Stores that hear each other's beats at once, by a clock of their own."""

    def __init__(self, *names: str, **more: Any) -> None:  # noqa: ANN401 - of each store
        self.now = 100.0
        self.stores = [self.store(name, **more) for name in names]
        self.lost: list[str] = []

    def store(self, name: str, **more: Any) -> Peers:  # noqa: ANN401 - as above
        one = Peers(name, clock=lambda: self.now, **more)
        one.on_loss = lambda _: self.lost.append(one.topic)
        one.on_state(True)
        return one

    def beat(self, *silent: Peers) -> None:
        """Have all but some say that they are there, and all hear it."""
        for one in self.stores:
            if one not in silent:
                self.say(one)
        for one in self.stores:
            one.settle()
            one.look()

    def pass_time(self, seconds: float) -> None:
        """Have them beat until so much time is over."""
        end = self.now + seconds
        while self.now < end:
            self.now += BEAT_S
            self.beat()

    def say(self, one: Peers, **more: Any) -> None:  # noqa: ANN401 - fields of a beat
        for other in self.stores:
            other.hear(one.topic, one.word(**more).to_bytes())

    def owners(self) -> dict[str, list[Peers]]:
        return {word: [one for one in self.stores if one.owns(word)] for word in WORDS}


def test_each_word_has_one_owner_and_only_the_share_of_who_goes_moves() -> None:
    hall = Hall("a", "b", "c", "d")
    hall.beat()
    before = hall.owners()
    assert {len(owners) for owners in before.values()} == {1}
    shares = Counter(owners[0].topic for owners in before.values())
    assert all(45 < n < 105 for n in shares.values()), shares
    gone = hall.stores.pop()
    hall.pass_time(GONE_S + 1)
    after = hall.owners()
    assert {len(owners) for owners in after.values()} == {1}
    assert [word for word in WORDS if after[word] != before[word]] == [
        word for word in WORDS if before[word] == [gone]
    ]


def test_who_takes_leave_is_not_waited_for_and_loses_nothing() -> None:
    hall = Hall("a", "b", holds=True)
    hall.beat()
    first, second = hall.stores
    changes: list[int] = []
    first.on_change = lambda: changes.append(len(first))
    hall.say(second, ends=True)
    assert changes == [0]
    assert all(first.owns(word) for word in WORDS)
    assert hall.lost == []


@pytest.mark.parametrize("holds", [1, 0])
@pytest.mark.parametrize("at", range(4))
def test_of_a_store_that_is_missed_or_begins_anew_one_other_tells_the_edges(at: int, holds: int) -> None:
    hall = Hall("s", "t", "u", "v", holds=bool(holds))  # by hash three of them would tell of themselves
    hall.beat()
    hall.stores[at] = hall.store("stuv"[at], holds=bool(holds))  # killed, and back before anybody missed it
    hall.beat()
    assert len(hall.lost) == holds
    assert hall.stores[at].topic not in hall.lost  # it does not know what was lost
    hall.lost.clear()
    last = hall.stores.pop(at)
    hall.pass_time(GONE_S + 1)
    assert len(hall.lost) == holds
    assert last.topic not in hall.lost


def test_who_has_no_connection_takes_nobody_for_gone() -> None:
    hall = Hall("a", "b")
    hall.beat()
    one = hall.stores[0]
    one.on_state(False)
    hall.now += 10 * GONE_S
    one.look()
    assert len(one) == 1
    one.on_state(True)
    one.look()
    assert len(one) == 1
    hall.stores = [one]
    hall.pass_time(GONE_S + 1)
    assert len(one) == 0


def test_who_does_not_even_hear_itself_takes_nobody_for_gone() -> None:
    hall = Hall("a", "b", "c", holds=True)
    hall.beat()
    one = hall.stores[0]
    hall.now += 3 * GONE_S  # a bucket that fails has filled the way with faces
    one.look()
    assert len(one) == 2
    hall.stores.pop()
    hall.pass_time(GONE_S - BEAT_S)
    assert (len(one), hall.lost) == (2, [])
    hall.pass_time(3 * BEAT_S)
    assert (len(one), len(hall.lost)) == (1, 1)


def test_while_faces_fill_the_gate_the_books_of_edges_and_other_stores_are_heard() -> None:
    heard: list[str] = []

    class Ears:
        in_hand = 0

        async def keep(self, _topic: str, _payload: bytes) -> None:
            await asyncio.Event().wait()  # the bucket fails

        def take(self, message: Message) -> None:
            heard.append(message.topic)

        def hear(self, topic: str, _payload: bytes) -> None:
            heard.append(topic)

    async def source(*names: str) -> AsyncIterator[Message]:
        for name in names:
            yield SimpleNamespace(topic=name, payload=b"", retain=False, ack=lambda: None)
        await asyncio.Event().wait()

    async def scenario() -> None:
        ears: Any = Ears()
        intake = Intake(
            keeper=ears, ledgers=ears, peers=ears, quarantine=ears, outgoing=ears, measures=ears,
            concurrency=2, receipts=True, trace=OFF,
        )  # fmt: skip

        async def both() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(intake.run(source(*["faces/a/b"] * 5), tasks))  # type: ignore[arg-type]
                tasks.create_task(intake.run(source("ledger/a/b", "stores/b/-", "ledger/c"), tasks))  # type: ignore[arg-type]

        async with running(both()):
            await until(lambda: heard == ["ledger/a/b", "stores/b/-", "ledger/c"])
            assert ears.in_hand == 2

    asyncio.run(scenario())


def test_a_store_that_was_missed_and_is_heard_again_is_lost_no_more(tmp_path: Path) -> None:
    known = Config(bucket=sections.Bucket(url=f"file://{tmp_path}"), store=sections.Store(layout="shards"))
    one = _Store(known, OFF)
    one.on_state(True)
    one.peers.settle()

    def beat(run: str) -> tuple[str, ...]:
        """Hear another store; returns the runs that are said to be lost."""
        word = Beat(run=run * 16, keeps=one.peers.word().keeps, holds=True)
        one.peers.hear("stores/b/-", word.to_bytes())
        return Hello.from_bytes(one._voice.hello("1" * 8)[1]).lost

    assert beat("b") == ()
    assert beat("c") == ("b" * 16,)
    assert beat("b") == ("c" * 16,)


def test_who_hears_nobody_owns_everything_and_nothing_before_it_has_listened() -> None:
    one = Peers("a")
    assert not any(one.owns(word) for word in WORDS)
    one.settle()
    assert all(one.owns(word) for word in WORDS)


def test_strangers_cannot_fill_the_memory_and_what_is_no_beat_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Peers("a")
    one.settle()
    good = Beat(run="b" * 16, keeps=NOWHERE).to_bytes()
    for topic in (
        "stores/b",
        "stores/b/c/d",
        "stores/B/c",
        "stores/../c",
        "stores/b/-/",
        "stores//-",
        "x/b/c",
    ):
        one.hear(topic, good)
    for payload in (b"", b"{}", b"\xff", b'{"v":1,"run":"bbbbbbbb"}', good + b" " * 2000):
        one.hear("stores/b/c", payload)
    assert len(one) == 0
    for n in range(1000):
        one.hear(f"stores/s{n}/-", good)
    assert len(one) == 255
    assert "more than 256 stores" in caplog.text


def test_another_process_of_the_same_name_is_told(caplog: pytest.LogCaptureFixture) -> None:
    one = Peers("a", "x")
    one.hear(one.topic, one.word().to_bytes())
    assert one.echoes == 1
    assert "another store" not in caplog.text
    one.hear(one.topic, Beat(run="b" * 16, keeps=NOWHERE).to_bytes())
    assert "another store is at work as stores/a/x: give each a name, or a store.instance" in caplog.text


# What is kept of ledgers that are another's.


class Listener:
    """A store's ear for ledgers, which owns what it is told."""

    def __init__(self, **more: Any) -> None:  # noqa: ANN401 - of Heard
        self.now = 0.0
        self.mine: set[str] = set()
        self.taken: list[tuple[str, bytes, bool]] = []
        self.strange = 0
        self.heard = Heard(
            owns=self.mine.__contains__,
            take=self._take,
            strange=self._strange,
            clock=lambda: self.now,
            **more,
        )

    def _take(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        self.taken.append((topic, payload, retained))

    def _strange(self) -> None:
        self.strange += 1

    def look(self) -> list[tuple[str, bytes, bool]]:
        self.taken.clear()
        self.heard.look()
        return self.taken


def test_the_last_of_each_part_is_kept_until_it_is_ours_or_old() -> None:
    ear = Listener()
    ear.heard.hear("ledger/home/aa", b"1", retained=True)
    ear.heard.hear("ledger/home/aa/1", b"2")
    ear.heard.hear("ledger/home/aa", b"3")
    ear.heard.hear("ledger/home/bb", b"4")
    assert ear.look() == []
    ear.mine.add("ledger/home/aa")
    assert ear.look() == [("ledger/home/aa/1", b"2", False), ("ledger/home/aa", b"3", False)]
    assert ear.look() == []
    ear.heard.hear("ledger/home/aa/1", b"5", retained=True)
    assert ear.taken == [("ledger/home/aa/1", b"5", True)]
    ear.now += 61
    ear.mine.add("ledger/home/bb")
    assert ear.look() == []


def test_what_is_kept_is_bounded_and_one_site_has_a_half_at_most() -> None:
    ear = Listener(max_bytes=40_000)
    for n in range(100):
        ear.heard.hear(f"ledger/loud/{n:032x}", b"x" * 600)
    for n in range(10):
        ear.heard.hear(f"ledger/home/{n:032x}", b"x" * 600)
    ear.mine |= {f"ledger/{site}/{n:032x}" for site in ("loud", "home") for n in range(100)}
    kept = Counter(topic.split("/")[1] for topic, *_ in ear.look())
    assert kept["home"] == 10
    assert 10 < kept["loud"] < 22
    ear.mine.clear()
    for n in range(1000):
        ear.heard.hear(f"ledger/site{n}/aa", b"x" * 600)
    ear.mine |= {f"ledger/site{n}/aa" for n in range(1000)}
    last = ear.look()
    assert 30 < len(last) < 50
    assert last[-1][0] == "ledger/site999/aa"


def test_an_edge_that_waits_for_a_hello_concerns_every_store() -> None:
    ear = Listener()
    for strange in (False, True):
        link = messages.LinkHealth.model_validate({"time": "2026-01-01T00:00:00Z", "strange": strange})
        books = Ledger(outbox="a" * 32, cameras={}, link=link)
        ear.heard.hear(topics.ledger("home", "a" * 32), books.to_bytes())
        assert ear.strange == strange
    ear.heard.hear("ledger/home/bb", b'"strange":true')
    assert ear.strange == 1


# Hellos.


class Line:
    """Takes what is published."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        assert (topic, qos, retain) == ("stores/s", 1, True)
        self.said.append(Hello.from_bytes(payload).start)


def test_a_store_that_joins_says_the_hello_that_edges_know() -> None:
    async def scenario() -> None:
        first, second = Peers("s", "a"), Peers("s", "b")
        line, other = Line(), Line()
        greeter = Greeter(Voice("s", Trust()), first, joins=True)
        joins = Greeter(Voice("s", Trust()), second, joins=True)
        first.settle()
        async with running(greeter.run(line, None)), running(joins.run(other, None)):  # type: ignore[arg-type]
            greeter.up.set()
            await until(lambda: len(line.said) == 1)
            second.hear(first.topic, first.word().to_bytes())
            second.settle()
            joins.up.set()
            await until(lambda: other.said == line.said)
            joins.up.set()  # it lost its connection, and with it perhaps faces
            await until(lambda: len(other.said) == 2)
            assert other.said[1] > other.said[0]
            first.hear(second.topic, second.word().to_bytes())
            greeter.unheard.set()
            await until(lambda: line.said[1:] == other.said[1:])
            greeter.lost.set()
            await until(lambda: len(line.said) == 3)
            assert line.said[2] > other.said[1]

    asyncio.run(scenario())


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_a_store_that_begins_says_a_new_hello_where_one_before_it_may_have_held_faces(
    tmp_path: Path, layout: Literal["objects", "shards"]
) -> None:
    async def scenario() -> None:
        settings = sections.Store(name="s", instance="a", layout=layout)
        one = _Store(Config(bucket=sections.Bucket(url=f"file://{tmp_path}"), store=settings), OFF)
        one.peers.hello = "0" * 16  # which others of its name say
        one.peers.settle()
        one.on_state(True)
        line: Any = Line()
        async with running(one._greeter.run(line, None)):
            await until(lambda: line.said)
        assert (line.said == ["0" * 16]) == (layout == "objects")

    asyncio.run(scenario())


# One keeps house.


def test_one_store_keeps_house_and_another_one_comes_into_its_place() -> None:
    async def scenario() -> None:
        hall = Hall("a", "b", "c")
        hall.beat()
        swept: list[str] = []
        recounted: list[str] = []

        class Swept:
            def __init__(self, name: str) -> None:
                self.name = name

            async def sweep(self) -> int:
                swept.append(self.name)
                return 0

            def recount(self) -> None:
                recounted.append(self.name)

        def clock() -> float:
            return hall.now

        keepers = [
            Housekeeping(None, Swept(one.topic), one, keep=None, clock=clock)  # type: ignore[arg-type]
            for one in hall.stores
        ]

        async def look() -> list[str]:
            swept.clear()
            for each in keepers:
                await each.look()
            return list(swept)

        (first,) = await look()
        assert await look() == []
        assert recounted == []
        hall.now += 3601
        hall.beat()
        assert await look() == [first]
        others = [one.topic for one in hall.stores if one.topic != first]
        assert recounted == others  # their quarantine's budget is what the one has left of it
        at = [one.topic for one in hall.stores].index(first)
        assert hall.stores[at].owns(housekeeping.WORD)
        hall.say(hall.stores.pop(at), ends=True)
        del keepers[at]
        assert len(await look()) == 1
        hall.stores[0].on_state(False)
        hall.stores[1].on_state(False)
        hall.now += 3601
        assert len(await look()) == 2  # who cannot hear does it rather twice than not at all

    asyncio.run(scenario())


# Real brokers.


def config(url: str, folder: Path, **store: Any) -> Config:  # noqa: ANN401 - any of the store's settings
    return Config(
        broker=Broker(url=url), bucket=sections.Bucket(url=f"file://{folder}"), store=sections.Store(**store)
    )


@asynccontextmanager
async def store(known: Config, meters: Meters | None = None) -> AsyncIterator[Callable[[], Any]]:
    """Run a store; yields what ends it in order."""
    ready = asyncio.Event()
    task = asyncio.create_task(serve_store(known, connector(known), ready=ready.set, meters=meters))

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield end
        if not task.cancelled():
            assert not task.done(), task.exception()
    finally:
        await end()


async def told(meters: Meters) -> set[str]:
    """Return the cameras whose books a store tells of."""
    return {
        reading.labels[1] for reading in await meters.read() if reading.metric is catalogue.WAITING
    }  # fmt: skip


def test_the_books_of_an_outbox_are_one_stores_and_go_over_to_another(broker: Server, tmp_path: Path) -> None:
    outboxes = {f"{n:032x}": f"c{n}" for n in range(40)}
    folder = tmp_path / "bucket" / "ledger" / "site=books"
    known = partial(config, broker.url, tmp_path / "bucket")

    def written() -> set[str]:
        return {path.stem for path in folder.glob("*.json")}

    async def scenario() -> None:
        of_a, of_b = Meters(), Meters()

        async def both() -> bool:
            a, b = await told(of_a), await told(of_b)
            return bool(b) and not a & b and a | b == set(outboxes.values())

        async def b_alone() -> bool:
            return await told(of_b) == set(outboxes.values())

        async with store(known(name="a"), of_a) as end, session(broker.url, "edges") as edges:
            await edges.wait_connected()
            for outbox, camera in outboxes.items():
                ledger = Ledger(outbox=outbox, cameras={f"books/{camera}": Account(captured=1, waiting=1)})
                await edges.publish(topics.ledger("books", outbox), ledger.to_bytes(), qos=1, retain=True)
            await until(lambda: written() == set(outboxes))
            assert await told(of_a) == set(outboxes.values())
            async with store(known(name="b"), of_b):
                await eventual(both)  # b heard what the broker has retained
                of_a_alone = await told(of_a)
                assert 5 < len(of_a_alone) < 35
                shutil.rmtree(folder)
                await end()
                await eventual(b_alone)  # and had heard the rest as well
                await until(lambda: {outboxes[each] for each in written()} >= of_a_alone)

    run(scenario())


async def eventual(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await true():
            await asyncio.sleep(0.05)


def test_stores_of_two_buckets_deal_with_all_each() -> None:
    one, other = Peers("a", keeps="here"), Peers("b", keeps="there")
    for each in (one, other):
        each.settle()
    one.hear(other.topic, other.word().to_bytes())
    other.hear(one.topic, one.word().to_bytes())
    assert all(each.owns(word) for each in (one, other) for word in WORDS)


def test_nats_does_not_share_by_mqtt_and_the_store_says_so(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        known = config(url, tmp_path / "bucket", intake="shared")
        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.timeout(30):
                await serve_store(known, connector(known))
        error: BaseException = caught.value
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, ConfigError)
        assert 'hands on nothing, as NATS does, and so the embedded broker: set "jetstream"' in str(error)

    with nats() as server:
        run(scenario(server.url))


def test_a_refused_share_is_told_with_what_to_do() -> None:
    with pytest.raises(
        RefusedError, match=r'NATS shares nothing by MQTT: there set store.intake = "jetstream"'
    ):
        see_suback("mqtt://x", [("$share/facerelay/faces/+/+", 1)], [None])
    with pytest.raises(RefusedError, match=r"faces/.*check its access list$"):
        see_suback("mqtt://x", [("faces/+/+", 1)], [None])
    see_suback("mqtt://x", [(topics.BEATS, 0)], [None])


# Processes: what is killed, and what joins.


class Cloud:
    """Stores that share what comes to a broker, and one edge that is told of in a file of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.bucket = folder / "bucket"
        self.parts: dict[str, Part] = {}
        bucket = {"url": f"file://{self.bucket}"}
        edge = {
            "site": "home", "direct": True, "broker": {"url": url}, "bucket": bucket,
            "outbox": {"overdue_s": 2.0},
        }  # fmt: skip
        cloud = {
            "broker": {"url": url},
            "bucket": bucket,
            "store": {"intake": "shared", "retention_days": 30},
        }
        (folder / "edge.toml").write_text(settings.template((*settings.EDGE, "bucket"), edge))
        (folder / "cloud.toml").write_text(settings.template(settings.CLOUD, cloud))

    def store(self, name: str, *more: str) -> Part:
        words = [f"--set={each}" for each in (f"store.name={name}", *more)]
        command = [sys.executable, "-m", "facerelay", "store", "-c", str(self.folder / "cloud.toml"), *words]
        part = self.parts[name] = Part(name, command, self.folder / f"{name}.log")
        part.start()
        return part

    def feed(self, count: int, rate: float) -> Part:
        command = [
            sys.executable,
            str(HERE / "feeder.py"),
            str(self.folder / "edge.toml"),
            str(count),
            str(rate),
        ]
        part = self.parts["feeder"] = Part("feeder", command, self.folder / "feeder.log")
        part.start()
        return part

    def faces(self) -> list[str]:
        return [path.name for path in (self.bucket / "faces").rglob("*.jpg")]

    def words(self) -> str:
        return "\n".join(f"== {part.name}\n{part.text()[-2000:]}" for part in self.parts.values())

    def stored(self, name: str) -> int:
        """How many faces a store says that it stored, once it has ended."""
        return int(re.findall(r"stored (\d+) \(", self.parts[name].text())[-1])


@contextmanager
def cloud(folder: Path, url: str) -> Iterator[Cloud]:
    made = Cloud(folder, url)
    try:
        yield made
    finally:
        for part in made.parts.values():
            part.end()


def at_work(part: Part, others: int) -> bool:
    return part.text().count("is at work as well") >= others


def ended(made: Cloud, part: Part) -> None:
    assert part.process is not None
    assert part.process.wait(60) == 0, made.words()


def test_three_stores_share_and_none_is_missed_when_one_is_killed_and_another_joins(tmp_path: Path) -> None:
    if MOSQUITTO is None:
        lacking("Mosquitto is not installed")
    with mosquitto(folder=tmp_path / "broker") as server, cloud(tmp_path, server.url) as made:
        for name in ("one", "two", "three"):
            made.store(name)
        for name in ("one", "two", "three"):
            eventually(partial(at_work, made.parts[name], 2))
        feeder = made.feed(600, 150)
        eventually(lambda: len(made.faces()) > 200)
        made.parts["two"].kill()
        made.store("four")
        ended(made, feeder)
        names = made.faces()
        assert len(names) == 600
        assert len({re.sub(r"^.*?-", "", name) for name in names}) == 600

        done = facerelay("ledger", "--json", "--audit", "-c", str(tmp_path / "edge.toml"))
        books = json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == 0, done.stderr
        (account,) = books["cameras"].values()
        assert (books["lost"], account["captured"], account["stored"]) == (0, 600, 600)

        def told() -> list[int]:
            found = (made.bucket / "ledger" / "site=home").glob("*.json")
            return [Ledger.from_bytes(path.read_bytes()).cameras["home/door"].stored for path in found]

        eventually(lambda: told() == [600])
        for name in ("one", "three", "four"):
            made.parts[name].end()
            assert made.stored(name) > 20, made.words()
        assert sum(made.stored(name) for name in ("one", "three", "four")) < 600


def test_two_instances_of_one_certificate_share_at_an_enrolled_broker(tmp_path: Path) -> None:
    made = Enrolled.make(tmp_path, mosquitto=True)
    join(read_bundle(enrol.edge(made.cloud, "near", tmp_path / "near.tar", direct=True)), tmp_path / "near")
    with enrolled.mosquitto(made) as server, ExitStack() as stack:
        parts: dict[str, Part] = {}

        def begin(instance: str) -> Part:
            command = [
                sys.executable, "-m", "facerelay", "store", "-c", str(made.file), "--set=store.intake=shared",
                f"--set=store.instance={instance}",
            ]  # fmt: skip
            part = parts[instance] = Part(instance, command, tmp_path / f"{instance}.log")
            part.start()
            stack.callback(part.end)
            return part

        async def hellos(work: Callable[[], Any]) -> set[str]:
            """Return the starts that an edge hears while something is done."""
            heard: set[str] = set()

            async def listen(ear: Session) -> None:
                async for message in ear:
                    message.ack()
                    heard.add(json.loads(message.payload)["start"])

            ear = Session(made.client(), client_id="ear", subscribe=[(topics.HELLOS, 1)], max_message=10**6)
            async with ear, asyncio.timeout(60), running(listen(ear)):
                await until(lambda: heard)
                await asyncio.to_thread(work)
                return heard

        def another() -> None:
            begin("b")
            for part in parts.values():
                eventually(partial(at_work, part, 1))
            eventually(lambda: server.log.read_text().count("facerelay-store-main") >= 2)

        begin("a")
        assert len(asyncio.run(hellos(another))) == 1
        faces = 60
        command = [
            sys.executable,
            str(HERE / "feeder.py"),
            str(tmp_path / "near" / "edge.toml"),
            str(faces),
            "60",
        ]
        feeder = Part("feeder", command, tmp_path / "feeder.log")
        feeder.start()
        stack.callback(feeder.end)
        assert feeder.process is not None
        assert feeder.process.wait(60) == 0, feeder.text() + parts["a"].text() + parts["b"].text()
        alive = made.folder / "bucket" / "history"
        for part in parts.values():
            part.end()
            stored = int(re.findall(r"stored (\d+) \(", part.text())[-1])
            assert 10 < stored < 50, part.text()
            assert "does another program connect" not in part.text()
        assert len(list((made.folder / "bucket/faces").rglob("*.jpg"))) == faces
        assert {path.name for path in alive.rglob("store=*")} == {"store=main.a.json", "store=main.b.json"}
