from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from buckets import Weed
from conftest import Make
from facerelay import config, messages, topics
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.gallery import live as lives
from facerelay.cloud.gallery import nudges
from facerelay.cloud.gallery.listings import Change
from facerelay.cloud.gallery.live import Live
from facerelay.config import Broker
from facerelay.face import Frozen
from facerelay.link.session import Session
from facerelay.messages import MAX_MESSAGE_BYTES, Receipt
from gallery_parts import Events, Served, fill, folder, parts_of, serving
from servers import Server


@pytest.fixture(params=["folder", "seaweedfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> config.Bucket:
    if request.param == "folder":
        return config.Bucket(url=f"file://{tmp_path}/b")
    weed: Weed = request.getfixturevalue("weed")
    return weed.bucket(prefix=tmp_path.name)


def now_face(make_face: Make, **known: Any) -> Frozen:  # noqa: ANN401 - any of the face's fields
    return make_face(time=datetime.now(UTC), **known)


async def next_faces(events: Events, count: int) -> set[str]:
    found: set[str] = set()
    while len(found) < count:
        name, data = await events.next()
        assert name == "face"
        found.add(data["key"])
    return found


def test_a_face_is_told_when_it_lands_whatever_is_new_about_it(
    place: config.Bucket, tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        bucket = open_bucket(place)
        async with serving(place, tmp_path, caplog) as served, served.listening() as events:
            for known in ({}, {"camera": "yard"}, {"site": "shop"}, {"camera": "yard"}):
                one = now_face(make_face, **known)
                await fill(bucket, [one])
                name, data = await events.next()
                assert (name, data["key"]) == ("face", one.key)
                assert (data["site"], data["camera"]) == (one.face.site, one.face.camera)
            await served.erase([one.key])
            assert await events.next() == ("erased", {"key": one.key})
            old = make_face(time=datetime.now(UTC) - timedelta(days=40), camera="clockless")
            await fill(bucket, [old])  # its clock is wrong; the slower look finds it
            assert await next_faces(events, 1) == {old.key}

    asyncio.run(scenario())


def test_each_listener_hears_what_it_asked_for_and_nothing_is_watched_for_nobody(
    tmp_path: Path, make_face: Make
) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        async with parts_of(bucket, tmp_path, look_s=0.1) as parts:
            live = parts.live
            all_of_it, yard = live.listen(), live.listen(camera="yard")
            for one in (all_of_it, yard):
                assert b"event: hello" in await anext(one)
            first, second = now_face(make_face), now_face(make_face, camera="yard")
            await fill(bucket, [first])
            assert first.key.encode() in await anext(all_of_it)
            await fill(bucket, [second])
            assert second.key.encode() in await anext(yard)
            assert second.key.encode() in await anext(all_of_it)
            for one in (all_of_it, yard):
                await one.aclose()
            assert live.listeners == 0
            await asyncio.sleep(0.3)
            before = parts.bucket.requests
            await asyncio.sleep(0.5)
            assert parts.bucket.requests == before
            again = live.listen()
            assert b"hello" in await anext(again)
            third = now_face(make_face)
            await fill(bucket, [third])
            while third.key.encode() not in await anext(again):
                pass
            await again.aclose()

    asyncio.run(scenario())


def test_a_busy_hour_is_followed_by_its_minutes(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.listings.PAGE", 5)

    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url="memory://"))
        async with parts_of(bucket, tmp_path, look_s=0.1) as parts:
            stream = parts.live.listen()
            await anext(stream)
            for _ in range(20):
                one = now_face(make_face)
                await fill(bucket, [one])
                async with asyncio.timeout(20):
                    while one.key.encode() not in await anext(stream):
                        pass
            await stream.aclose()

    asyncio.run(scenario())


def test_who_does_not_read_is_sent_away_and_holds_up_nobody(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.live._QUEUE", 5)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        async with parts_of(bucket, tmp_path, look_s=0.1) as parts:
            slow, quick = parts.live.listen(), parts.live.listen()
            for one in (slow, quick):
                await anext(one)
            heard = set()
            for _ in range(8):
                one_face = now_face(make_face)
                await fill(bucket, [one_face])
                heard.add(await anext(quick))
            assert len(heard) == 8
            assert [event async for event in slow] == []
            assert parts.live.listeners == 1
            await quick.aclose()

    asyncio.run(scenario())


def test_who_comes_at_the_same_moment_and_is_one_too_many_is_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lives, "MOST_LISTENERS", 1)

    async def scenario() -> None:
        async with parts_of(folder(tmp_path / "b"), tmp_path) as parts:
            first, second = parts.live.listen(), parts.live.listen()
            assert b"hello" in await anext(first)
            assert [event async for event in second] == []
            assert parts.live.listeners == 1
            await first.aclose()

    asyncio.run(scenario())


def test_no_more_listen_than_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lives, "MOST_LISTENERS", 2)

    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            async with served.listening(), served.listening("?site=home"):
                assert "close another" in (await served.json("/api/live", 503))["error"]
            async with asyncio.timeout(20):
                while not await _can_listen(served):
                    await asyncio.sleep(0.05)
            await served.json("/api/live?site=Home", 400)

    asyncio.run(scenario())


async def _can_listen(served: Served) -> bool:
    try:
        async with served.listening():
            return True
    except AssertionError:
        return False


def test_a_bucket_that_comes_back_is_looked_at_again(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.live._SLOW_S", 0.2)
    (tmp_path / "b").write_text("in the way")

    async def scenario() -> None:
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served, served.listening() as events:
            async with asyncio.timeout(20):
                while "cannot look" not in caplog.text:
                    await asyncio.sleep(0.05)
            (tmp_path / "b").unlink()
            one = now_face(make_face)
            await fill(folder(tmp_path / "b"), [one])
            assert await next_faces(events, 1) == {one.key}

    asyncio.run(scenario())


def test_a_watcher_that_falls_is_replaced(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fall(_: Live) -> None:
        raise RuntimeError("a fault of ours")

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        async with parts_of(bucket, tmp_path, look_s=0.1) as parts:
            with monkeypatch.context() as patched:
                patched.setattr(Live, "_look", fall)
                assert len([event async for event in parts.live.listen()]) == 1
            assert "the watcher for new faces fell" in caplog.text
            stream = parts.live.listen()
            await anext(stream)
            one = now_face(make_face)
            await fill(bucket, [one])
            assert one.key.encode() in await anext(stream)
            await stream.aclose()

    asyncio.run(scenario())


def test_an_outages_backlog_is_told_in_part(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.gallery.live._MOST_OF_A_CHANGE", 3)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        async with parts_of(bucket, tmp_path, look_s=0.1) as parts:
            stream = parts.live.listen()
            await anext(stream)
            faces = [now_face(make_face) for _ in range(9)]
            prefix = faces[0].key.rpartition("/")[0]
            names = frozenset(one.key.rpartition("/")[2] for one in faces)
            parts.live.tell(Change(prefix, names, frozenset()))
            newest = sorted(faces, key=lambda one: one.key)[-3:]
            for one in newest:
                assert one.key.encode() in await anext(stream)
            await stream.aclose()
            del bucket

    asyncio.run(scenario())


def connector(broker: Server) -> Any:  # noqa: ANN401 - makes sessions
    return functools.partial(Session, Broker(url=broker.url), max_message=MAX_MESSAGE_BYTES)


def receipt(one: Frozen) -> bytes:
    found = Receipt(id=one.face.id, sha256=one.sha256, outcome="stored")
    return messages.batches("store", [found])[0].to_bytes()


def test_receipts_nudge_and_nothing_else_is_looked_at(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, broker: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    looks: list[Live] = []
    real = Live._look

    async def look(self: Live) -> None:
        looks.append(self)
        await real(self)

    monkeypatch.setattr(Live, "_look", look)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        first = now_face(make_face)
        await fill(bucket, [first])
        connect = connector(broker)
        publisher = connect(client_id="a-store", subscribe=(), clean=True, window=10)
        async with (
            publisher,
            serving(f"file://{tmp_path}/b", tmp_path, caplog, connect, listen=True, look_s=0.1) as served,
        ):
            async with asyncio.timeout(20):
                while "facerelay-gallery" not in broker.text() or not publisher.connected:
                    await asyncio.sleep(0.05)
            async with served.listening() as events:
                await next_faces(events, 1)
                for hostile in (b"", b"{}", b"\xff" * 300):
                    await publisher.publish("receipts/home/aaaaaaaa", hostile, qos=1)
                await publisher.publish("receipts/Home/aaaaaaaa", receipt(first), qos=1)
                before = len(looks)
                for camera in ("door", "yard"):
                    one = now_face(make_face, camera=camera)
                    await bucket.put_new(one.key, one.data)
                    await publisher.publish(topics.receipts("home", "aaaaaaaa"), receipt(one), qos=1)
                    if camera == "door":
                        assert one.key in await next_faces(events, 1)
                assert len(looks) <= before + 1
            broker.kill()
            async with served.listening() as events:  # without a broker it looks by itself
                one = now_face(make_face)
                await fill(bucket, [one])
                while one.key not in await next_faces(events, 1):
                    pass

    asyncio.run(scenario())


def test_a_receipt_with_an_impossible_time_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with parts_of(folder(tmp_path / "b"), tmp_path) as parts:
            stream = parts.live.listen()
            await anext(stream)
            for face_id in (
                "f" * 8 + "-" + "f" * 4 + "-7" + "f" * 3 + "-8" + "f" * 3 + "-" + "f" * 12,
                "-" * 36,
            ):
                found = Receipt(id=face_id, sha256="0" * 64, outcome="stored")
                nudges._take(
                    parts.live, "receipts/home/aaaaaaaa", messages.batches("s", [found])[0].to_bytes()
                )
            assert parts.live._nudged == set()
            await stream.aclose()

    asyncio.run(scenario())
