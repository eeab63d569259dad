"""Shards as readers have them: each face under its own key, by commands, gallery, audit, and by strangers."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import secrets
import subprocess
import sys
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pytest
from bench.packs import put_shard

from buckets import Weed
from chains import facerelay
from conftest import Make, need
from facerelay import settings
from facerelay.cloud.audit import Wanted, audit
from facerelay.cloud.bucket import Bucket, BucketError, MissingError, open_bucket
from facerelay.cloud.gallery.counted import CountedBucket
from facerelay.cloud.shards.view import ShardView
from facerelay.face import Frozen
from facerelay.settings import template
from facerelay.span import Span
from gallery_parts import folder, parts_of, serving

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MOST = 1_000_000


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    if request.param == "folder":
        return folder(tmp_path / "bucket")
    weed: Weed = request.getfixturevalue("weed")
    return open_bucket(weed.bucket(f"shards-{secrets.token_hex(4)}"))


def several(make_face: Make, count: int, *, start: datetime = NOON, **known: Any) -> list[Frozen]:  # noqa: ANN401 - any of the face's fields
    """Return faces, a minute apart."""
    return [make_face(time=start + timedelta(minutes=n), **known) for n in range(count)]


async def keys_of(bucket: Bucket, prefix: str = "faces", after: str | None = None) -> list[str]:
    return [entry.key async for entry in bucket.list(prefix, after=after)]


def test_faces_of_shards_lie_beside_objects_each_once(bucket: Bucket, make_face: Make) -> None:
    faces = several(make_face, 90)
    yard = several(make_face, 20, start=NOON + timedelta(days=1), camera="yard", site="mill")

    async def scenario() -> None:
        await put_shard(bucket, faces[:40])
        await put_shard(bucket, faces[30:60], store="other")  # two stores had the same ten
        await put_shard(bucket, yard)
        for one in faces[55:]:  # and five of these are objects too
            await bucket.put_new(one.key, one.data)
        view = ShardView(bucket)
        every = {one.key: one for one in (*faces, *yard)}
        listed = await keys_of(view)
        assert sorted(listed) == sorted(every)
        hour = faces[0].key.rpartition("/")[0]
        within = sorted(key for key in every if key.startswith(f"{hour}/"))
        assert await keys_of(view, hour) == within
        assert await keys_of(view, hour, after=within[7]) == within[8:]
        assert [entry.key for entry in (await view.children(hour)).entries] == within
        assert (await view.children("faces")).folders == ["site=home", "site=mill"]
        assert (await view.children("faces/site=home")).folders == ["camera=door"]
        assert (await view.children("faces/site=mill/camera=yard")).folders == ["date=2026-11-21"]
        day = "faces/site=home/camera=door/date=2026-11-20"
        assert (await view.children(day)).folders == ["hour=12", "hour=13"]
        assert "faces" in (await view.children()).folders
        for one in every.values():
            assert await view.get(one.key, max_bytes=MOST) == one.data
        assert await view.get_range(faces[0].key, start=10, length=20) == faces[0].data[10:30]
        with pytest.raises(BucketError, match="over 100"):
            await view.get(faces[0].key, max_bytes=100)
        with pytest.raises(MissingError):
            await view.get(make_face(time=NOON).key, max_bytes=MOST)

    asyncio.run(scenario())


def test_an_entry_says_where_it_lies_and_when_it_arrived(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        closed = NOON + timedelta(minutes=5)
        shard, rows = await put_shard(bucket, several(make_face, 3), closed=closed)
        entries = [entry async for entry in ShardView(bucket).list("faces")]
        assert [entry.modified for entry in entries] == [closed] * 3
        assert [(e.lies.tar, e.lies.offset, e.lies.length) for e in entries if e.lies] == [
            (shard.tar, row.offset, row.length) for row in rows
        ]

    asyncio.run(scenario())


def test_requests_are_few(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = CountedBucket(folder(tmp_path))
        faces = several(make_face, 50)
        view = ShardView(bucket)
        for _ in range(5):
            assert await keys_of(view) == []
        assert bucket.requests == 5 + 1  # without shards: what it was, and one look
        for n in range(5):
            await put_shard(bucket, faces[10 * n : 10 * n + 10])
        view, bucket.requests = ShardView(bucket), 0
        assert len(await keys_of(view)) == 50
        for camera in ("door", "yard"):
            await view.children(f"faces/site=home/camera={camera}/date=2026-11-20/hour=12")
        # the dates, the objects' sites and what is below them, the day's catalogues, and these
        assert bucket.requests <= 4 + 5
        bucket.requests = 0
        await view.get(faces[20].key, max_bytes=MOST)
        assert bucket.requests == 1
        late = make_face(time=NOON)
        await view.put_new(late.key, late.data)  # just after it was seen that there are no objects
        assert await view.get(late.key, max_bytes=MOST) == late.data
        view, bucket.requests = ShardView(bucket), 0
        await view.get(late.key, max_bytes=MOST)
        assert bucket.requests == 1  # an object costs what it did

    asyncio.run(scenario())


def test_a_shard_that_is_written_anew_is_found_again(bucket: Bucket, make_face: Make) -> None:
    faces = several(make_face, 12)

    async def scenario() -> None:
        old, _ = await put_shard(bucket, faces)
        view = ShardView(bucket)
        assert len(await keys_of(view)) == 12
        new, _ = await put_shard(bucket, faces[1:])
        await bucket.delete(old.catalogue)
        await bucket.delete(old.tar)
        assert await view.get(faces[5].key, max_bytes=MOST) == faces[5].data
        with pytest.raises(MissingError):
            await view.get(faces[0].key, max_bytes=MOST)
        assert await keys_of(view) == sorted(one.key for one in faces[1:])
        assert {entry.lies.tar async for entry in view.list("faces") if entry.lies} == {new.tar}

    asyncio.run(scenario())


def test_without_pyarrow_objects_are_read_and_shards_say_what_to_install(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, packed = make_face(time=NOON), make_face(time=NOON)
    asyncio.run(put_shard(folder(tmp_path / "shards"), [packed]))
    real = builtins.__import__

    def without(name: str, scope: Any = None, *rest: Any) -> Any:  # noqa: ANN401 - as the interpreter has it
        # a machine without the extra has no module to import
        reading = name == "facerelay.cloud.shards" and rest[1] and "catalogue" in rest[1]
        if name.startswith("pyarrow") or reading:
            raise ImportError(name)
        return real(name, scope, *rest)

    async def scenario() -> None:
        plain = ShardView(folder(tmp_path / "plain"))
        await plain.put_new(one.key, one.data)
        assert await keys_of(plain) == [one.key]
        assert await plain.get(one.key, max_bytes=MOST) == one.data
        with pytest.raises(BucketError, match="extra `shards`"):
            await keys_of(ShardView(folder(tmp_path / "shards")))
        with pytest.raises(BucketError, match="extra `shards`"):
            await audit(folder(tmp_path / "shards"), [])

    monkeypatch.setattr(builtins, "__import__", without)
    asyncio.run(scenario())


# commands


@pytest.fixture
def cloud(tmp_path: Path, weed: Weed) -> str:
    (tmp_path / "secret").write_text(weed.secret_key)
    path = tmp_path / "cloud.toml"
    chosen = {"url": f"s3://shards-{secrets.token_hex(4)}", "endpoint": weed.endpoint,
              "access_key": weed.access_key, "secret_key_file": "secret"}  # fmt: skip
    path.write_text(template(settings.CLOUD, {"bucket": chosen}))
    return str(path)


def test_ls_get_and_share_on_shards(cloud: str, tmp_path: Path, make_face: Make) -> None:
    faces = several(make_face, 5)

    async def fill() -> str:
        bucket = open_bucket(settings.load(Path(cloud)).bucket)
        await bucket.put_new(faces[4].key, faces[4].data)
        return (await put_shard(bucket, faces[:4]))[0].tar

    tar = asyncio.run(fill())
    listed = facerelay("ls", "-c", cloud)
    assert {line.rpartition(" ")[2] for line in listed.stdout.splitlines()} == {one.key for one in faces}
    known = [json.loads(line) for line in facerelay("ls", "--json", "-c", cloud).stdout.splitlines()]
    assert sorted(one.get("tar", "") for one in known) == ["", *[tar] * 4]
    done = facerelay("get", "-c", cloud, "-o", str(tmp_path / "out"), faces[2].key)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / Path(faces[2].key).name).read_bytes() == faces[2].data
    for name in (faces[2].key, faces[2].face.id):
        refused = facerelay("share", "-c", cloud, name)
        assert refused.returncode
        assert "lies in a shard" in refused.stderr
        assert f"facerelay get {faces[2].key}" in refused.stderr
    shared = facerelay("share", "-c", cloud, faces[4].face.id)
    assert shared.stdout.startswith("http://")


# the audit


def wanted(frozen: Frozen) -> Wanted:
    return Wanted(id=frozen.face.id, sha256=frozen.sha256, key=frozen.key)


def test_an_audit_reads_the_tars_own_bytes(bucket: Bucket, make_face: Make) -> None:
    faces = several(make_face, 30)
    lone, absent = make_face(time=NOON), make_face(time=NOON)

    async def scenario() -> None:
        await put_shard(bucket, faces[:20])
        await put_shard(bucket, [*faces[15:], lone])
        await bucket.put_new(faces[0].key, faces[0].data)
        counted = CountedBucket(bucket)
        found = await audit(counted, map(wanted, faces), spans=[Span(site="home")])
        assert found.clean
        assert (found.found, found.checked, found.again.count) == (30, 20 + 16 + 1, 6)
        assert found.others == {"unknown": 1}
        assert counted.requests <= 12
        far = await audit(bucket, [], spans=[Span(start=NOON + timedelta(days=2))])
        assert (far.checked, far.clean) == (0, True)
        some = await audit(bucket, map(wanted, faces[:10]), spans=[Span(end=faces[10].face.time)])
        assert (some.clean, some.found) == (True, 10)
        gone = await audit(bucket, [wanted(absent)])
        assert [one.why for one in gone.lost.first] == ["absent"]

    asyncio.run(scenario())


def test_an_audit_tells_claims_without_bytes_and_orphans(tmp_path: Path, make_face: Make) -> None:
    faces = several(make_face, 8)

    async def scenario() -> None:
        bucket = folder(tmp_path)
        shard, rows = await put_shard(bucket, faces)
        tar = bytearray((tmp_path / shard.tar).read_bytes())
        tar[rows[3].offset + 200 : rows[3].offset + 260] = bytes(60)  # in the picture of the fourth
        (tmp_path / shard.tar).write_bytes(tar[: rows[6].offset + 512])
        orphan, _ = await put_shard(bucket, several(make_face, 2))
        await bucket.delete(orphan.catalogue)
        old = (NOON - timedelta(days=1)).timestamp()
        os.utime(tmp_path / orphan.tar, (old, old))
        found = await audit(bucket, map(wanted, faces))
        assert {one.id for one in found.lost.first} == {faces[n].face.id for n in (3, 6, 7)}
        assert found.orphans.first == [orphan.tar]
        assert not found.clean
        with pytest.raises(BucketError, match="other bytes there"):
            await ShardView(bucket).get(faces[3].key, max_bytes=MOST)
        with pytest.raises(BucketError, match="it has no"):
            await ShardView(bucket).get(faces[7].key, max_bytes=MOST)

    asyncio.run(scenario())


# the gallery


def test_the_gallery_shows_shards(
    weed: Weed, tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC)
    faces = [make_face(time=now - timedelta(hours=3 * n), camera=f"c{n % 3}") for n in range(40)]
    days: dict[str, list[Frozen]] = {}
    for one in faces:
        days.setdefault(one.face.time.date().isoformat(), []).append(one)
    where = weed.bucket(f"shards-{secrets.token_hex(4)}")

    async def scenario() -> None:
        bucket = open_bucket(where)
        for some in days.values():
            await put_shard(bucket, some)
        async with serving(where, tmp_path, caplog, look_s=0.5) as served:
            page = await served.json("/api/faces?limit=60")
            assert [one["id"] for one in page["faces"]] == [one.face.id for one in faces]
            places = await served.json("/api/places")
            assert places["sites"] == [{"site": "home", "cameras": ["c0", "c1", "c2"]}]
            assert [each["date"] for each in (await served.json("/api/timeline"))["days"]] == sorted(days)
            middle = sorted(days)[len(days) // 2]
            hours = (await served.json(f"/api/timeline/day?date={middle}"))["hours"]
            assert sum(hours) == len(days[middle])
            status, _, thumb = await served.get(f"/thumb?key={quote(faces[30].key)}")
            assert (status, thumb[8:12]) == (200, b"WEBP")
            assert (await served.json(f"/api/face?key={quote(faces[30].key)}"))["face"]["id"] == faces[
                30
            ].face.id
            async with served.listening() as events:
                fresh = [make_face(time=datetime.now(UTC), camera="c0"), make_face(camera="new")]
                await put_shard(bucket, fresh)
                told = {(await events.next())[1]["id"] for _ in fresh}
                assert told == {one.face.id for one in fresh}

    asyncio.run(scenario())


def test_what_the_gallery_keeps_of_shards_stays(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path / "bucket")
        faces = several(make_face, 3)
        await put_shard(bucket, faces)
        async with parts_of(bucket, tmp_path) as parts:
            await parts.reader.thumb(faces[0].key)
            assert await parts.obedience.verify() == 0

    asyncio.run(scenario())


# strangers


@pytest.fixture
def house(tmp_path: Path, make_face: Make) -> tuple[Path, list[Frozen]]:
    """Return a folder with two shards, five faces in both, and the 25 faces."""
    faces = [*several(make_face, 15), *several(make_face, 10, start=NOON + timedelta(hours=2), camera="yard")]

    async def fill() -> None:
        await put_shard(folder(tmp_path), faces[:15])
        await put_shard(folder(tmp_path), faces[10:], store="other")

    asyncio.run(fill())
    return tmp_path, faces


def test_duckdb_counts_faces_by_hour_and_camera(house: tuple[Path, list[Frozen]]) -> None:
    path, _ = house
    (path / "faces").mkdir()
    query = f"""
        SELECT date_trunc('hour', time AT TIME ZONE 'UTC') AS hour, site, camera, count(DISTINCT id) AS faces
        FROM read_parquet('{path}/catalogue/*/*.parquet', hive_partitioning = true)
        WHERE date = '2026-11-20'
        GROUP BY ALL ORDER BY ALL
    """  # noqa: S608 - a path of ours
    with duckdb.connect() as db:
        found = db.execute(query).fetchall()
    noon = NOON.replace(tzinfo=None)
    assert found == [(noon, "home", "door", 15), (noon + timedelta(hours=2), "home", "yard", 10)]


def test_tar_and_tarfile_read_a_shard(house: tuple[Path, list[Frozen]]) -> None:
    path, faces = house
    tars = sorted((path / "shards").rglob("*.tar"))
    names = set()
    for tar in tars:
        with tarfile.open(tar) as file:
            for member in file:
                names.add(member.name)
                read = file.extractfile(member)
                assert read is not None
                if member.name.endswith(".jpg"):
                    assert read.read() in {one.data for one in faces}
                else:
                    assert json.load(read)["key"] in {one.key for one in faces}
    assert len(names) == 50
    listed = subprocess.run(
        [need("tar"), "-tf", str(tars[0])], check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(listed) <= names
    out = path / "out"
    out.mkdir()
    subprocess.run([need("tar"), "-xf", str(tars[0]), "-C", str(out)], check=True)
    assert {one.name for one in out.iterdir()} == set(listed)


# in a process of its own: the library leaves its files to the interpreter to close
LOAD = """
import hashlib, json, sys, webdataset
samples = list(webdataset.WebDataset(sys.argv[1:], shardshuffle=False))
pictures = webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode("rgb8").to_tuple("jpg", "json")
print(json.dumps({
    "faces": [[json.loads(one["json"])["id"], hashlib.sha256(one["jpg"]).hexdigest()] for one in samples],
    "shapes": [[*picture.shape, facts["camera"]] for picture, facts in pictures],
}))
"""


def test_webdataset_reads_a_shard(house: tuple[Path, list[Frozen]]) -> None:
    path, faces = house
    tars = [str(tar) for tar in sorted((path / "shards").rglob("*.tar"))]
    done = subprocess.run([sys.executable, "-c", LOAD, *tars], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert len(found["faces"]) == 30
    assert dict(found["faces"]) == {one.face.id: one.sha256 for one in faces}
    assert {tuple(shape) for shape in found["shapes"]} == {(120, 96, 3, "door"), (120, 96, 3, "yard")}
