"""The layout `shards`, as stores write it: held, then stored, or not told; nothing that was erased."""

from __future__ import annotations

import asyncio
import functools
import io
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from buckets import Weed
from chains import Chain, chain
from conftest import Make
from facerelay import config, messages, sections, topics
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.cloud.counters import Counters
from facerelay.cloud.erase import erase
from facerelay.cloud.holding import LOOK_S
from facerelay.cloud.housekeeping import Housekeeping
from facerelay.cloud.keep import Answer, Keeper
from facerelay.cloud.notices import Notices
from facerelay.cloud.peers import Peers
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.shards import catalogue, names
from facerelay.cloud.shards.open import OpenShards, open_shards
from facerelay.cloud.shards.orphans import Orphans
from facerelay.cloud.shards.pack import Pack
from facerelay.cloud.shards.row import Row
from facerelay.cloud.store import serve_store
from facerelay.cloud.tombstones import Tombstone, Tombstones, bury
from facerelay.commands.running import connector
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relay import Relay
from facerelay.edge.relaying import relaying
from facerelay.face import Frozen, Limits
from facerelay.link.session import Session
from facerelay.messages import Receipt
from facerelay.topics import FaceTopic
from faults.bucket_proxy import BucketProxy
from servers import Server
from shards import put_shards
from test_store import Edge
from waiting import until

TOPIC = "faces/home/door"
MOST = 10**9


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{tmp_path}/bucket"))


class Shop:
    """What a store is made of, without MQTT: `answers` are the receipts that came later."""

    running: asyncio.Task[None]

    def __init__(
        self,
        bucket: Bucket,
        *,
        most_bytes: int,
        most_s: float,
        age_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.bucket = bucket
        self.answers: dict[str, list[Receipt]] = {}
        self.counters = Counters()
        tombstones = self.tombstones = Tombstones(bucket, age_s=age_s, clock=clock)
        settings = sections.Store(layout="shards", shard_bytes=1_000_000, shard_s=most_s)
        settings = settings.model_copy(update={"shard_bytes": most_bytes})
        self.shards: OpenShards = open_shards(
            settings, bucket, tombstones=tombstones, counters=self.counters, settle=self._settle
        )
        self.shards._clock = clock
        self.keeper = Keeper(
            bucket, limits=Limits(), topic=FaceTopic("faces/{site}/{camera}"), tombstones=tombstones,
            quarantine=Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1)),
            counters=self.counters, shelf=self.shards,
        )  # fmt: skip

    async def _settle(self, pack: Pack, outcome: str, rows: Sequence[Row]) -> None:
        for answer in await self.keeper.settle(pack, outcome, rows):
            self.answers.setdefault(answer.receipt.id, []).append(answer.receipt)

    async def keep(self, *faces: Frozen) -> list[str]:
        answers = [await self.keeper.keep(TOPIC, one.data) for one in faces]
        return [_outcome(answer) for answer in answers]

    def outcomes(self, *faces: Frozen) -> set[str]:
        return {receipt.outcome for one in faces for receipt in self.answers.get(one.face.id, [])}

    async def finish(self) -> None:
        """End in order."""
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running
        await self.shards.finish()

    async def settled(self, *faces: Frozen) -> None:
        await until(lambda: all(one.face.id in self.answers for one in faces))


def _outcome(answer: Answer | None) -> str:
    assert answer is not None
    return answer.receipt.outcome + (" again" if answer.receipt.duplicate else "")


@asynccontextmanager
async def shop(
    bucket: Bucket,
    *,
    most_bytes: int = 10**7,
    most_s: float = 600,
    age_s: float = 0,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Shop]:
    made = Shop(bucket, most_bytes=most_bytes, most_s=most_s, age_s=age_s, clock=clock)
    made.running = asyncio.create_task(made.shards.run())
    try:
        yield made
    finally:
        made.running.cancel()
        with suppress(asyncio.CancelledError):
            await made.running


async def listed(bucket: Bucket, prefix: str) -> list[str]:
    return sorted([entry.key async for entry in bucket.list(prefix)])


async def lying(bucket: Bucket) -> dict[str, bytes]:
    """Return the pictures of all shards by id, as their catalogues tell of them and a tar reader reads them.

    What the two say is the same, or this fails.
    """
    found: dict[str, bytes] = {}
    for key in await listed(bucket, "catalogue"):
        shard = names.parse(key)
        assert shard is not None
        rows = catalogue.read(await bucket.get(key, max_bytes=MOST), tar=shard.tar)
        data = await bucket.get(shard.tar, max_bytes=MOST)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = {one.name: tar.extractfile(one) for one in tar.getmembers()}
        assert len(members) == 2 * len(rows)
        for row in rows:
            stem = f"{row.id}-{row.sha256[:8]}"
            picture, facts = members[f"{stem}.{row.extension}"], members[f"{stem}.json"]
            assert picture is not None
            assert facts is not None
            assert row.id.encode() in facts.read()
            found[row.id] = picture.read()
            assert found[row.id] == data[row.offset : row.offset + row.length]
    return found


def sent(faces: Sequence[Frozen]) -> dict[str, bytes]:
    return {one.face.id: one.data for one in faces}


def test_a_face_is_held_then_stored_and_the_same_again_is_no_other(bucket: Bucket, make_face: Make) -> None:
    async def check() -> None:
        async with shop(bucket, most_bytes=100_000) as s:
            faces = [make_face() for _ in range(12)]
            other = make_face(id=faces[0].face.id)
            assert await s.keep(faces[0], faces[0], other) == ["held", "held", "refused:conflict"]
            assert await s.keep(*faces[1:]) == ["held"] * 11
            await until(lambda: len(s.answers) > 3)
            closed = [one for one in faces if one.face.id in s.answers]
            assert s.outcomes(*closed) == {"stored"}
            assert await s.keep(closed[0], make_face(id=closed[0].face.id)) == [
                "stored again",
                "refused:conflict",
            ]
            await s.finish()
            assert all(len(s.answers[one.face.id]) == 1 for one in faces)
            assert await lying(bucket) == sent(faces)
            assert (s.counters.held, s.counters.stored, s.counters.duplicates) == (12, 12, 1)
            assert len(await listed(bucket, "shards")) == s.counters.shards > 1

    asyncio.run(check())


def test_each_day_has_its_own_and_few_are_open(bucket: Bucket, make_face: Make) -> None:
    async def check() -> None:
        async with shop(bucket) as s:
            days = [datetime(2026, 11, day, 23, 59, 59, 999_999, UTC) for day in range(1, 8)]
            faces = [make_face(time=at) for at in days for _ in range(2)]
            await s.keep(*faces)
            await s.settled(*faces[:6])
            assert s.outcomes(*faces[6:]) == set()
            await s.finish()
            assert await lying(bucket) == sent(faces)
            dates = [key.split("/")[1] for key in await listed(bucket, "shards")]
            assert dates == [f"date=2026-11-0{day}" for day in range(1, 8)]

    asyncio.run(check())


def test_a_shard_is_closed_by_its_age(bucket: Bucket, make_face: Make) -> None:
    async def check() -> None:
        async with shop(bucket, most_s=0.2) as s:
            one = make_face()
            assert await s.keep(one) == ["held"]
            await s.settled(one)
            assert await lying(bucket) == sent([one])

    asyncio.run(check())


def gone_with(real: Callable[..., Awaitable[bool]], bucket: Bucket, at: str, one: Frozen) -> Any:  # noqa: ANN401 - a method
    """Return a `put_new` during whose PUT of a tar or a catalogue a face is erased."""

    @functools.wraps(real)
    async def put_new(key: str, data: bytes, **more: Any) -> bool:  # noqa: ANN401 - whatever is given
        placed = await real(key, data, **more)
        if key.startswith(at):
            await bury(bucket, Tombstone(made=datetime.now(UTC), ids=(one.face.id,)))
        return placed

    return put_new


@pytest.mark.parametrize("when", ["before", "shards/", "catalogue/", "between"])
def test_what_is_erased_while_it_is_held_or_closed_is_nowhere(
    tmp_path: Path, bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    faces = [make_face() for _ in range(5)]

    async def check() -> None:
        async with shop(bucket) as s:
            await s.keep(*faces)
            if when == "before":
                await bury(bucket, Tombstone(made=datetime.now(UTC), ids=(faces[2].face.id,)))
            else:
                at = "shards/" if when == "between" else when
                monkeypatch.setattr(bucket, "put_new", gone_with(bucket.put_new, bucket, at, faces[2]))
            if when == "between":
                monkeypatch.setattr("facerelay.cloud.shards.closing.AGE_S", 0.0)
            await s.finish()
            rest = [*faces[:2], *faces[3:]]
            assert s.outcomes(*rest) == {"stored"}
            assert s.outcomes(faces[2]) == {"erased"}
            assert await lying(bucket) == sent(rest)
            assert len(await listed(bucket, "shards")) == 1
            assert await s.keep(faces[2]) == ["erased"]

    asyncio.run(check())
    files = [path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()]
    (there, gone) = (faces[n].face.id.replace("-", "").encode() for n in (0, 2))  # as EXIF has them
    assert any(there in data for data in files)
    assert not any(gone in data for data in files)


def test_a_clock_ahead_takes_nothing_past_an_erasure_while_it_is_held(
    bucket: Bucket, make_face: Make
) -> None:
    ahead, later = (make_face(time=datetime.now(UTC) + timedelta(hours=1)) for _ in range(2))

    async def check() -> None:
        async with shop(bucket) as s:
            await s.keep(ahead)
            assert (await erase(bucket, site="home", longest_put=0)).count == 0
            await s.keep(later)
            await s.finish()
            assert (s.outcomes(ahead), s.outcomes(later)) == ({"erased"}, {"stored"})
            assert await lying(bucket) == sent([later])
            assert await s.keep(ahead) == ["erased"]  # its receipt was lost, and it comes once more

    asyncio.run(check())


def test_what_is_refused_and_erased_is_not_in_quarantine(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_face()

    async def check() -> None:
        async with shop(bucket, age_s=600) as s:
            await s.tombstones.refresh()
            assert await s.keep(one) == ["held"]
            await bury(bucket, Tombstone(made=datetime.now(UTC), ids=(one.face.id,)))
            monkeypatch.setattr("facerelay.cloud.keep.AGE_S", 0.0)  # as when so much time is over
            assert await s.keep(make_face(id=one.face.id)) == ["erased"]
            assert await listed(bucket, "quarantine") == []

    asyncio.run(check())


def test_three_hundred_faces_cost_five_requests_at_most(weed: Weed, make_face: Make) -> None:
    proxy, now = BucketProxy(weed.ports[0]), 1000.0
    where = weed.bucket("requests")

    async def tell(*_: object) -> None:
        raise AssertionError

    async def check() -> None:
        nonlocal now
        await proxy.start()
        bucket = open_bucket(where.model_copy(update={"endpoint": f"http://127.0.0.1:{proxy.port}"}))
        async with shop(bucket, most_s=300, age_s=LOOK_S, clock=lambda: now) as s:
            notices = Notices(s.tombstones, tell, clock=lambda: now)
            for _ in range(3):
                faces = []
                for _ in range(300):
                    now += 1
                    faces.append(make_face())
                    assert await s.keep(faces[-1]) == ["held"]
                    await notices.tell()  # at each ledger that comes
                now += 1
                await s.settled(*faces)
                assert s.outcomes(*faces) == {"stored"}
        await bucket.close()
        await proxy.close()

    asyncio.run(check())
    assert proxy.methods[b"PUT"] == 3 * 2
    assert proxy.methods.total() <= 3 * 5


def refusing(
    real: Callable[..., Awaitable[bool]], refuses: Callable[[str, bytes], str | None]
) -> Callable[..., Awaitable[bool]]:
    @functools.wraps(real)
    async def put_new(key: str, data: bytes, **more: Any) -> bool:  # noqa: ANN401 - whatever is given
        if fault := refuses(key, data):
            raise BucketError(key, "no", fault)  # type: ignore[arg-type]
        return await real(key, data, **more)

    return put_new


def test_while_the_bucket_is_down_nothing_is_told_and_memory_is_bounded(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = True
    real = refusing(bucket.put_new, lambda *_: "unreachable" if down else None)
    monkeypatch.setattr(bucket, "put_new", real)

    async def check() -> None:
        nonlocal down
        async with shop(bucket, most_bytes=50_000) as s:
            faces = [make_face() for _ in range(30)]
            keeping = [asyncio.create_task(s.keep(one)) for one in faces]
            await asyncio.sleep(0.5)
            done = sum(task.done() for task in keeping)
            size = len(faces[0].data) + 2_000
            assert 5 < done < 30
            assert done * len(faces[0].data) <= 3 * 50_000 + size
            assert s.answers == {}
            down = False
            assert [await task for task in keeping] == [["held"]] * 30
            await s.finish()
            assert await lying(bucket) == sent(faces)
            assert s.outcomes(*faces) == {"stored"}

    asyncio.run(check())


def test_a_shard_that_the_bucket_finds_too_large_is_halved(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.patience._FIRST_DELAY_S", 0.001)
    faces = [make_face() for _ in range(8)]
    unwanted = faces[5]

    def refuses(key: str, data: bytes) -> str | None:
        large = len(data) > 4 * (len(faces[0].data) + 3_000)
        return "refused" if key.startswith("shards/") and (large or unwanted.data in data) else None

    monkeypatch.setattr(bucket, "put_new", refusing(bucket.put_new, refuses))

    async def check() -> None:
        async with shop(bucket) as s:
            await s.keep(*faces)
            await s.finish()
            rest = [one for one in faces if one is not unwanted]
            assert s.outcomes(*rest) == {"stored"}
            assert s.outcomes(unwanted) == {"refused:bucket"}
            assert await lying(bucket) == sent(rest)
            assert await s.keep(unwanted) == ["held"]  # it was not stored, and is not believed to be

    asyncio.run(check())


def test_a_tar_without_catalogue_is_adopted_and_what_is_none_of_ours_is_left(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = [make_face() for _ in range(6)]
    real = bucket.put_new

    async def fall(key: str, data: bytes, **more: Any) -> bool:  # noqa: ANN401 - whatever is given
        if key.startswith("catalogue/"):
            raise asyncio.CancelledError
        return await real(key, data, **more)

    async def check() -> None:
        async with shop(bucket) as s:
            monkeypatch.setattr(bucket, "put_new", fall)
            await s.keep(*faces)
            with suppress(asyncio.CancelledError):
                await s.finish()
            monkeypatch.setattr(bucket, "put_new", real)
        (orphan,) = await listed(bucket, "shards")
        date = orphan.split("/")[1]
        alien = f"shards/{date}/20261101T000000Z-store-00000000.tar"
        for data, key in ((b"x" * 5_000, alien), (b"", alien.replace("-0000", "-1111"))):
            await bucket.put_new(key, data)
        await bury(bucket, Tombstone(made=datetime.now(UTC), ids=(faces[1].face.id,)))
        soon = Orphans(bucket, Tombstones(bucket))
        assert (await soon.look()).adopted == 0
        assert await listed(bucket, "catalogue") == []
        late = Orphans(bucket, Tombstones(bucket), clock=lambda: datetime.now(UTC) + timedelta(minutes=11))
        found = await late.look()
        assert (found.adopted, found.foreign) == (1, 2)
        assert await lying(bucket) == sent([faces[0], *faces[2:]])
        assert orphan not in await listed(bucket, "shards")
        assert alien in await listed(bucket, "shards")
        found = await late.look()
        assert (found.adopted, found.foreign) == (0, 0)

    asyncio.run(check())


def test_a_tar_of_an_old_day_that_was_too_young_is_looked_at_again(bucket: Bucket, make_face: Make) -> None:
    old = [make_face(time=datetime.now(UTC) - timedelta(days=20)) for _ in range(3)]
    at = datetime.now(UTC)

    async def check() -> None:
        nonlocal at
        await put_shards(bucket, old, lines=False)
        orphans = Orphans(bucket, Tombstones(bucket), clock=lambda: at)
        assert (await orphans.look()).adopted == 0
        at += timedelta(minutes=11)
        assert (await orphans.look()).adopted == 1
        assert await lying(bucket) == sent(old)

    asyncio.run(check())


def test_a_tar_that_cannot_be_read_keeps_nothing_else_from_being_done(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [make_face(time=datetime.now(UTC) - timedelta(days=n)) for n in (20, 10)]
    real, now = bucket.get, 0.0

    async def check() -> None:
        nonlocal now
        broken, _ = await put_shards(bucket, days, lines=False)

        async def get(key: str, *, max_bytes: int) -> bytes:
            if key == broken.tar:
                raise BucketError(key, "no", "unreachable")
            return await real(key, max_bytes=max_bytes)

        monkeypatch.setattr(bucket, "get", get)
        late = Orphans(bucket, Tombstones(bucket), clock=lambda: datetime.now(UTC) + timedelta(minutes=11))
        aside = Quarantine(bucket, max_bytes=10**6, keep=timedelta(0))
        await aside.put("faces/x", b"x", "no")
        peers = Peers("a")
        peers.settle()
        house = Housekeeping(bucket, aside, peers, keep=None, orphans=late, clock=lambda: now)
        with pytest.raises(BucketError):
            await house.look()
        assert await listed(bucket, "quarantine") == []
        assert await lying(bucket) == sent(days[1:])
        monkeypatch.setattr(bucket, "get", real)
        await house.look()  # it is tried again at the next turn, not at once
        assert len(await lying(bucket)) == 1
        now += 3601
        await house.look()
        assert await lying(bucket) == sent(days)

    asyncio.run(check())


def test_at_broker_shards_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r'store.layout = "shards" needs delivery = "receipt"'):
        config.Config(delivery="broker", store=sections.Store(layout="shards"))


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_stores_at_a_real_broker_close_at_their_end(
    broker: Server, weed: Weed, tmp_path: Path, make_face: Make, kind: str
) -> None:
    where = weed.bucket("closing") if kind == "s3" else config.Bucket(url=f"file://{tmp_path}/bucket")
    known = config.Config(
        broker=config.Broker(url=broker.url), bucket=where, store=sections.Store(layout="shards", shard_s=600)
    )
    faces = [make_face() for _ in range(200)]

    async def check() -> None:
        ready = asyncio.Event()
        connect = functools.partial(Session, known.broker, max_message=messages.MAX_MESSAGE_BYTES * 4)
        filters = [("receipts/#", 1), (topics.HELLOS, 1)]
        async with Session(known.broker, client_id="edge", subscribe=filters, max_message=300_000) as session:
            edge = Edge(session)
            listening = asyncio.create_task(edge.listen())
            await session.wait_connected()
            store = asyncio.create_task(serve_store(known, connect, ready=ready.set))
            await asyncio.wait([store, asyncio.create_task(ready.wait())], return_when="FIRST_COMPLETED")
            await asyncio.gather(*(edge.send(one.data) for one in faces))
            assert {answer.outcome for answer in await edge.answered(*faces)} == {"held"}
            assert await listed(open_bucket(where), "shards") == []
            store.cancel()
            with suppress(asyncio.CancelledError):
                await store
            await until(lambda: {one.outcome for one in edge.receipts.values()} == {"stored"})
            listening.cancel()
        assert await lying(open_bucket(where)) == sent(faces)

    asyncio.run(check())


def test_what_a_store_held_that_fell_goes_to_the_one_beside_it(
    broker: Server, bucket: Bucket, tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.edge.held._SPREAD_S", 0.1)
    monkeypatch.setattr("facerelay.cloud.peers.GONE_S", 3.0)
    monkeypatch.setattr("facerelay.cloud.peers.BEAT_S", 0.5)
    where = config.Config(
        site="home", direct=True, broker=config.Broker(url=broker.url),
        bucket=config.Bucket(url=f"file://{tmp_path}/bucket"),
        outbox=sections.Outbox(path=tmp_path / "outbox.db"),
    )  # fmt: skip
    finish = OpenShards.finish

    async def store(name: str, stack: AsyncExitStack) -> asyncio.Task[None]:
        known = sections.Store(name=name, intake="shared", layout="shards", shard_s=600)
        ready = asyncio.Event()
        role = serve_store(where.model_copy(update={"store": known}), connector(where), ready=ready.set)
        task = asyncio.create_task(role)
        stack.callback(task.cancel)
        await asyncio.wait([task, asyncio.create_task(ready.wait())], return_when="FIRST_COMPLETED")
        return task

    async def held(relay: Relay, true: Callable[[int], bool]) -> None:
        while not true((await relay.pulse.look(resets=0)).held):
            await asyncio.sleep(0.05)

    async def check(outbox: Outbox) -> dict[str, bytes]:
        faces = []
        async with AsyncExitStack() as stack, asyncio.timeout(60):
            one, other = await store("one", stack), await store("other", stack)
            relay = await stack.enter_async_context(relaying(where, outbox, connector(where)))
            for _ in range(200):
                faces.append(make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()))
                outbox.put(faces[-1], chosen=time.time())
            await held(relay, lambda n: n == 200)
            monkeypatch.setattr(OpenShards, "finish", lambda _: asyncio.sleep(0))
            one.cancel()
            await asyncio.wait([one])
            monkeypatch.setattr(OpenShards, "finish", finish)
            await held(relay, lambda n: 50 < n < 150)
            await held(relay, lambda n: n == 200)
            other.cancel()
            await asyncio.wait([other])
            await held(relay, lambda n: n == 0)
            assert outbox.waiting().result() == 0
        return sent(faces)

    with open_outbox(where) as outbox:
        faces = asyncio.run(check(outbox))

    async def lies() -> None:
        assert await lying(bucket) == faces
        (only,) = await listed(bucket, "shards")
        assert "-other-" in only

    asyncio.run(lies())


@contextmanager
def shards(folder: Path, seconds: float, **more: Any) -> Iterator[Chain]:  # noqa: ANN401 - settings
    cloud = {"store": {"layout": "shards", "shard_s": seconds}}
    with chain(
        folder, edge_broker="mosquitto", cloud_broker="mosquitto", sides={"cloud": cloud}, **more
    ) as c:
        yield c


def faces_of(c: Chain) -> dict[str, Any]:
    books: dict[str, Any] = c.books(audit=False)["cameras"].get("home/door", {})
    return books


def test_a_store_that_is_killed_with_an_open_shard_gets_its_faces_again_and_one_that_is_ended_stores_them(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.edge.held._SPREAD_S", 0.5)

    async def held(relay: Relay, true: Callable[[int], bool]) -> None:
        while not true((await relay.pulse.look(resets=0)).held):
            await asyncio.sleep(0.05)

    async def check(c: Chain, outbox: Outbox) -> dict[str, bytes]:
        faces = []
        async with asyncio.timeout(60), relaying(c.edge, outbox, connector(c.edge)) as relay:
            for _ in range(200):
                faces.append(make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()))
                outbox.put(faces[-1], chosen=time.time())
            await held(relay, lambda n: n == 200)
            c["store"].kill()
            await asyncio.to_thread(c["store"].restart)
            await held(relay, lambda n: n < 200)
            await held(relay, lambda n: n == 200)
            assert c.objects("shards") == []
            await asyncio.to_thread(c["store"].end)
            await held(relay, lambda n: n == 0)
            account = (await asyncio.wrap_future(outbox.ledger())).cameras["home/door"]
            assert (account.captured, account.stored, account.waiting) == (200, 200, 0)
        return sent(faces)

    with shards(tmp_path, 600) as c, open_outbox(c.edge) as outbox:
        faces = asyncio.run(check(c, outbox))
        assert asyncio.run(lying(open_bucket(c.cloud.bucket))) == faces
        assert len(c.objects("shards")) == 1


class Cut(BucketProxy):
    """A way to the bucket on which tars go, and catalogues don't come back."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.reached = threading.Event()
        self.cuts = True

    async def _break(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        if self.cuts and b"/catalogue/" in request.split(b"\r\n", 1)[0].replace(b"%2F", b"/"):
            self.reached.set()
            return False
        reader, far = await asyncio.open_connection("127.0.0.1", self._target)
        line, _, rest = request.partition(b"\r\n")
        far.write(line + b"\r\nConnection: close\r\n" + rest)
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        far.transport.abort()
        return False


@contextmanager
def in_thread(proxy: BucketProxy) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(10)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(proxy.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_a_store_that_is_killed_between_tar_and_catalogue_loses_nothing(weed: Weed, tmp_path: Path) -> None:
    proxy = Cut(weed.ports[0])
    proxy.set("500")  # all writes go through `_break`
    with in_thread(proxy):
        where = weed.bucket("between")
        way = {
            "url": where.url, "endpoint": f"http://127.0.0.1:{proxy.port}", "access_key": weed.access_key,
            "secret_key": weed.secret_key,
        }  # fmt: skip
        with shards(tmp_path, 1, bucket=way) as c:
            feeder = c.feed(100, 100)
            assert proxy.reached.wait(30), c["store"].text()
            c["store"].kill()
            proxy.cuts = False
            c["store"].restart()
            c.finished(feeder)
            account = faces_of(c)
            assert (account["captured"], account["stored"], account["waiting"]) == (100, 100, 0)

    async def check() -> None:
        bucket = open_bucket(where)
        assert len(await lying(bucket)) == 100
        alone = len(await listed(bucket, "shards")) - len(await listed(bucket, "catalogue"))
        assert alone == 1
        late = Orphans(bucket, Tombstones(bucket), clock=lambda: datetime.now(UTC) + timedelta(minutes=11))
        assert (await late.look()).adopted == 1
        assert len(await lying(bucket)) == 100

    asyncio.run(check())
