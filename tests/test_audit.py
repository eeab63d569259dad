from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from buckets import Weed
from conftest import Make
from facerelay import config, face
from facerelay.cloud.audit import Wanted, audit
from facerelay.cloud.bucket import Bucket, BucketError, Children, Entry, open_bucket
from facerelay.cloud.erase import erase
from facerelay.cloud.folder import FolderBucket
from facerelay.face import Frozen
from facerelay.span import Span


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "folder":
        return open_bucket(config.Bucket(url=f"file://{tmp_path}"))
    weed: Weed = request.getfixturevalue("weed")
    return open_bucket(weed.bucket(f"audited-{secrets.token_hex(4)}"))


def wanted(frozen: Frozen) -> Wanted:
    return Wanted(id=frozen.face.id, sha256=frozen.sha256, key=frozen.key)


def test_an_audit_finds_every_kind_of_fault(bucket: Bucket, make_face: Make, jpeg: bytes) -> None:
    sound = [make_face() for _ in range(50)]
    missing, rotten, swapped, doubled, erased, unasked = (make_face() for _ in range(6))
    other = face.freeze(swapped.face, jpeg[:-2] + b"\x00\xff\xd9")  # the same face, other bytes

    async def scenario() -> None:
        for one in (*sound, doubled, erased, unasked):
            await bucket.put_new(one.key, one.data)
        await bucket.put_new(rotten.key, rotten.data[:-100])
        await bucket.put_new(swapped.key, other.data)
        await bucket.put_new(doubled.key.replace("camera=door", "camera=yard"), doubled.data)
        await bucket.put_new("faces/readme.txt", b"hello")
        await erase(bucket, ids=[erased.face.id], longest_put=0)
        asked = [*sound, missing, rotten, swapped, doubled, erased]
        found = await audit(bucket, map(wanted, asked))
        whys = {one.id: one.why for one in found.lost.first}
        assert whys == {
            missing.face.id: "absent",
            rotten.face.id: "unreadable",
            swapped.face.id: "other-bytes",
        }
        assert found.lost.count == 3
        assert found.unequal.first == [swapped.face.id]
        assert found.twice.first == [doubled.face.id]
        assert found.misplaced.count == 2
        assert set(found.unreadable.first) == {rotten.key, "faces/readme.txt"}
        assert (found.found, found.erased, found.others) == (51, 1, {"unknown": 1})
        assert found.checked == 50 + 1 + 2 + 1 + 2
        assert not found.clean

    asyncio.run(scenario())


def test_a_clean_bucket_is_clean(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
        faces = [make_face() for _ in range(70)]
        for one in faces:
            await bucket.put_new(one.key, one.data)
        found = await audit(bucket, map(wanted, faces), spans=[Span(site="home")])
        assert found.clean
        assert (found.checked, found.found, found.others) == (70, 70, {})
        away = await audit(bucket, map(wanted, faces), spans=[Span(site="away")])
        assert (away.checked, away.lost.count) == (0, 70)

    asyncio.run(scenario())


def test_a_range_lists_only_the_hours_that_it_touches(
    bucket: Bucket, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = datetime(2026, 11, 20, 21, 30, tzinfo=UTC)
    faces = [make_face(time=first + timedelta(hours=hour)) for hour in range(30)]
    at_start = make_face(time=datetime(2026, 11, 20, 22, tzinfo=UTC))
    at_end = make_face(time=datetime(2026, 11, 20, 23, tzinfo=UTC))
    asked: list[str] = []
    real_list, real_children = bucket.list, bucket.children

    def listed(prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        asked.append(prefix)
        return real_list(prefix, after=after)

    async def children(prefix: str = "") -> Children:
        asked.append(prefix)
        return await real_children(prefix)

    async def reads(start: datetime, end: datetime | None, *there: Frozen) -> list[str]:
        asked.clear()
        span = Span(site="home", camera="door", start=start, end=end)
        with monkeypatch.context() as patch:
            patch.setattr(bucket, "list", listed)
            if not isinstance(bucket, FolderBucket):  # a folder lists by its children
                patch.setattr(bucket, "children", children)
            found = await audit(bucket, map(wanted, there), spans=[span])
        assert found.clean
        assert (found.checked, found.found) == (len(there), len(there))
        return [prefix for prefix in asked if "/date=" in prefix or prefix.endswith("camera=door")]

    async def scenario() -> None:
        for one in (*faces, at_start, at_end):
            await bucket.put_new(one.key, one.data)
        hour = await reads(at_start.face.time, at_end.face.time, faces[1], at_start)
        day = "faces/site=home/camera=door/date=2026-11-2"
        assert [prefix for prefix in hour if "date=" in prefix] == [f"{day}0/hour=22"]
        assert len(hour) <= 2
        minutes = first + timedelta(minutes=10), first + timedelta(minutes=50)
        assert f"{day}0/hour=21" in await reads(*minutes, at_start)
        tail = await reads(at_end.face.time, None, *faces[2:], at_end)
        assert [prefix for prefix in tail if "date=" in prefix] == [f"{day}0/hour=23", f"{day}1", f"{day}2"]

    asyncio.run(scenario())


def test_a_face_of_another_time_is_not_read_though_its_hour_is(bucket: Bucket, make_face: Make) -> None:
    at = datetime(2026, 11, 20, 22, 10, tzinfo=UTC)
    inside, after = make_face(time=at), make_face(time=at + timedelta(minutes=1))

    async def scenario() -> None:
        for one in (inside, after):
            await bucket.put_new(one.key, one.data)
        span = Span(start=at, end=after.face.time)
        found = await audit(bucket, [wanted(inside)], spans=[span])
        assert (found.checked, found.lost.count, found.others) == (1, 0, {})
        gone = await audit(bucket, [wanted(inside)], spans=[Span(start=after.face.time)])
        assert gone.lost.count == 1

    asyncio.run(scenario())


def test_an_audit_names_a_thousand_of_many_and_counts_them_all(tmp_path: Path, make_face: Make) -> None:
    bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
    faces = [make_face() for _ in range(1200)]
    found = asyncio.run(audit(bucket, map(wanted, faces)))
    assert (found.wanted, found.lost.count, len(found.lost.first)) == (1200, 1200, 1000)


def test_an_audit_holds_few_bytes_at_once(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
    faces = [make_face() for _ in range(60)]
    length = len(faces[0].data)
    monkeypatch.setattr("facerelay.cloud.audit._BYTES_AT_ONCE", 3 * length + 50)
    here = peak = 0
    real = bucket.get

    async def get(key: str, *, max_bytes: int) -> bytes:
        nonlocal here, peak
        here += 1
        peak = max(peak, here)
        try:
            return await real(key, max_bytes=max_bytes)
        finally:
            here -= 1

    async def scenario() -> None:
        for one in faces:
            await bucket.put_new(one.key, one.data)
        monkeypatch.setattr(bucket, "get", get)
        assert (await audit(bucket, map(wanted, faces))).clean
        assert 1 < peak <= 3

    asyncio.run(scenario())


def test_an_audit_reads_nothing_over_its_limit(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
        one = make_face()
        await bucket.put_new(one.key, one.data)
        found = await audit(bucket, [wanted(one)], limits=face.Limits(bytes=len(one.data) - 1))
        assert (found.checked, found.unreadable.first) == (0, [one.key])
        assert [(lost.id, lost.why) for lost in found.lost.first] == [(one.face.id, "unreadable")]
        assert (await audit(bucket, [wanted(one)], limits=face.Limits(bytes=len(one.data)))).clean

    asyncio.run(scenario())


def test_an_audit_passes_over_what_others_left(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
        one = make_face()
        await bucket.put_new(one.key, one.data)
        (tmp_path / "faces" / "site=home" / "camera=door" / "@eaDir").mkdir()
        (tmp_path / "faces" / "site=home" / "a b.txt").write_text("x")
        assert (await audit(bucket, [wanted(one)])).clean

    asyncio.run(scenario())


def test_an_audit_without_its_bucket_says_nothing() -> None:
    dead = config.Bucket(
        url="s3://b", endpoint="http://127.0.0.1:1", access_key="a", secret_key=SecretStr("b")
    )
    with pytest.raises(BucketError):
        asyncio.run(audit(open_bucket(dead), []))
