from __future__ import annotations

import asyncio
import functools
import json
import logging
import pickle
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from buckets import Weed
from conftest import Make, lacking
from facerelay import config, face, messages, sections, topics
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.cloud.erase import erase
from facerelay.cloud.keep import Keeper
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.receipts import Outgoing
from facerelay.cloud.store import serve_store
from facerelay.cloud.tombstones import Tombstones
from facerelay.cloud.voice import Voice
from facerelay.face import Frozen, Limits
from facerelay.link.session import Session
from facerelay.messages import Receipt
from facerelay.mqtt import NotConnectedError
from facerelay.seldom import Seldom
from facerelay.topics import FaceTopic
from servers import MOSQUITTO, Server, mosquitto
from waiting import until

TOPIC = "faces/home/door"


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{tmp_path}/bucket"))


def keeper(bucket: Bucket, template: str = "faces/{site}/{camera}", **limits: int) -> Keeper:
    return Keeper(
        bucket, limits=Limits(**limits), topic=FaceTopic(template), tombstones=Tombstones(bucket, age_s=0),
        quarantine=Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1)),
    )  # fmt: skip


def keep(to: Keeper, payload: bytes, topic: str = TOPIC) -> Receipt | None:
    answer = asyncio.run(to.keep(topic, payload))
    return answer.receipt if answer else None


def listed(bucket: Bucket, prefix: str) -> list[str]:
    async def collect() -> list[str]:
        return sorted([entry.key async for entry in bucket.list(prefix)])

    return asyncio.run(collect())


def huge_jpeg(jpeg: bytes) -> bytes:
    """Return the same JPEG with a header that claims 60,000 x 60,000 pixels."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", 60_000, 60_000) + jpeg[at + 9 :]


def png() -> bytes:
    return cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def test_stored_then_a_duplicate(bucket: Bucket, make_face: Make) -> None:
    one, to = make_face(), keeper(bucket)
    assert keep(to, one.data) == Receipt(id=one.face.id, sha256=one.sha256, outcome="stored")
    assert keep(to, one.data) == Receipt(id=one.face.id, sha256=one.sha256, outcome="stored", duplicate=True)
    assert listed(bucket, "faces") == [one.key]
    assert asyncio.run(bucket.get(one.key, max_bytes=100_000)) == one.data
    assert (to.counters.stored, to.counters.duplicates, to.counters.bytes) == (1, 1, len(one.data))


@pytest.mark.parametrize("there", [b"", b"other bytes", b"x" * 100_000])
def test_other_bytes_under_the_key_are_a_conflict(bucket: Bucket, make_face: Make, there: bytes) -> None:
    one, to = make_face(), keeper(bucket)
    asyncio.run(bucket.put_new(one.key, there))
    receipt = keep(to, one.data)
    assert receipt is not None
    assert receipt.outcome == "refused:conflict"
    assert asyncio.run(bucket.get(one.key, max_bytes=100_000)) == there
    assert len(listed(bucket, "quarantine")) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [("pickle", "pickle"), ("cut", "truncated"), ("huge", "too-many-pixels"), ("text", "not-a-picture")],
)
def test_what_cannot_be_read_is_set_aside(bucket: Bucket, jpeg: bytes, name: str, reason: str) -> None:
    payload = {
        "pickle": pickle.dumps({"picture": [1, 2, 3]}), "cut": jpeg[:-200], "huge": huge_jpeg(jpeg),
        "text": b"hello",
    }[name]  # fmt: skip
    to = keeper(bucket)
    assert keep(to, payload) is None
    assert to.counters.quarantined == {reason: 1}
    (kept, note) = listed(bucket, "quarantine")
    assert asyncio.run(bucket.get(kept, max_bytes=100_000)) == payload
    assert json.loads(asyncio.run(bucket.get(note, max_bytes=10_000)))["reason"] == reason
    assert listed(bucket, "faces") == listed(bucket, "foreign") == []


def test_our_own_face_truncated_is_refused(bucket: Bucket, make_face: Make) -> None:
    one, to = make_face(), keeper(bucket)
    receipt = keep(to, one.data[:-50])
    assert receipt is not None
    assert (receipt.id, receipt.outcome) == (one.face.id, "refused:truncated")
    assert receipt.sha256 != one.sha256  # so the edge, which has the sound bytes, sends them again
    assert len(listed(bucket, "quarantine")) == 2
    assert to.counters.refused == {"truncated": 1}


def test_too_large_is_counted_and_not_kept(bucket: Bucket, jpeg: bytes) -> None:
    to = keeper(bucket, bytes=1000)
    assert keep(to, jpeg) is None
    assert to.counters.discarded == {"too-large": 1}
    assert listed(bucket, "") == []


def test_a_foreign_picture_stays_one_object(bucket: Bucket, jpeg: bytes) -> None:
    to = keeper(bucket)
    for _ in range(3):
        assert keep(to, png(), "faces/Some Where/../door") is None
    assert keep(to, jpeg, TOPIC) is None
    keys = listed(bucket, "foreign")
    assert len(keys) == 2
    assert to.counters.foreign == 2
    assert keys[0].startswith("foreign/topic=faces-home-door-")
    assert keys[1].startswith("foreign/topic=faces-some-where-door-")
    assert keys[1].endswith(".png")


@pytest.mark.parametrize(
    ("template", "topic", "fine"),
    [
        ("faces/{site}/{camera}", "faces/home/door", True),
        ("faces/{site}/{camera}", "faces/away/door", False),
        ("faces/{site}/{camera}", "faces/home/yard", False),
        ("faces/{site}", "faces/home", True),
        ("image", "image", True),
        ("face_app/#", "face_app/anything/at/all", True),
    ],
)
def test_the_topic_and_the_picture_agree(
    bucket: Bucket, make_face: Make, template: str, topic: str, *, fine: bool
) -> None:
    to = keeper(bucket, template)
    receipt = keep(to, make_face().data, topic)
    assert (receipt and receipt.outcome) == ("stored" if fine else None)
    assert to.counters.refused == ({} if fine else {"wrong-topic": 1})
    assert len(listed(bucket, "quarantine")) == (0 if fine else 2)


@pytest.mark.parametrize(("topic", "fine"), [("face_app/home/door", True), ("face_app/away/door", False)])
def test_enrolled_sites_are_held_to_what_a_hash_stands_for(
    bucket: Bucket, make_face: Make, topic: str, *, fine: bool
) -> None:
    to = keeper(bucket, FaceTopic("face_app/#").named.template)
    receipt = keep(to, make_face().data, topic)
    assert (receipt and receipt.outcome) == ("stored" if fine else None)


def test_what_was_erased_is_not_stored_again(bucket: Bucket, make_face: Make) -> None:
    one, to = make_face(), keeper(bucket)
    keep(to, one.data)
    asyncio.run(erase(bucket, ids=[one.face.id], longest_put=0))
    receipt = keep(to, one.data)
    assert receipt is not None
    assert receipt.outcome == "erased"
    assert listed(bucket, "faces") == []
    other = keep(to, make_face().data)
    assert other is not None
    assert other.outcome == "stored"


def test_a_tombstone_that_comes_during_the_put_is_seen(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, to, real = make_face(), keeper(bucket), bucket.put_new

    async def slow(key: str, data: bytes, **more: Any) -> bool:  # noqa: ANN401 - whatever is given
        if key == one.key:
            await erase(bucket, ids=[one.face.id], longest_put=0)
        return await real(key, data, **more)

    monkeypatch.setattr(bucket, "put_new", slow)
    receipt = keep(to, one.data)
    assert receipt is not None
    assert receipt.outcome == "erased"
    assert listed(bucket, "faces") == []


def failing(
    real: Callable[..., Awaitable[bool]], times: float, fault: str, prefix: str = "faces"
) -> Callable[..., Awaitable[bool]]:
    calls = 0

    @functools.wraps(real)
    async def put_new(key: str, data: bytes, **more: Any) -> bool:  # noqa: ANN401 - whatever is given
        nonlocal calls
        calls += 1
        if calls <= times and key.startswith(prefix):
            raise BucketError(key, "no", fault)  # type: ignore[arg-type]
        return await real(key, data, **more)

    return put_new


def test_a_bucket_that_is_down_is_waited_for(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "put_new", failing(bucket.put_new, 3, "unreachable"))
    receipt = keep(keeper(bucket), make_face().data)
    assert receipt is not None
    assert receipt.outcome == "stored"


def test_one_object_that_the_bucket_does_not_want_is_refused(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.patience._FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(bucket, "put_new", failing(bucket.put_new, 1000, "refused"))
    receipt = keep(keeper(bucket), make_face().data)
    assert receipt is not None
    assert receipt.outcome == "refused:bucket"


def test_a_bucket_that_wants_nothing_refuses_nothing(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong settings look like refusals: faces wait for the operator, and are not parked by the thousand."""
    monkeypatch.setattr("facerelay.cloud.patience._FIRST_DELAY_S", 0.001)
    monkeypatch.setattr("facerelay.cloud.patience._LONGEST_DELAY_S", 0.001)
    monkeypatch.setattr(bucket, "put_new", failing(bucket.put_new, 100, "refused", ""))
    receipt = keep(keeper(bucket), make_face().data)
    assert receipt is not None
    assert receipt.outcome == "stored"


def test_a_store_goes_on_among_what_others_left(tmp_path: Path, bucket: Bucket, make_face: Make) -> None:
    for odd in ("tombstones/@eaDir", "tombstones/z", "quarantine/x y", "foreign/@eaDir"):
        (tmp_path / "bucket" / odd).mkdir(parents=True)
    (tmp_path / "bucket" / "tombstones" / "x y.json").write_text("{}")
    (tmp_path / "bucket" / "tombstones" / "long.json").write_bytes(b" " * 1_000_001)
    to = keeper(bucket)
    stored = keep(to, make_face().data)
    assert stored is not None
    assert stored.outcome == "stored"
    assert keep(to, b"junk") is None
    assert to.counters.quarantined == {"not-a-picture": 1}


def test_a_link_under_the_key_is_refused_in_the_end(
    tmp_path: Path, bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.patience._FIRST_DELAY_S", 0.01)
    one = make_face()
    (tmp_path / "bucket" / one.key).parent.mkdir(parents=True)
    (tmp_path / "bucket" / one.key).symlink_to(tmp_path / "nowhere")
    receipt = keep(keeper(bucket), one.data)
    assert receipt is not None
    assert receipt.outcome == "refused:bucket"


def test_the_log_shows_no_message_and_few_lines(
    bucket: Bucket, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    to, books = keeper(bucket, bytes=100_000), Books(bucket)
    topic = "faces/\n\x1b[2JINFO all is well" + "x" * 60_000
    hostile = {"outbox": "0" * 8, "cameras": {"secret\n\x1b[2J" + "y" * 10_000: 0}}

    async def scenario() -> None:
        for n in range(20):
            await to.keep(topic, b"secret %d" % n)
            await to.keep(topic, b"secret" * 20_000)
            await to.keep(topic, png() + b"secret %d" % n)
            await to.keep(topic, make_face().data)
            assert not books.take("ledger/a/00000000", json.dumps(hostile).encode())
            assert not books.take(topic, b'{"outbox": "00000000", "cameras": {}}')

    asyncio.run(scenario())
    assert 5 <= len(caplog.messages) <= 8
    assert all(len(line) < 400 and line.isprintable() for line in caplog.messages)
    assert "secret" not in caplog.text
    assert "not a ledger that can be read (Ledger: cameras" in caplog.text


def test_what_was_left_unsaid_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(logging.getLogger("seldom"), every_s=0.2)
    for n in range(10):
        seldom.say(logging.WARNING, "kind", "%d", n)
    seldom.say(logging.WARNING, "other", "other")
    time.sleep(0.3)
    seldom.say(logging.WARNING, "kind", "last")
    assert caplog.messages == ["0", "other", "last (and 9 more like it before)"]


def test_ledgers_wait_as_they_came_and_within_bounds(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books(bucket, max_bytes=2000)  # of which one site takes no more than a half
    payload = b'{"outbox": "%08d", "cameras": {"home/door": {}}}'
    length = len(payload % 0)
    real = bucket.put
    up = False

    async def put(key: str, data: bytes) -> None:
        if not up:
            raise BucketError(key, "down")
        await real(key, data)

    monkeypatch.setattr(bucket, "put", put)

    async def scenario() -> None:
        nonlocal up
        fit = sum(books.take(f"ledger/home/{n:08}", payload % n) for n in range(100))
        assert fit == 1000 // length
        for _ in range(100):
            assert books.take(f"ledger/home/{0:08}", payload % 0)  # in the place of the one before
        await books.flush()
        assert not books.take(f"ledger/home/{99:08}", payload % 99)
        up = True
        await books.flush()
        assert books.take(f"ledger/home/{99:08}", payload % 99)
        assert await bucket.get(f"ledger/site=home/{0:08}.json", max_bytes=100) == payload % 0

    asyncio.run(scenario())
    assert len(listed(bucket, "ledger")) == 1000 // length


def receipt() -> Receipt:
    return Receipt(id=face.new_id(), sha256="0" * 64, outcome="stored")


def test_receipts_are_gathered_by_outbox_and_dropped_without_a_connection() -> None:
    sent: list[tuple[str, messages.Receipts]] = []
    up = True

    async def publish(topic: str, payload: bytes) -> None:
        if not up:
            raise NotConnectedError("down")
        sent.append((topic, messages.Receipts.from_bytes(payload)))

    async def scenario() -> None:
        nonlocal up
        outgoing = Outgoing(publish, voice=Voice("store", sections.Trust()))
        task = asyncio.create_task(outgoing.run())
        for n in range(700):
            outgoing.add("home", "ab" if n % 2 else "cd", receipt())
        await asyncio.sleep(0.2)
        assert sorted(topic for topic, _ in sent) == ["receipts/home/ab", "receipts/home/cd"]
        assert sum(len(batch.receipts) for _, batch in sent) == 700
        up = False
        outgoing.add("home", "ab", receipt())
        await asyncio.sleep(0.2)
        up = True
        outgoing.add("home", "ab", receipt())
        await asyncio.sleep(0.2)
        assert len(sent) == 3
        task.cancel()

    asyncio.run(scenario())


@dataclass
class Edge:
    """What plays the edge: it publishes, and collects what comes down."""

    session: Session
    receipts: dict[str, Receipt] = field(default_factory=dict)
    batches: int = 0
    hellos: list[messages.Hello] = field(default_factory=list)

    async def send(self, payload: bytes, topic: str = TOPIC, qos: int = 1) -> None:
        await self.session.publish(topic, payload, qos=qos)

    async def listen(self) -> None:
        async for message in self.session:
            if message.topic.startswith("receipts/"):
                batch = messages.Receipts.from_bytes(message.payload)
                self.batches += 1
                self.receipts |= {receipt.id: receipt for receipt in batch.receipts}
            else:
                self.hellos.append(messages.Hello.from_bytes(message.payload))
            message.ack()

    async def answered(self, *faces: Frozen) -> list[Receipt]:
        await until(lambda: all(one.face.id in self.receipts for one in faces))
        return [self.receipts[one.face.id] for one in faces]


@asynccontextmanager
async def serving(broker: Server, bucket: config.Bucket, **more: Any) -> AsyncIterator[Edge]:  # noqa: ANN401 - settings
    """A store at a real broker, and an edge that talks to it."""
    known = config.Config(broker=config.Broker(url=broker.url), bucket=bucket, **more)
    ready = asyncio.Event()
    connect = functools.partial(Session, known.broker, max_message=messages.MAX_MESSAGE_BYTES * 4)
    task = asyncio.create_task(serve_store(known, connect, ready=ready.set))
    filters = [("receipts/#", 1), (topics.HELLOS, 1)]
    async with Session(known.broker, client_id="edge", subscribe=filters, max_message=300_000) as session:
        edge = Edge(session)
        listening = asyncio.create_task(edge.listen())
        await session.wait_connected()
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([task, waiting], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert ready.is_set(), task
        yield edge
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        listening.cancel()


def test_a_mixed_lot_through_a_real_broker(
    broker: Server, tmp_path: Path, make_face: Make, jpeg: bytes
) -> None:
    where = config.Bucket(url=f"file://{tmp_path}")
    bucket = open_bucket(where)
    good, damaged, erased = [make_face() for _ in range(300)], make_face(), make_face()
    books = messages.Ledger(outbox="a" * 32, cameras={"home/door": messages.Account(captured=1, stored=1)})

    async def scenario() -> None:
        await erase(bucket, ids=[erased.face.id], longest_put=0)
        async with serving(broker, where) as edge:
            await until(lambda: edge.hellos)
            for payload in (pickle.dumps([1]), jpeg[:-200], huge_jpeg(jpeg), damaged.data[:-50], png()):
                await edge.send(payload)
            await edge.send(erased.data)
            for site in ("home", "away"):
                await edge.send(books.to_bytes(), f"ledger/{site}/{'a' * 32}")
            await edge.send(b"{", f"ledger/home/{'b' * 32}")
            await asyncio.gather(*(edge.send(one.data) for one in good))
            await edge.send(good[0].data)
            outcomes = {answer.outcome for answer in await edge.answered(*good)}
            assert outcomes == {"stored"}
            (refused, gone) = await edge.answered(damaged, erased)
            assert (refused.outcome, gone.outcome) == ("refused:truncated", "erased")
            await until(lambda: edge.receipts[good[0].face.id].duplicate)
            assert edge.batches < 100

    asyncio.run(scenario())
    assert set(listed(bucket, "faces")) == {one.key for one in good}
    assert len(listed(bucket, "foreign")) == 1
    assert len(listed(bucket, "quarantine")) == 2 * 4
    assert listed(bucket, "ledger") == [f"ledger/site=home/{'a' * 32}.json"]
    data = asyncio.run(bucket.get(listed(bucket, "ledger")[0], max_bytes=10_000))
    assert messages.Ledger.from_bytes(data) == books


def test_a_store_into_s3_whose_server_dies_under_it(broker: Server, weed: Weed, make_face: Make) -> None:
    where = weed.bucket("killed")
    faces = [make_face() for _ in range(200)]

    async def scenario() -> None:
        async with serving(broker, where) as edge:
            await asyncio.gather(*(edge.send(one.data) for one in faces[:50]))
            await edge.answered(*faces[:50])
            await asyncio.to_thread(weed.kill)
            await asyncio.gather(*(edge.send(one.data) for one in faces[50:]))
            await asyncio.sleep(0.5)
            assert len(edge.receipts) == 50
            await asyncio.to_thread(weed.start)
            assert {answer.outcome for answer in await edge.answered(*faces)} == {"stored"}
        bucket = open_bucket(where)
        for one in faces:
            assert await bucket.get(one.key, max_bytes=100_000) == one.data

    asyncio.run(scenario())


def test_each_connection_has_its_own_hello(tmp_path: Path, make_face: Make) -> None:
    if MOSQUITTO is None:
        lacking("Mosquitto is not installed")

    async def scenario(broker: Server) -> None:
        async with serving(broker, config.Bucket(url=f"file://{tmp_path}")) as edge:
            await until(lambda: edge.hellos)
            await asyncio.to_thread(broker.restart)
            await until(lambda: len({hello.start for hello in edge.hellos}) > 1)
            one = make_face()
            await edge.send(one.data)
            assert (await edge.answered(one))[0].outcome == "stored"

    with mosquitto() as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize(("delivery", "qos"), [("fast", 0), ("broker", 1), ("broker", 2)])
def test_without_receipts_it_stores_all_the_same(
    broker: Server, tmp_path: Path, make_face: Make, delivery: str, qos: int
) -> None:
    where = config.Bucket(url=f"file://{tmp_path}")
    faces = [make_face() for _ in range(50)]

    async def scenario() -> None:
        name = sections.Store(name=f"s{delivery}{qos}")
        async with serving(broker, where, delivery=delivery, qos=qos, store=name) as edge:
            for one in faces:
                await edge.send(one.data, qos=qos)
            keys = {one.key for one in faces}
            await until(lambda: {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.jpg")} == keys)
            await asyncio.sleep(0.1)
            assert edge.batches == 0

    asyncio.run(scenario())


def test_at_broker_what_is_not_durable_is_not_acknowledged(
    broker: Server, tmp_path: Path, make_face: Make
) -> None:
    """A store that dies before its PUT was answered gets the face again from the broker."""
    blocked = tmp_path / "bucket"
    blocked.write_text("not a folder")
    one = make_face()
    settings: dict[str, Any] = {"delivery": "broker", "store": sections.Store(name="resumed")}

    async def scenario() -> None:
        async with serving(broker, config.Bucket(url=f"file://{blocked}"), **settings) as edge:
            await edge.send(one.data)
            await asyncio.sleep(0.5)
        blocked.unlink()
        async with serving(broker, config.Bucket(url=f"file://{blocked}"), **settings):
            await until((blocked / one.key).exists)

    asyncio.run(scenario())


def test_a_face_of_ours_over_the_stores_limits_is_answered_all_the_same(make_face: Make) -> None:
    async def check() -> None:
        bucket = open_bucket(config.Bucket(url="memory://"))
        quarantine = Quarantine(bucket, max_bytes=10**6, keep=timedelta(days=1))
        for limits, reason in (
            (face.Limits(bytes=1000), "too-large"),
            (face.Limits(pixels=10), "too-many-pixels"),
        ):
            keeper = Keeper(
                bucket, limits=limits, topic=topics.FaceTopic("faces/{site}/{camera}"),
                quarantine=quarantine, tombstones=Tombstones(bucket),
            )  # fmt: skip
            frozen = make_face()
            answer = await keeper.keep("faces/home/door", frozen.data)
            assert answer is not None
            assert (answer.receipt.id, answer.receipt.outcome) == (frozen.face.id, f"refused:{reason}")

    asyncio.run(check())
