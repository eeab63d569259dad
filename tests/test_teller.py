from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import servers
from facerelay import topics
from facerelay.alarms import Report
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.read_books import read_books, read_outbox
from facerelay.config import Broker
from facerelay.config import Bucket as Where
from facerelay.edge.outbox import Outbox
from facerelay.edge.teller import Teller
from facerelay.link.session import Session
from facerelay.messages import Account, Ledger, LinkHealth

COUNTS = {
    "frames": 1000,
    "inspected": 900,
    "detections": 20,
    "captured": 0,
    "bytes": 10**6,
    "gate:blurred": 9,
}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        yield outbox


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(Where(url=f"file://{tmp_path / 'bucket'}"))


def watch(outbox: Outbox, cameras: int, *, site: str = "home", more: int = 0) -> None:
    """Count something for so many cameras."""
    for number in range(cameras):
        outbox.count(site, f"camera-{number:04d}", **{**COUNTS, "frames": COUNTS["frames"] + more})


async def health() -> LinkHealth:
    return LinkHealth(time=datetime.now(UTC), oldest_s=1.5)


class Chain:
    """An outbox's teller at one end of a real broker, a store's books at the other."""

    def __init__(self, teller: Teller, far: Session, books: Books, bucket: Bucket) -> None:
        self.teller, self._far, self._books, self._bucket = teller, far, books, bucket

    async def tell(self, *, everything: bool = False) -> dict[str, int]:
        """Tell; returns what came through, in bytes by topic."""
        await self.teller.tell(everything=everything)
        # QoS 0 keeps its order, so all came that was sent before this.
        await self._near_end()
        came: dict[str, int] = {}
        async for message in self._far:
            message.ack()
            if message.topic == "ledger/end":
                return came
            assert self._books.take(message.topic, message.payload)
            came[message.topic] = len(message.payload)
        raise AssertionError("the session ended")

    async def _near_end(self) -> None:
        await self.teller._session.publish("ledger/end", b"", qos=0)

    async def reported(self) -> list[Report]:
        await self._books.flush()
        return [one async for one in read_books(self._bucket)]


@asynccontextmanager
async def telling(outbox: Outbox, bucket: Bucket, *, site: str = "home") -> AsyncIterator[Chain]:
    with servers.mosquitto() as server:
        where = Broker(url=server.url)
        async with (
            Session(where, client_id="near", max_message=10**6) as near,
            Session(where, client_id="far", subscribe=[(topics.LEDGERS, 0)], max_message=10**6) as far,
        ):
            await near.wait_connected()
            await far.wait_connected()
            yield Chain(Teller(outbox, near, site=site, health=health), far, Books(bucket), bucket)


def test_few_cameras_are_one_message_as_they_always_were(outbox: Outbox, bucket: Bucket) -> None:
    async def check() -> None:
        watch(outbox, 100)
        async with telling(outbox, bucket) as chain:
            assert list(await chain.tell()) == [f"ledger/home/{outbox.id}"]
            (told,) = await chain.reported()
            assert told.site == "home"
            assert told.books.cameras == outbox.ledger().result().cameras
            assert told.books.link is not None
            assert told.books.link.oldest_s == 1.5

    asyncio.run(check())


def test_books_of_twelve_hundred_cameras_come_through_a_bounded_piece_at_a_time(
    outbox: Outbox, bucket: Bucket
) -> None:
    async def check() -> None:
        watch(outbox, 1200)
        async with telling(outbox, bucket) as chain:
            rounds = [await chain.tell()]
            while len(rounds) == 1 or len(rounds[-1]) > 1:
                rounds.append(await chain.tell())
                assert len(rounds) < 20
            assert len({topic for each in rounds for topic in each}) > 10
            for each in rounds:
                assert sum(each.values()) <= 65_536
            assert f"ledger/home/{outbox.id}" in rounds[0], "the first tells how the link does"
            (told,) = await chain.reported()
            assert told.books.cameras == outbox.ledger().result().cameras
            assert len(told.books.cameras) == 1200

    asyncio.run(check())


def test_only_the_part_of_a_camera_that_changed_is_told_again(outbox: Outbox, bucket: Bucket) -> None:
    async def check() -> None:
        watch(outbox, 1000)
        async with telling(outbox, bucket) as chain:
            assert len(await chain.tell(everything=True)) > 10
            assert len(await chain.tell()) == 0, "but for the time"
            outbox.count("home", "camera-0007", frames=1, detections=1)
            assert len(await chain.tell()) <= 2
            (told,) = await chain.reported()
            assert told.books.cameras["home/camera-0007"].frames == 1001
            now = time.monotonic() + 26
            chain.teller._clock = lambda: now
            assert len(await chain.tell()) == 1, "a sign of life"
            outbox.count("home", "camera-0007", frames=1, detections=1)
            assert f"ledger/home/{outbox.id}" not in (await chain.tell())
            outbox.count("home", "camera-0007", frames=1)
            assert not await chain.tell(), "frames alone can wait"
            now += 26
            assert len(await chain.tell()) == 2
            chain.teller.anew()
            assert len(await chain.tell(everything=True)) > 10, "another broker knows nothing of it"

    asyncio.run(check())


def test_what_did_not_change_is_told_again_within_the_hour_or_so(outbox: Outbox, bucket: Bucket) -> None:
    async def check() -> None:
        watch(outbox, 400)
        async with telling(outbox, bucket) as chain:
            now = 50.0
            chain.teller._clock = lambda: now
            parts = len(await chain.tell(everything=True))
            now += 3000
            assert len(await chain.tell(everything=True)) == 1
            now += 700
            assert len(await chain.tell(everything=True)) == parts

    asyncio.run(check())


def test_more_cameras_than_before_make_more_parts_and_none_counts_twice(
    outbox: Outbox, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        watch(outbox, 300)
        async with telling(outbox, bucket) as chain:
            few = await chain.tell(everything=True)
            watch(outbox, 1000, more=5)
            await chain.tell()
            (partly,) = await chain.reported()
            assert "are not whole" in caplog.text
            true = outbox.ledger().result().cameras
            assert all(true[name] == account for name, account in partly.books.cameras.items())
            assert len(partly.books.cameras) < 1000
            assert len(await chain.tell(everything=True)) > len(few)
            (told,) = await chain.reported()
            assert told.books.cameras == true

    asyncio.run(check())


def test_a_renamed_site_leaves_its_books_under_the_old_name(outbox: Outbox, bucket: Bucket) -> None:
    async def check() -> None:
        watch(outbox, 3, site="old")
        watch(outbox, 2, site="new")
        async with telling(outbox, bucket, site="new") as chain:
            await chain.tell()
            found = {one.site: one.books for one in await chain.reported()}
            assert (len(found["old"].cameras), len(found["new"].cameras)) == (3, 2)
            assert found["old"].link is None
            assert found["new"].link is not None

    asyncio.run(check())


@pytest.mark.parametrize(
    ("topic", "part", "parts"),
    [
        ("ledger/home/{}", 1, 2),
        ("ledger/home/{}/1", 2, 4),
        ("ledger/home/{}/01", 1, 2),
        ("ledger/home/{}/0", 0, 2),
        ("ledger/home/{}/2", 2, 2),
        ("ledger/home/{}/1/1", 1, 2),
        ("ledger/away/{}/1", 1, 2),
        ("ledger/home/../1", 1, 2),
        ("ledger/home", 0, 1),
    ],
)
def test_a_part_that_is_not_what_its_topic_says_is_refused(
    bucket: Bucket, topic: str, part: int, parts: int
) -> None:
    outbox = "a" * 32
    books = Ledger(outbox=outbox, cameras={"home/door": Account()}, part=part, parts=parts)
    assert not Books(bucket).take(topic.format(outbox), books.to_bytes())


def test_books_that_old_versions_wrote_are_read_and_strange_files_are_not(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        for outbox in ("a" * 32, "b" * 32):
            account = '{"captured":2,"stored":2}'
            old = f'{{"v":1,"outbox":"{outbox}","cameras":{{"home/door":{account}}},"lost":null}}'
            await bucket.put(f"ledger/site=home/{outbox}.json", old.encode())
        await bucket.put(f"ledger/site=home/{'c' * 32}.json", b"{")
        await bucket.put(f"ledger/site=home/{'a' * 32}.7.json", b"{")
        await bucket.put("ledger/site=home/README.txt", b"hello")
        found = [one async for one in read_books(bucket)]
        assert sorted(one.books.outbox[0] for one in found) == ["a", "b"]
        assert all(one.books.cameras["home/door"].stored == 2 for one in found)
        assert f"{'c' * 32}.json" in caplog.text

    asyncio.run(check())


def test_one_site_that_tells_of_very_many_hides_no_other(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        many = {f"evil/c{n}": Account() for n in range(300)}
        for part in range(20):
            cameras = {f"{name}-{part}": account for name, account in many.items()}
            books = Ledger(outbox="e" * 8, cameras=cameras, part=part, parts=20)
            key = f"ledger/site=evil/{'e' * 8}" + (f".{part}" if part else "")
            await bucket.put(f"{key}.json", books.to_bytes())
        for n in range(300):
            books = Ledger(outbox=f"{n:08x}", cameras={"evil/c": Account()})
            await bucket.put(f"ledger/site=evil/{n:08x}.json", books.to_bytes())
        honest = Ledger(outbox="a" * 8, cameras={"home/door": Account(captured=1)})
        await bucket.put(f"ledger/site=home/{'a' * 8}.json", honest.to_bytes())
        found = [one async for one in read_books(bucket)]
        assert [one.books.cameras for one in found if one.site == "home"] == [honest.cameras]
        evil = [one for one in found if one.site == "evil"]
        assert len(evil) <= 250
        assert sum(len(one.books.cameras) for one in evil) <= 4000
        assert "301 outboxes" in caplog.text
        assert await read_outbox(bucket, "home", "a" * 8) == honest
        assert await read_outbox(bucket, "home", "a" * 7) is None

    asyncio.run(check())
