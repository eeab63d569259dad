"""Faces erased from shards: gone from tar and catalogue, and no other one lost, whoever is cut off when."""

from __future__ import annotations

import asyncio
import io
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import duckdb
import pytest

from buckets import Weed
from chains import chain, eventually, facerelay
from conftest import Make
from facerelay import config
from facerelay.cloud import proofs, retention
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.contract import BucketError, Children, Entry
from facerelay.cloud.erase import Rule, erase, survey
from facerelay.cloud.folder import FolderBucket
from facerelay.cloud.gallery.erasing import Eraser
from facerelay.cloud.shards import catalogue
from facerelay.cloud.shards.names import Shard
from facerelay.cloud.shards.pack import Pack
from facerelay.cloud.shards.rewrite import obey, remove
from facerelay.cloud.tombstones import Tombstone, Tombstones, bury
from facerelay.face import Frozen
from feeder import picture
from gallery_parts import serving
from shards import keys_of, put_shards, readable, there, whole

NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
CLOSED = (datetime.now(UTC) - timedelta(minutes=20)).replace(microsecond=0)
KEEP = timedelta(days=30)
_MOST = 10_000_000


def folder(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


def memory() -> Bucket:
    return open_bucket(config.Bucket(url="memory://"))


@pytest.fixture
def faces(make_face: Make) -> list[Frozen]:
    return [
        make_face(picture(0), time=NOON),
        make_face(picture(1), time=NOON + timedelta(hours=1)),
        make_face(picture(2), time=NOON + timedelta(days=1)),
        make_face(picture(3), time=NOON, camera="yard"),
        make_face(picture(4), time=NOON, site="away"),
    ]


Opened = Callable[[], Bucket]


@pytest.fixture(params=["folder", "weed"])
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Opened:
    """Return what opens a bucket, in an event loop."""
    if request.param == "folder":
        return lambda: folder(tmp_path)
    weed: Weed = request.getfixturevalue("weed")
    return lambda: open_bucket(weed.bucket("erase", tmp_path.name))


def held_bytes(path: Path, one: Frozen) -> list[str]:
    """Return the files in which some of a face's bytes lie, or its id."""
    piece = one.data[len(one.data) // 2 :][:32]
    wanted = piece, one.face.id.encode(), one.face.id.replace("-", "").encode()
    places = (file for name in ("shards", "catalogue", "faces") for file in (path / name).rglob("*"))
    return [str(file) for file in places if file.is_file() and any(w in file.read_bytes() for w in wanted)]


@pytest.mark.parametrize(
    "case",
    [
        ({"ids": 1}, {1}),
        ({"site": "home", "camera": "door"}, {0, 1, 2}),
        ({"site": "home"}, {0, 1, 2, 3}),
        ({"start": NOON + timedelta(minutes=1), "end": NOON + timedelta(days=1, minutes=1)}, {1, 2}),
        ({"site": "nowhere"}, set()),
    ],
    ids=["id", "camera", "site", "days", "nothing"],
)
def test_what_agrees_is_gone_from_tar_and_catalogue(
    tmp_path: Path, faces: list[Frozen], case: tuple[dict[str, object], set[int]], opened: Opened
) -> None:
    asked, gone = case
    if "ids" in asked:
        asked = {"ids": [faces[1].face.id]}
    erased = [one for n, one in enumerate(faces) if n in gone]
    left = {one.key: one.data for n, one in enumerate(faces) if n not in gone}

    async def scenario() -> None:
        bucket = opened()
        made = await put_shards(bucket, faces, closed=CLOSED)
        counted = await survey(bucket, Rule(**asked))  # type: ignore[arg-type]
        done = await erase(bucket, **asked, longest_put=0)  # type: ignore[arg-type]
        assert await readable(bucket) == left
        assert {row.key for row in await whole(bucket)} == set(left)
        days = {one.face.time.date().isoformat() for one in erased}
        went = {shard.tar for shard in made if shard.date in days}
        assert set(done.deleted) == keys_of(erased) | went
        line = json.loads(done.proof)
        counts = {"faces": len(erased), "shards": len(went)} if gone else {}
        assert (line["places"], line["deleted"]) == (counts, len(erased) + len(went))
        assert (counted.places, sum(counted.cameras.values())) == (counts, len(erased))
        assert line["sha256"] == proofs.digest(done.deleted)
        assert (await proofs.verify(bucket)).well
        assert {held.shard.closed for held in await there(bucket)} <= {CLOSED}
        await bucket.close()

    asyncio.run(scenario())
    if (tmp_path / "proofs").exists():  # it is a folder
        assert not [file for one in erased for file in held_bytes(tmp_path, one)]
        if left:
            with duckdb.connect() as db:
                sought = "SELECT id FROM read_parquet(?)"
                told = db.execute(sought, [f"{tmp_path}/catalogue/*/*.parquet"]).fetchall()
            found = {face_id for (face_id,) in told}
            assert found == {one.face.id for one in faces} - {one.face.id for one in erased}


def test_a_tar_without_a_catalogue_is_searched_too(tmp_path: Path, faces: list[Frozen]) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await put_shards(bucket, faces, lines=False)
        assert not (await proofs.verify(bucket)).alive
        assert (await survey(bucket, Rule(ids=(faces[0].face.id,)))).places == {"faces": 1, "shards": 1}
        done = await erase(bucket, ids=[faces[0].face.id], longest_put=0)
        assert done.count == 2
        assert keys_of(faces[1:]) >= {*await readable(bucket)} == keys_of([faces[1], *faces[3:]])
        assert (await proofs.verify(bucket)).well

    asyncio.run(scenario())
    assert not held_bytes(tmp_path, faces[0])
    assert held_bytes(tmp_path, faces[2])


def test_what_comes_back_in_a_shard_is_found(tmp_path: Path, faces: list[Frozen]) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        await erase(bucket, site="home", longest_put=0)
        await put_shards(bucket, faces)
        await put_shards(bucket, faces[:1], lines=False)
        assert (await proofs.verify(bucket)).alive == 5

    asyncio.run(scenario())


def test_the_second_sweep_finds_a_shard_that_was_late(
    tmp_path: Path, faces: list[Frozen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.erase.AGE_S", 1.5)

    async def scenario() -> None:
        bucket = folder(tmp_path)
        asked = asyncio.create_task(erase(bucket, site="home", longest_put=0.01))
        while not [entry async for entry in bucket.list("tombstones")]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        await put_shards(bucket, faces)
        done = await asked
        assert json.loads(done.proof)["second_sweep"] == done.count == 4 + 2
        assert {*await readable(bucket)} == keys_of(faces[4:])

    asyncio.run(scenario())


def test_a_clock_ahead_brings_nothing_back(tmp_path: Path, make_face: Make) -> None:
    ahead, later = (make_face(picture(n), time=datetime.now(UTC) + timedelta(days=3)) for n in (1, 2))

    async def scenario() -> None:
        bucket = folder(tmp_path)
        await put_shards(bucket, [ahead])
        done = await erase(bucket, camera="door", longest_put=0)
        assert (done.count, await there(bucket)) == (2, [])
        assert json.loads(done.proof)["tombstone_count"] == 2
        await put_shards(bucket, [ahead, later])
        [held] = await there(bucket)
        assert [row.id for row in (await obey(bucket, held.shard, Tombstones(bucket))).gone] == [
            ahead.face.id
        ]
        assert {*await readable(bucket)} == {later.key}

    asyncio.run(scenario())


def test_who_writes_anew_looks_for_what_was_erased_lately(
    tmp_path: Path, faces: list[Frozen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.cloud.shards.rewrite.AGE_S", 0.0)  # as when so much time is over

    async def scenario() -> None:
        bucket = folder(tmp_path)
        known = Tombstones(bucket, age_s=600)  # as a store of shards has them
        await known.refresh()
        [shard] = await put_shards(bucket, faces[:2])
        await bury(bucket, Tombstone(made=datetime.now(UTC), ids=(faces[0].face.id,)))
        assert [row.id for row in (await obey(bucket, shard, known)).gone] == [faces[0].face.id]
        assert {*await readable(bucket)} == {faces[1].key}

    asyncio.run(scenario())


def test_bytes_that_do_not_fit_are_told_and_never_lost_in_silence(
    tmp_path: Path, faces: list[Frozen], caplog: pytest.LogCaptureFixture
) -> None:
    """One face is damaged, one line leads into the erased face's bytes, one member has no JSON."""
    erased, damaged, astray, bare = faces[0], faces[1], faces[3], faces[4]

    async def scenario() -> None:
        bucket = folder(tmp_path)
        pack = Pack()
        for one in (erased, damaged, astray, bare):
            pack.add(one, arrived=NOON)
        rows = [
            replace(row, offset=pack.rows[0].offset) if n == 2 else row for n, row in enumerate(pack.rows)
        ]
        tar = bytearray(pack.tar())
        tar[rows[1].offset + rows[1].length // 2] ^= 1
        named = tar.rindex(f"{bare.face.id}-{bare.sha256[:8]}.json".encode())
        tar[named : named + 1] = b"\xff"
        shard = Shard.new("2026-10-20", "store", NOON)
        await bucket.put_new(shard.tar, bytes(tar))
        await bucket.put_new(shard.catalogue, catalogue.write(rows, tar=shard.tar))
        await erase(bucket, ids=[erased.face.id], longest_put=0)
        [held] = await there(bucket)
        lines = catalogue.read(await bucket.get(held.shard.catalogue, max_bytes=_MOST), tar=held.shard.tar)
        assert [line.id for line in lines] == [damaged.face.id, bare.face.id]
        new = await bucket.get(held.shard.tar, max_bytes=_MOST)
        assert new[lines[0].offset :][: lines[0].length] == tar[rows[1].offset :][: rows[1].length]
        assert new[lines[1].offset :][: lines[1].length] == bare.data
        with tarfile.open(fileobj=io.BytesIO(new)) as opened:
            [*_, last] = opened.getmembers()
            file = opened.extractfile(last)
            assert file is not None
            assert json.loads(file.read())["key"] == bare.key

    asyncio.run(scenario())
    assert "1 faces have other bytes than their line says: kept as they were" in caplog.text
    assert "1 lines led to no face of theirs: they are gone" in caplog.text
    assert not held_bytes(tmp_path, erased)


def test_other_tars_and_catalogues_are_left_or_read_past(
    tmp_path: Path, faces: list[Frozen], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        [broken, cut, dangling] = [
            (await put_shards(bucket, some))[0] for some in ([faces[0], faces[1]], [faces[3]], [faces[4]])
        ]
        await bucket.put(broken.catalogue, b"PAR1 it is not")
        await bucket.put(cut.tar, (await bucket.get(cut.tar, max_bytes=_MOST))[:3000])
        await bucket.delete(cut.catalogue)
        await bucket.delete(dangling.tar)
        await bucket.put("shards/date=2026-10-20/of-somebody-else.tar", b"x")
        await erase(bucket, ids=[faces[n].face.id for n in (0, 4)], longest_put=0)
        assert {*await readable(bucket)} == {faces[1].key}
        names = {entry.key async for entry in bucket.list("shards")}
        assert {cut.tar, "shards/date=2026-10-20/of-somebody-else.tar"} < names
        assert not {broken.catalogue, dangling.catalogue} & {e.key async for e in bucket.list("catalogue")}

    asyncio.run(scenario())
    assert "not a catalogue: ArrowInvalid: its tar is read instead" in caplog.text
    assert "no shard of facerelay's, and left as it is: the member" in caplog.text
    assert "its tar is not there: deleted, for it names erased faces" in caplog.text


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from facerelay.cloud.erase import erase
from facerelay.cloud.folder import FolderBucket

class Killed(FolderBucket):
    left = int(sys.argv[2])

    def step(self, key):
        if key.startswith(("shards/", "catalogue/")):
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1

    async def put_new(self, key, data, **known):
        self.step(key)
        return await super().put_new(key, data, **known)

    async def delete(self, key):
        self.step(key)
        await super().delete(key)

asyncio.run(erase(Killed(Path(sys.argv[1]), url="file:"), ids=[sys.argv[3]], longest_put=0))
"""


def test_killed_between_any_two_steps_loses_no_face_and_ends_the_next_time(
    tmp_path: Path, faces: list[Frozen]
) -> None:
    """Steps: tar, catalogue, old catalogue deleted, old tar deleted."""
    some = [faces[0], faces[1], faces[3], faces[4]]
    left = {one.key: one.data for one in some[1:]}
    steps = range(5)
    for step in steps:
        asyncio.run(put_shards(folder(tmp_path / str(step)), some, closed=CLOSED))
    command = [sys.executable, "-c", _KILLED]
    runs = [
        subprocess.Popen([*command, tmp_path / str(step), str(step), some[0].face.id], stderr=subprocess.PIPE)
        for step in steps
    ]
    for run in runs:
        run.communicate(timeout=60)
    assert [run.returncode for run in runs] == [-9, -9, -9, -9, 0]

    async def scenario(step: int) -> None:
        bucket = folder(tmp_path / str(step))
        found = await readable(bucket)
        assert found.items() >= left.items()
        assert (some[0].key in found) == (step < 3)
        assert bool(held_bytes(tmp_path / str(step), some[0])) == (step < 4)
        await erase(bucket, ids=[some[0].face.id], longest_put=0)
        assert await readable(bucket) == left
        [held] = await there(bucket)
        assert held.shard.closed == CLOSED
        assert len(await whole(bucket)) == 3
        assert not held_bytes(tmp_path / str(step), some[0])

    for step in steps:
        asyncio.run(scenario(step))


class Shaken(Bucket):
    """A bucket in memory whose answers take any time; after each change a look is taken."""

    def __init__(self, bucket: Bucket, rng: random.Random, look: Callable[[], object]) -> None:
        self.url = bucket.url
        self._bucket = bucket
        self._rng = rng
        self._look = look
        self._turn = asyncio.Lock()

    async def _shake(self) -> None:
        for _ in range(self._rng.choice((0, 0, 1, 5, 20))):
            await asyncio.sleep(0.0002)

    async def put_new(
        self, key: str, data: bytes, *, content_type: str = "", metadata: Mapping[str, str] | None = None,
        sha256: str | None = None,
    ) -> bool:  # fmt: skip
        del metadata, sha256
        await self._shake()
        async with self._turn:
            new = await self._bucket.put_new(key, data, content_type=content_type)
        await self._shake()
        return new

    async def put(self, key: str, data: bytes, *, content_type: str = "application/json") -> None:
        await self._shake()
        async with self._turn:
            await self._bucket.put(key, data, content_type=content_type)
        await self._shake()

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        await self._shake()
        return await self._bucket.get(key, max_bytes=max_bytes)

    async def get_range(self, key: str, *, start: int, length: int) -> bytes:
        return await self._bucket.get_range(key, start=start, length=length)

    async def delete(self, key: str) -> None:
        await self._shake()
        async with self._turn:
            await self._bucket.delete(key)
            if key.startswith("catalogue/"):
                await self._look()  # type: ignore[misc]
        await self._shake()

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        await self._shake()
        for entry in [entry async for entry in self._bucket.list(prefix, after=after)]:
            yield entry

    async def children(self, prefix: str = "") -> Children:
        await self._shake()
        return await self._bucket.children(prefix)


@pytest.mark.parametrize("seed", range(12))
def test_erasures_at_once_leave_what_neither_meant(faces: list[Frozen], seed: int) -> None:
    """In whatever order their requests come, each other face is readable at every moment.

    One of them is cut off somewhere, and asked for again.
    """
    some = [faces[0], faces[1], faces[3], faces[4]]
    left = {one.key: one.data for one in some[2:]}

    async def scenario() -> None:
        plain = memory()

        async def look() -> None:
            found = await readable(plain)
            assert found.items() >= left.items()

        await put_shards(plain, some, closed=CLOSED)
        rng = random.Random(seed)  # noqa: S311 - an order, no secret
        shaken = Shaken(plain, rng, look)
        ids = [some[n].face.id for n in (0, 1, 0)]
        cut_off = asyncio.create_task(erase(shaken, ids=ids[:2], longest_put=0))
        work = [asyncio.create_task(erase(shaken, ids=[face_id], longest_put=0)) for face_id in ids]
        await asyncio.wait([cut_off], timeout=rng.uniform(0, 0.3))
        cut_off.cancel()
        await asyncio.wait([cut_off])
        work.append(asyncio.create_task(erase(shaken, ids=ids[:2], longest_put=0)))
        await asyncio.gather(*work)
        assert await readable(plain) == left
        assert len(await whole(plain)) == 2
        assert (await proofs.verify(plain)).well

    asyncio.run(scenario())


def test_a_bucket_that_fails_in_the_middle_is_asked_again(tmp_path: Path, faces: list[Frozen]) -> None:
    """The gallery tries again by itself, and looks at the same shards then."""
    some = [faces[0], faces[1], faces[3]]

    class Failing(FolderBucket):
        fails = True

        async def delete(self, key: str) -> None:
            if self.fails and key.endswith(".tar"):
                raise BucketError(key, "not now")
            await super().delete(key)

    async def scenario() -> None:
        bucket = Failing(tmp_path, url=f"file://{tmp_path}")
        await put_shards(bucket, some)
        gone: list[str] = []

        async def on_gone(keys: object) -> None:
            gone.extend(keys)  # type: ignore[arg-type]

        eraser = Eraser(bucket, on_gone=on_gone, wait_s=0.05)
        with pytest.raises(BucketError):
            await eraser.erase([some[0].key])
        bucket.fails = False
        done = await eraser.erase([some[0].key])
        assert (done.deleted, json.loads(done.proof)["places"]) == (2, {"faces": 1, "shards": 1})
        assert some[0].key in gone
        assert {*await readable(bucket)} == keys_of(some[1:])
        await bury(bucket, Tombstone(made=datetime.now(UTC), ids=(some[1].face.id,)))
        eraser.obey([some[1].key])
        while {*await readable(bucket)} != {some[2].key}:
            await asyncio.sleep(0.02)
        await eraser.close()

    asyncio.run(scenario())


def test_what_is_erased_on_the_page_goes_from_its_shard_and_its_neighbours_are_shown(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    some = [make_face(picture(n), time=datetime.now(UTC) - timedelta(minutes=n)) for n in range(4)]
    left = sorted(one.face.id for one in some[1:])

    async def scenario() -> None:
        bucket = folder(tmp_path / "bucket")
        await put_shards(bucket, some)
        async with serving(f"file://{tmp_path}/bucket", tmp_path, caplog) as served:
            assert len((await served.json("/api/faces"))["faces"]) == len(some)
            status, _, said = await served.erase([some[0].key])
            assert (status, json.loads(said)["deleted"] >= 2) == (200, True)
            assert {*await readable(bucket)} == keys_of(some[1:])
            assert sorted(one["id"] for one in (await served.json("/api/faces"))["faces"]) == left
            for one in some:
                assert (await served.get(f"/thumb?key={quote(one.key)}"))[0] == (
                    404 if one is some[0] else 200
                )

    asyncio.run(scenario())
    assert not held_bytes(tmp_path / "bucket", some[0])


def test_retention_counts_from_the_closing_also_when_written_anew(tmp_path: Path, make_face: Make) -> None:
    now = datetime.now(UTC)
    late, young = now + KEEP - timedelta(hours=1), now + KEEP + timedelta(minutes=10)
    faces = [make_face(picture(n), time=now - timedelta(days=1, seconds=n)) for n in range(6)]

    async def scenario() -> None:
        bucket = folder(tmp_path)
        before = now - timedelta(days=20)
        [slow] = await put_shards(bucket, faces[:2], closed=before)  # of a store whose clock is behind
        [ahead] = await put_shards(bucket, faces[2:4], closed=now + timedelta(days=400))
        [old] = await put_shards(bucket, faces[4:], closed=now - timedelta(minutes=50))
        await bury(bucket, Tombstone(made=now, ids=(faces[5].face.id,)))
        await obey(bucket, old, Tombstones(bucket), modified=now - timedelta(minutes=49))
        for path in (tmp_path / "shards").rglob("*.tar"):
            assert path.stat().st_mtime > now.timestamp() - 60
        assert await retention.expire(bucket, keep=KEEP, now=lambda: late) == 0
        assert {held.shard.closed.date() for held in await there(bucket)} >= {slow.closed.date()}
        at = now + KEEP - timedelta(minutes=45)
        assert await retention.expire(bucket, keep=KEEP, now=lambda: at) == 2
        assert {held.shard for held in await there(bucket)} == {slow, ahead}
        at_once = [retention.expire(bucket, keep=KEEP, now=lambda: young) for _ in range(3)]
        assert max(await asyncio.gather(*at_once)) >= 2
        assert {e.key async for e in bucket.list()} == {e.key async for e in bucket.list("tombstones")}

    asyncio.run(scenario())


def test_retention_takes_a_tar_whose_catalogue_went_before_it_was_cut_off(
    tmp_path: Path, faces: list[Frozen]
) -> None:
    async def scenario() -> None:
        bucket = folder(tmp_path)
        later = datetime.now(UTC) + KEEP + timedelta(minutes=1)
        [one, *_] = await put_shards(bucket, faces)
        await bucket.delete(one.catalogue)
        assert await retention.expire(bucket, keep=KEEP, now=lambda: later) == 3
        await put_shards(bucket, faces[:1])
        await remove(bucket, (await there(bucket))[0].shard)
        assert not await there(bucket)

    asyncio.run(scenario())


def test_a_store_that_closes_shards_all_the_time_keeps_none_of_the_erased(tmp_path: Path) -> None:
    """The command beside a real store: what it took before is gone, what comes later is stored."""
    with chain(tmp_path, sides={"cloud": {"store": {"layout": "shards", "shard_s": 0.2}}}) as c:
        feeder = c.feed(120, rate=40)
        eventually(lambda: len(c.objects("catalogue")) >= 2)
        words = ["erase", "--site", "home", "--camera", "door", "--yes", "--wait", "0"]
        done = facerelay(*words, "-c", str(c.folder / "cloud.toml"))
        assert done.returncode == 0, done.stderr
        c.finished(feeder)
        line = json.loads(done.stdout)
        assert line["places"]["shards"] >= 1
        checked = facerelay("erase", "--verify", "-c", str(c.folder / "cloud.toml"))
        assert (checked.returncode, json.loads(checked.stdout)["alive"]) == (0, 0), checked.stdout
        books = c.books(audit=False)["cameras"]["home/door"]
        assert books["captured"] == books["stored"] + books["erased"] == 120
        rows = asyncio.run(whole(folder(c.folder / "bucket")))
        end = datetime.fromisoformat(line["asked"]["end"])
        assert all(row.time >= end for row in rows)
        assert rows


def test_without_shards_nothing_is_loaded_and_two_looks_are_all(tmp_path: Path, make_face: Make) -> None:
    one = make_face()
    asyncio.run(folder(tmp_path).put_new(one.key, one.data))
    program = f"""
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from facerelay.cloud import proofs, retention
from facerelay.cloud.erase import erase
from facerelay.cloud.folder import FolderBucket

looks = []

class Counted(FolderBucket):
    async def children(self, prefix=""):
        looks.append(prefix)
        return await super().children(prefix)

bucket = Counted(Path({str(tmp_path)!r}), url="file:")
done = asyncio.run(erase(bucket, site="home", longest_put=0))
assert done.count == 1 and asyncio.run(proofs.verify(bucket)).well
asyncio.run(retention.expire(bucket, keep=timedelta(days=1)))
assert looks.count("shards") == looks.count("catalogue") == 4, looks
assert not any(name.startswith(("shards/", "catalogue/")) for name in looks)
assert "pyarrow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
