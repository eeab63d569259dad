"""What is erased in the bucket goes from the outboxes too, at the next contact, to the last byte."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import servers
from conftest import Make
from facerelay import face
from facerelay.cloud import store
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.erase import erase
from facerelay.cloud.notices import Notices
from facerelay.cloud.tombstones import Tombstone, Tombstones, bury
from facerelay.commands.running import connector
from facerelay.config import Broker, Bucket, Config
from facerelay.edge import ear, erasing, reading, schema, teller
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.erasures import MOST_IDS, Erasure, Erasures
from facerelay.face import Frozen, new_id
from facerelay.link.forward import forward
from facerelay.messages import MAX_MESSAGE_BYTES, Ledger, LinkHealth, Receipt, Receipts
from feeder import picture
from waiting import running, until

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
ALL = Erasure(start=NOON - timedelta(days=9999))
Box = Callable[..., Outbox]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(
            Outbox(tmp_path / "edge" / "o.db", **{"max_bytes": 10**8, "max_message": 10**6, **more})
        )


class Faces:
    """Makes faces of an outbox, each with bytes that no other has."""

    def __init__(self, outbox: Outbox, make: Make) -> None:
        self.outbox, self._make = outbox, make

    def put(self, **known: Any) -> Frozen:  # noqa: ANN401 - any of the face's fields
        seq = self.outbox.number()
        frozen = self._make(picture(seq), outbox=self.outbox.id, run=self.outbox.run, seq=seq, **known)
        self.outbox.put(frozen, chosen=time.time()).result()
        return frozen

    def answered(self, outcome: str, **known: Any) -> Frozen:  # noqa: ANN401 - as above
        frozen = self.put(**known)
        receipt = Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome=outcome)
        self.outbox.answer([receipt]).result()
        return frozen


def there(folder: Path, *faces: Frozen) -> set[str]:
    """Return the ids of faces of which any file in a folder holds so much as 24 bytes of the picture."""
    raw = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    found = set()
    for one in faces:
        begin = one.data.index(b"\xff\xda")  # the picture itself, behind the header that all share
        parts = [one.data[at : at + 24] for at in range(begin + 16, len(one.data) - 24, 64)]
        assert len(parts) > 20
        if any(part in raw for part in parts):
            found.add(one.face.id)
    return found


def ids(*faces: Frozen) -> set[str]:
    return {one.face.id for one in faces}


def told(rules: list[Erasure], since: str = "", until: str = "ab") -> Erasures:
    return Erasures(since=since, until=until, rules=tuple(rules))


def test_in_every_state_the_picture_goes_and_the_books_close(
    box: Box, make_face: Make, tmp_path: Path
) -> None:
    outbox = box()
    faces = Faces(outbox, make_face)
    waiting, parked = faces.put(), faces.answered("refused:malformed")
    held = faces.answered("held")
    stored, gone = faces.answered("stored"), faces.answered("expired")
    assert there(tmp_path / "edge", waiting, parked, held) == ids(waiting, parked, held)
    assert asyncio.run(ear.erase(outbox, told([ALL]))) == 3
    assert there(tmp_path / "edge", waiting, parked, held, stored, gone) == set()
    books = outbox.ledger().result().cameras["home/door"]
    counted = (books.captured, books.erased, books.stored, books.dropped, books.refused, books.waiting)
    assert counted == (5, 3, 1, 1, 0, 0)
    assert books.closes
    assert books.reasons == {"expired": 1}
    assert outbox.bytes == 0
    for late, column in ((waiting, "stored"), (parked, "erased")):
        outbox.answer([Receipt(id=late.face.id, sha256=late.sha256, outcome=column)]).result()
    books = outbox.ledger().result().cameras["home/door"]
    assert (books.stored, books.erased, books.closes) == (2, 2, True)


def test_a_picture_that_gave_way_is_counted_as_erased_too(box: Box, make_face: Make) -> None:
    outbox = box(max_bytes=6_000)
    faces = Faces(outbox, make_face)
    parked = faces.answered("refused:malformed")
    kept = faces.put(time=datetime.now(UTC) + timedelta(hours=1))
    assert outbox.bytes == len(kept.data), "the refused one gave way"
    assert asyncio.run(ear.erase(outbox, told([Erasure(ids=(parked.face.id,))]))) == 1
    books = outbox.ledger().result().cameras["home/door"]
    assert (books.captured, books.erased, books.refused, books.waiting, books.closes) == (2, 1, 0, 1, True)
    assert outbox.bytes == len(kept.data)


def test_more_than_a_batch_goes_and_the_relay_is_told(
    box: Box, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ear, "_AT_ONCE", 3)
    outbox = box()
    faces = Faces(outbox, make_face)
    gone = [faces.put(camera=f"c{n % 2}") for n in range(20)]
    parked = [faces.answered("refused:malformed", camera="c0") for _ in range(5)]
    news: list[str] = []
    outbox.listener = lambda one: news.extend(one.gone)
    assert asyncio.run(ear.erase(outbox, told([Erasure(camera="c0"), Erasure(site="away")]))) == 15
    assert set(news) == ids(*gone[::2])
    assert {one.id for one in outbox.backlog(0, 99).result()} == ids(*gone[1::2])
    assert asyncio.run(ear.erase(outbox, told([Erasure(ids=tuple(ids(*parked, gone[1])))]))) == 1


TIMES = st.integers(-12 * 60, 36 * 60).map(lambda minutes: NOON + timedelta(minutes=minutes))
RULES = st.fixed_dictionaries(
    {},
    optional={
        "site": st.sampled_from(["home", "away"]),
        "camera": st.sampled_from(["door", "yard"]),
        "start": TIMES, "end": TIMES,
        "which": st.sets(st.integers(0, 11), max_size=3),
    },
).filter(lambda rule: rule not in ({}, {"which": set()}))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rules=st.lists(RULES, min_size=1, max_size=4))
def test_the_edge_covers_what_the_tombstone_covers(
    rules: list[dict[str, Any]], face_rows: tuple[sqlite3.Connection, list[Frozen]]
) -> None:
    db, faces = face_rows
    given_rules = []
    for rule in rules:
        which = rule.pop("which", set())
        chosen = tuple(sorted(ids(*(faces[n] for n in which))))
        if rule or chosen:
            given_rules.append(rule | {"ids": chosen})
    tombs = [Tombstone(made=NOON, **rule) for rule in given_rules]
    expected = {
        one.face.id
        for one in faces
        if any(t.covers(one.face.id, one.face.site, one.face.camera, one.face.time) for t in tombs)
    }
    found = erasing.find(db, [Erasure(**rule) for rule in given_rules], 0, 100)
    assert {kept.id for kept in found} == expected


@pytest.fixture(scope="module")
def face_rows(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[sqlite3.Connection, list[Frozen]]]:
    path = tmp_path_factory.mktemp("rows") / "o.db"
    made = []
    rng = random.Random(7)  # noqa: S311 - places faces, keeps no secret
    with Outbox(path, max_bytes=10**8, max_message=10**6) as outbox:
        for number in range(12):
            known = face.Face(
                id=new_id(), outbox=outbox.id, run=outbox.run, seq=number + 1,
                site=rng.choice(["home", "away"]), camera=rng.choice(["door", "yard"]),
                time=NOON + timedelta(hours=rng.uniform(-12, 36)), box=(0, 0, 1, 1), frame=(9, 9),
                score=0.9, quality=0.5,
            )  # fmt: skip
            made.append(face.freeze(known, picture(number)))
            outbox.put(made[-1], chosen=1.0).result()
        refused = [
            Receipt(id=one.face.id, sha256=one.sha256, outcome="refused:malformed") for one in made[::3]
        ]
        outbox.answer(refused).result()
    with closing(reading.open_books(path)) as db:
        yield db, made


@pytest.mark.parametrize(
    ("start", "n"), [("0001-01-01T00:00:00+02:00", 1), ("9999-12-31T23:59:59.999999-02:00", 0)]
)
def test_any_time_can_be_told(start: str, n: int, box: Box, make_face: Make) -> None:
    outbox = box()
    Faces(outbox, make_face).put()
    rule = Erasure(site="home", start=datetime.fromisoformat(start))
    again = Receipts.from_bytes(Receipts(store="s", receipts=(), erasures=told([rule])).to_bytes())
    assert again.erasures is not None
    assert asyncio.run(ear.erase(outbox, again.erasures)) == n


def test_a_mark_moves_from_the_one_before_alone(box: Box) -> None:
    outbox = box()

    def mark() -> str | None:
        return outbox.noted(erasing.MARK).result()

    rule = [Erasure(site="away")]
    asyncio.run(ear.erase(outbox, told(rule, since="aa", until="bb")))
    assert mark() is None, "what came before was lost on its way"
    for since, last, then in (("", "aa", "aa"), ("aa", "bb", "bb"), ("aa", "cc", "bb"), ("", "dd", "dd")):
        asyncio.run(ear.erase(outbox, told(rule, since=since, until=last)))
        assert mark() == then


def test_a_reader_in_the_way_puts_the_log_off(
    box: Box, make_face: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.edge.outbox._EMPTY_EVERY_S", 0.01)
    outbox = box()
    gone = Faces(outbox, make_face).put()
    with closing(reading.open_books(outbox.path)) as db:
        reading.ledger(db)
        assert asyncio.run(ear.erase(outbox, told([ALL]))) == 1
        assert there(tmp_path / "edge", gone)
    time.sleep(0.05)
    outbox.note("x", "y").result()
    assert not there(tmp_path / "edge", gone)


def test_a_crash_before_the_log_was_emptied_leaves_it_to_the_next_start(
    box: Box, make_face: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = box()
    gone = Faces(outbox, make_face).put()
    crashed = tmp_path / "crashed"
    with monkeypatch.context() as patched:
        patched.setattr(schema, "empty_log", lambda _: False)
        assert asyncio.run(ear.erase(outbox, told([ALL]))) == 1
        shutil.copytree(outbox.path.parent, crashed)
    assert there(crashed, gone) == ids(gone)
    with Outbox(crashed / "o.db", max_bytes=10**8, max_message=10**6):
        assert there(crashed, gone) == set()


# what a store tells, and when


class Told:
    """Notices of a bucket, and what they told."""

    def __init__(self, path: Path) -> None:
        self.bucket = open_bucket(Bucket(url=f"file://{path}"))
        self.tombstones = Tombstones(self.bucket, age_s=0)
        self.now = 0.0
        self.sent: list[Erasures] = []
        self.notices = Notices(self.tombstones, self._tell, age_s=0, clock=lambda: self.now)

    async def _tell(self, site: str, outbox: str, erasures: Erasures) -> None:
        assert (site, outbox) == ("home", "ab" * 16)
        self.sent.append(Erasures.model_validate_json(erasures.model_dump_json()))

    async def says(self, mark: str | None) -> list[Erasures]:
        """Return what an outbox is told that says a mark."""
        link = LinkHealth(time=NOON, erasures=mark)
        self.notices.hear("home", Ledger(outbox="ab" * 16, cameras={}, link=link))
        self.sent = []
        await self.notices.tell()
        return self.sent


def test_an_outbox_is_told_what_it_does_not_know_and_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        at = Told(tmp_path)
        assert await at.says("") == []
        await bury(at.bucket, Tombstone(made=NOON, camera="door", end=NOON))
        await bury(at.bucket, Tombstone(made=NOON, site="away"))
        await bury(at.bucket, Tombstone(made=NOON, site="home", start=NOON))
        assert await at.says(None) == [], "an edge of before does not know of erasures"
        (first,) = await at.says("")
        assert [(rule.site, rule.camera) for rule in first.rules] == [(None, "door"), ("home", None)]
        assert await at.says("") == [], "it has had no time to say more"
        at.now += 16
        assert await at.says("") == [first], "it was lost"
        at.now += 16
        assert await at.says("") == [], "more and more seldom"
        assert await at.says(first.until) == []
        await bury(at.bucket, Tombstone(made=NOON, ids=(new_id(),)))
        (second,) = await at.says(first.until)
        assert (second.since, len(second.rules)) == (first.until, 1)
        assert await at.says(second.until) == []
        await at.bucket.put("tombstones/0.json", Tombstone(made=NOON, camera="b").model_dump_json().encode())
        (whole,) = await at.says(second.until)
        assert (whole.since, len(whole.rules)) == ("", 4), "one turned up before those that are known"
        for one in [e.key async for e in at.bucket.list("tombstones")]:
            await at.bucket.delete(one)
        fresh = Told(tmp_path)
        (none,) = await fresh.says(whole.until)
        assert (none.since, none.until, none.rules) == ("", "", ())

    asyncio.run(scenario())


def test_very_many_ids_and_rules_go_in_messages_that_every_broker_takes(tmp_path: Path) -> None:
    async def scenario() -> None:
        at = Told(tmp_path)
        everything = [new_id() for _ in range(4_500)]
        await bury(at.bucket, Tombstone(made=NOON, ids=tuple(everything)))
        for n in range(250):
            await bury(at.bucket, Tombstone(made=NOON, camera=f"c{n}", start=NOON, end=NOON))
        sent = await at.says("")
        assert [one for each in sent for rule in each.rules for one in rule.ids] == everything
        assert len([rule for each in sent for rule in each.rules if rule.camera]) == 250
        assert ["", *(each.until for each in sent[:-1])] == [each.since for each in sent]
        longest = max(len(Receipts(store="s", receipts=(), erasures=each).to_bytes()) for each in sent)
        assert longest < 128_000 < MAX_MESSAGE_BYTES
        assert MOST_IDS == 2_000
        assert [each.until for each in await at.says(sent[0].until)] == [each.until for each in sent[1:]]

    asyncio.run(scenario())


# with real brokers


@pytest.fixture(params=["mosquitto", "nats"])
def brokers(request: pytest.FixtureRequest) -> Iterator[tuple[Broker, Broker]]:
    make = servers.mosquitto if request.param == "mosquitto" else servers.nats
    with make() as one, make() as other:
        yield Broker(url=one.url), Broker(url=other.url)


def test_an_edge_that_was_away_erases_to_the_last_byte(
    tmp_path: Path, brokers: tuple[Broker, Broker], make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "_EVERY_S", 0.5)
    monkeypatch.setattr(store, "Notices", partial(Notices, age_s=0.2))
    here, away = brokers
    edge = Config(broker=here, cloud=away, outbox={"path": tmp_path / "edge" / "o.db", "overdue_s": 2})
    cloud = Config(broker=away, bucket=Bucket(url=f"file://{tmp_path}/bucket"))
    bucket = open_bucket(cloud.bucket)
    link = partial(
        forward, edge=here, cloud=away, site="home", faces=edge.face_topic.filter, qos=1,
        delivery="receipt", window=64, max_message=10**6,
    )  # fmt: skip

    async def scenario() -> None:
        with open_outbox(edge) as outbox:
            faces = Faces(outbox, make_face)
            before = faces.put(time=NOON, camera="yard")
            async with relaying(edge, outbox, connector(edge)):
                async with running(store.serve_store(cloud, connector(cloud))), running(link()):
                    await until(lambda: not outbox.waiting().result())
                # the link is down now
                by_id = [faces.put(time=NOON), faces.answered("refused:malformed", time=NOON)]
                by_rule = [faces.put(camera="yard", time=NOON),
                           faces.answered("refused:bucket", camera="yard", time=NOON)]  # fmt: skip
                stays = faces.put(time=NOON)
                parked = faces.answered("refused:malformed", camera="yard", time=NOON + timedelta(days=2))
                gone = [*by_id, *by_rule, before]
                await erase(bucket, ids=[one.face.id for one in by_id], longest_put=0)
                times = {"start": NOON, "end": NOON + timedelta(hours=1)}
                await erase(bucket, camera="yard", **times, longest_put=0)  # type: ignore[arg-type]
                assert ids(*by_id, *by_rule) <= there(tmp_path / "edge", *gone)
                async with running(store.serve_store(cloud, connector(cloud))), running(link()):
                    await until(lambda: not outbox.waiting().result())
                    await until(lambda: outbox.noted(erasing.MARK).result())
                books = outbox.ledger().result()
                await until(lambda: not there(tmp_path / "edge", *gone))
                assert there(tmp_path / "edge", parked) == ids(parked)
                assert there(tmp_path / "bucket", *gone, stays, parked) == ids(stays)
            assert books.closes
            door, yard = books.cameras["home/door"], books.cameras["home/yard"]
            assert (door.captured, door.stored, door.erased) == (3, 1, 2)
            assert (yard.captured, yard.stored, yard.erased, yard.refused) == (4, 1, 2, 1)

    asyncio.run(scenario())


def test_an_edge_that_is_there_learns_of_it(
    tmp_path: Path, brokers: tuple[Broker, Broker], make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "_EVERY_S", 0.3)
    monkeypatch.setattr(store, "Notices", partial(Notices, age_s=0.2))
    broker = brokers[0]
    edge = Config(broker=broker, direct=True, outbox={"path": tmp_path / "edge" / "o.db"})
    cloud = Config(broker=broker, bucket=Bucket(url=f"file://{tmp_path}/bucket"))

    async def scenario() -> None:
        with open_outbox(edge) as outbox:
            faces = Faces(outbox, make_face)
            parked = [faces.answered("refused:malformed") for _ in range(3)]
            async with (
                running(store.serve_store(cloud, connector(cloud))),
                relaying(edge, outbox, connector(edge)),
            ):
                for number, one in enumerate(parked, 1):
                    await erase(open_bucket(cloud.bucket), ids=[one.face.id], longest_put=0)
                    await until(
                        lambda number=number: (  # type: ignore[misc]
                            outbox.ledger().result().cameras["home/door"].erased == number
                        )
                    )
                    await until(lambda one=one: not there(tmp_path / "edge", one))  # type: ignore[misc]

    asyncio.run(scenario())


def test_whatever_an_answer_or_its_age_takes_leaves_no_byte_soon(
    box: Box, make_face: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.edge.outbox._EMPTY_EVERY_S", 0)
    outbox = box()
    faces = Faces(outbox, make_face)
    gone = [faces.answered("erased"), faces.answered("expired"), faces.put(), faces.answered("refused:x")]
    outbox.clear_old(time.time() + 1, 99).result()
    assert not there(tmp_path / "edge", *gone)
