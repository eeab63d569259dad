from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from conftest import Make
from facerelay import config
from facerelay.cloud import retention
from facerelay.cloud.bucket import Bucket, MissingError, open_bucket
from facerelay.cloud.erase import EraseError, erase
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.tombstones import Tombstones
from facerelay.face import Frozen

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)


def folder(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


async def fill(bucket: Bucket, faces: list[Frozen]) -> None:
    for one in faces:
        assert await bucket.put_new(one.key, one.data)


async def held(bucket: Bucket) -> set[str]:
    return {entry.key async for entry in bucket.list("faces")}


@pytest.fixture
def faces(make_face: Make) -> list[Frozen]:
    return [
        make_face(time=NOON), make_face(time=NOON + timedelta(hours=1)),
        make_face(time=NOON + timedelta(days=1)),
        make_face(time=NOON, camera="yard"), make_face(time=NOON, site="away"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ({"site": "home"}, {0, 1, 2, 3}),
        ({"site": "home", "camera": "door"}, {0, 1, 2}),
        ({"camera": "yard"}, {3}),
        ({"start": NOON, "end": NOON + timedelta(hours=1)}, {0, 3, 4}),
        ({"camera": "door", "start": NOON + timedelta(minutes=1)}, {1, 2}),
        ({"site": "nowhere"}, set()),
    ],
)
def test_a_rule_erases_what_agrees(
    tmp_path: Path, faces: list[Frozen], asked: dict[str, str], gone: set[int]
) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await fill(bucket, faces)
        done = await erase(bucket, **asked, longest_put=0)  # type: ignore[arg-type]
        assert await held(bucket) == {one.key for n, one in enumerate(faces) if n not in gone}
        assert done.count == len(gone)
        assert set(done.ids) == {faces[n].face.id for n in gone}
        tombstones = Tombstones(bucket)
        for n, one in enumerate(faces):
            face = one.face
            assert await tombstones.covers(face.id, face.site, face.camera, face.time) == (n in gone)

    asyncio.run(scenario())


def test_ids_are_erased_with_proof(tmp_path: Path, faces: list[Frozen]) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await fill(bucket, faces)
        chosen = [faces[1], faces[4]]
        done = await erase(bucket, ids=[one.face.id for one in chosen], longest_put=0)
        assert len(await held(bucket)) == 3
        proof = json.loads(done.proof)
        keys = "\n".join(sorted(one.key for one in chosen))
        assert proof["sha256"] == hashlib.sha256(keys.encode()).hexdigest()
        assert (proof["deleted"], proof["second_sweep"], proof["tombstones"]) == (2, 0, [done.tombstone])
        assert not any(one.face.id in done.proof for one in chosen)  # it names no person
        assert done.tombstone in {entry.key async for entry in bucket.list("tombstones")}

    asyncio.run(scenario())


def test_the_second_sweep_finds_a_late_put(tmp_path: Path, faces: list[Frozen]) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        asked = asyncio.create_task(erase(bucket, site="home", longest_put=0.01))
        while not [entry async for entry in bucket.list("tombstones")]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        await fill(bucket, faces[:1])  # by a store that looked before the tombstone was there
        done = await asked
        assert (done.count, json.loads(done.proof)["second_sweep"]) == (1, 1)
        assert await held(bucket) == set()

    asyncio.run(scenario())


def test_a_rule_ends_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        later = datetime.now(UTC) + timedelta(hours=1)
        await erase(bucket, camera="door", end=later, longest_put=0)
        assert not await Tombstones(bucket).covers("x", "home", "door", later - timedelta(minutes=1))
        assert await Tombstones(bucket).covers("x", "home", "door", later - timedelta(hours=2))

    asyncio.run(scenario())


def test_a_clock_ahead_hides_nothing(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await fill(bucket, [make_face(time=datetime.now(UTC) + timedelta(days=3))])
        assert (await erase(bucket, camera="door", longest_put=0)).count == 1

    asyncio.run(scenario())


def test_a_clock_ahead_brings_nothing_back(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule without an end covers until now; what it deleted beyond that stays away by its id."""
    monkeypatch.setattr("facerelay.cloud.erase.MAX_IDS", 3)
    ahead = datetime.now(UTC) + timedelta(days=3)
    gone = [make_face(time=ahead + timedelta(seconds=n)) for n in range(7)]
    set_aside, later = make_face(time=ahead), make_face(time=ahead)

    async def scenario() -> None:
        bucket = folder(tmp_path)
        await fill(bucket, gone)
        here = Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1))
        await here.put("faces", set_aside.data[:-20], "truncated", set_aside.face)
        done = await erase(bucket, camera="door", longest_put=0)
        assert done.count == 7 + 2
        assert await held(bucket) == set()
        assert len(json.loads(done.proof)["tombstones"]) == 1 + 3
        tombstones = Tombstones(bucket)
        for one in (*gone, set_aside):
            assert await tombstones.covers(one.face.id, "home", "door", one.face.time)
        assert not await tombstones.covers(later.face.id, "home", "door", later.face.time)

    asyncio.run(scenario())


def test_a_clock_ahead_sent_again_meanwhile_is_swept(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.erase.AGE_S", 1.5)
    one = make_face(time=datetime.now(UTC) + timedelta(days=3))

    async def scenario() -> None:
        bucket = folder(tmp_path)
        await fill(bucket, [one])
        asked = asyncio.create_task(erase(bucket, camera="door", longest_put=0.01))
        while await held(bucket):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await fill(bucket, [one])  # by a store that looked before the tombstone was there
        assert json.loads((await asked).proof)["second_sweep"] == 0  # the same key, deleted twice
        assert await held(bucket) == set()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "asked",
    [
        {"start": datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))},
        {"end": datetime.max.replace(tzinfo=timezone(-timedelta(hours=2)))},
        {"site": "home", "start": datetime(7, 1, 1, tzinfo=UTC)},
    ],
)
def test_any_time_can_be_asked(tmp_path: Path, make_face: Make, asked: dict[str, str]) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await fill(bucket, [make_face(time=NOON)])
        for date in (
            "0000-00-00",
            "2026-02-31",
            "9999-12-31",
            "\u0662\u0660\u0662\u0666-10-20",
            "7-01-01",
            "x",
        ):
            (tmp_path / f"faces/site=home/camera=door/date={date}/hour=00").mkdir(parents=True)
        assert (await erase(bucket, **asked, longest_put=0)).count == 1  # type: ignore[arg-type]
        assert await retention.expire(bucket, keep=timedelta(days=30)) == 0

    asyncio.run(scenario())


def test_quarantine_is_erased_too(tmp_path: Path, faces: list[Frozen]) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        here = Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1))
        for one in faces:
            await here.put("faces", one.data[:-20], "truncated", one.face)
        done = await erase(bucket, ids=[faces[0].face.id], longest_put=0)
        assert done.count == 2
        assert len([entry async for entry in bucket.list("quarantine")]) == 8

    asyncio.run(scenario())


@pytest.mark.parametrize("asked", [{}, {"site": "../etc"}, {"ids": ["x"]}, {"start": datetime(2026, 1, 1)}])  # noqa: DTZ001 - the mistake it is about
def test_nonsense_is_not_asked(tmp_path: Path, asked: dict[str, str]) -> None:
    with pytest.raises(EraseError):
        asyncio.run(erase(folder(tmp_path), **asked, longest_put=0))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_broken_tombstone_hides_no_other(
    tmp_path: Path, faces: list[Frozen], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await bucket.put("tombstones/broken.json", b"{")
        await erase(bucket, site="home", longest_put=0)
        face = faces[0].face
        assert await Tombstones(bucket).covers(face.id, face.site, face.camera, face.time)

    asyncio.run(scenario())
    assert "is not a tombstone" in caplog.text


@pytest.mark.parametrize(
    "data", [b" " * 1_000_001, b"{}", b'{"made": "2026-10-20T12:00:00Z"}'], ids=["long", "empty", "all"]
)
def test_a_tombstone_that_is_none_covers_nothing_and_stops_nobody(
    tmp_path: Path, faces: list[Frozen], caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await bucket.put("tombstones/odd.json", data)
        tombstones = Tombstones(bucket, age_s=0)
        for one in faces:
            assert not await tombstones.covers(one.face.id, one.face.site, one.face.camera, one.face.time)

    asyncio.run(scenario())
    assert len(caplog.messages) == 1
    assert "is not a tombstone" in caplog.text


def test_a_tombstone_removed_while_it_is_read_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = folder(tmp_path)

    async def gone(key: str, *, max_bytes: int) -> bytes:  # noqa: ARG001 - as the bucket has it
        raise MissingError(key)

    async def scenario() -> None:
        await erase(bucket, site="home", longest_put=0)
        monkeypatch.setattr(bucket, "get", gone)
        assert not await Tombstones(bucket).covers("x", "home", "door", NOON)

    asyncio.run(scenario())


def test_retention_counts_from_arrival(tmp_path: Path, make_face: Make) -> None:
    now = datetime.now(UTC)
    old = make_face(time=now - timedelta(days=40))
    late = make_face(time=now - timedelta(days=40, seconds=1))  # taken long ago, arrived just now
    ahead = make_face(time=now + timedelta(days=400))  # of a clock that runs ahead
    new = make_face(time=now)

    async def scenario() -> None:
        bucket = folder(tmp_path)
        await fill(bucket, [old, late, ahead, new])
        await bucket.put_new("foreign/topic=x/a.png", b"old")
        await bucket.put_new("foreign/topic=x/b.png", b"new")
        await bucket.put("ledger/site=home/ab.json", b"{}")
        await bucket.put("ledger/site=home/cd.json", b"{}")
        for key in (old.key, ahead.key, "foreign/topic=x/a.png", "ledger/site=home/ab.json"):
            os.utime(tmp_path / key, (time.time() - 31 * 86400,) * 2)
        assert await retention.expire(bucket, keep=timedelta(days=30)) == 4
        assert await held(bucket) == {late.key, new.key}
        assert [entry.key async for entry in bucket.list("foreign")] == ["foreign/topic=x/b.png"]
        assert [entry.key async for entry in bucket.list("ledger")] == ["ledger/site=home/cd.json"]

    asyncio.run(scenario())
