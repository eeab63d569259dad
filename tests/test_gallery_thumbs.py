from __future__ import annotations

import asyncio
import io
import json
import stat
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import Make
from facerelay import config, face
from facerelay.cloud import retention
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.contract import BucketError, MissingError
from facerelay.cloud.erase import erase
from facerelay.cloud.gallery import thumbs
from facerelay.cloud.gallery.cache import Cache, Learnt
from facerelay.cloud.gallery.erasing import Eraser
from facerelay.cloud.gallery.reading import Reader
from facerelay.cloud.gallery.thumbs import SIDE, DamagedError
from facerelay.cloud.quarantine import Quarantine, notes
from gallery_parts import fill, folder, parts_of, serving

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def photo(width: int = 900, height: int = 600, ending: str = ".jpg") -> bytes:
    rng = np.random.default_rng(1)
    small = rng.integers(0, 255, (6, 9, 3), dtype=np.uint8)
    return cv2.imencode(ending, cv2.resize(small, (width, height)))[1].tobytes()


def clear(width: int, height: int, media: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (width, height), (255, 0, 0, 0)).save(out, media)
    return out.getvalue()


def bomb(*, small_first: bool = False) -> bytes:
    """A PNG of a few bytes that says it has 900 million pixels, at once or when it has said another size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0)) if small_first else b""
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9_000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + small + body


def progressive(side: int, scans: int = 0) -> bytes:
    """A JPEG whose last scan, of twelve bytes, comes so many times more."""
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "JPEG", progressive=True, subsampling=0, quality=30)
    data = out.getvalue()
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * scans + data[-2:]


@pytest.mark.parametrize(
    "encoded",
    [photo(), photo(ending=".png"), photo(ending=".webp"), photo(40, 50), photo(1, 3000),
     clear(400, 300, "PNG"), clear(400, 300, "WEBP"), progressive(700)],
)  # fmt: skip
def test_a_thumbnail_is_small_and_says_nothing(make_face: Make, encoded: bytes) -> None:
    one = make_face(encoded)
    with Image.open(io.BytesIO(thumbs.make(one.data))) as small, Image.open(io.BytesIO(encoded)) as large:
        assert small.format == "WEBP"
        assert max(small.size) == min(SIDE, max(large.size))
        assert not small.getexif()
        assert "exif" not in small.info
        if large.mode == "RGBA":
            assert small.convert("RGB").getpixel((9, 9)) == pytest.approx((128, 128, 128), abs=4)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-200],
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 2] + bytes(400) + data[len(data) // 2 + 400 :],
        lambda _: bomb(),
        lambda _: bomb(small_first=True),
        lambda _: progressive(200, scans=80),
        lambda _: progressive(4000),
        lambda _: b"\x80\x04K\x01.",
        lambda _: b"",
        lambda _: b"GIF89a" + bytes(400),
    ],
    ids=["end", "half", "zeros", "bomb", "two sizes", "scans", "coefficients", "pickle", "empty", "gif"],
)
def test_a_damaged_picture_is_said_to_be_one(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    one = make_face(photo(ending=".png"), time=NOON)
    spoilt = spoil(one.data)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await bucket.put_new(one.key, spoilt)
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for requests in ("1", "0"):  # and it is not read again to say so
                status, headers, body = await served.get(f"/thumb?key={quote(one.key)}")
                assert status == 422, body
                assert "cannot be shown" in json.loads(body)["error"]
                assert headers["x-bucket-requests"] >= requests
            assert headers["x-bucket-requests"] == "0"
            told = await served.json(f"/api/face?key={quote(one.key)}")
            assert told["bytes"] == len(spoilt)
            page = await served.json("/api/faces")
            assert [each["key"] for each in page["faces"]] == [one.key]
            assert (await served.json("/api/faces?quality=0.9"))["faces"] == []
            assert served.task.done() is False

    asyncio.run(scenario())


def test_too_large_a_picture_is_not_read(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_face(photo(), time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await bucket.put_new(one.key, one.data + bytes(face.Limits().bytes))
        async with parts_of(bucket, tmp_path) as parts:
            with pytest.raises(DamagedError, match="too-large"):
                await parts.reader.thumb(one.key)
            assert (await parts.reader.learn([one.key]))[one.key].fault == "too-large"
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for path in ("/thumb", "/picture", "/api/face"):
                assert "too-large" in (await served.json(f"{path}?key={quote(one.key)}", 422))["error"]

    asyncio.run(scenario())


def test_a_thumbnail_is_made_once(tmp_path: Path, make_face: Make) -> None:
    one = make_face(photo(), time=NOON, quality=0.75)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one])
        async with parts_of(bucket, tmp_path) as parts:
            before = parts.bucket.requests
            made = await asyncio.gather(*(parts.reader.thumb(one.key) for _ in range(10)))
            assert parts.bucket.requests == before + 1
            assert len(set(made)) == 1
            learnt = (await parts.reader.known([one.key]))[one.key]
            assert (learnt.quality, learnt.width, learnt.height) == (0.75, 900, 600)
        async with parts_of(bucket, tmp_path) as parts:
            before = parts.bucket.requests
            assert await parts.reader.thumb(one.key) == made[0]
            assert parts.bucket.requests == before

    asyncio.run(scenario())


def test_what_is_erased_elsewhere_is_gone_from_pages_and_disk(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = make_face(photo(), time=NOON), make_face(time=NOON + timedelta(hours=1))

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one, other])
        cache = tmp_path / "cache" / "thumbnails.db"
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served, served.listening() as events:
            _, _, thumb = await served.get(f"/thumb?key={quote(one.key)}")
            middle = thumb[200:400]
            assert _holds(cache, middle)
            await erase(bucket, ids=[one.face.id], longest_put=0)
            while (event := await events.next())[0] == "face":  # it landed just before the first listing
                pass
            assert event == ("erased", {"key": one.key})
            await served.json(f"/thumb?key={quote(one.key)}", 404)
            page = await served.json("/api/faces")
            assert [each["key"] for each in page["faces"]] == [other.key]
            async with asyncio.timeout(20):
                while _holds(cache, middle):
                    await asyncio.sleep(0.05)
        assert not _holds(cache, middle)

    asyncio.run(scenario())


def _holds(cache: Path, data: bytes) -> bool:
    return any(data in file.read_bytes() for file in cache.parent.iterdir())


def test_a_gallery_that_was_down_obeys_before_it_shows(tmp_path: Path, make_face: Make) -> None:
    one, other = make_face(photo(), time=NOON), make_face(time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one, other])
        async with parts_of(bucket, tmp_path) as parts:
            await parts.reader.thumb(one.key)
        await erase(bucket, ids=[one.face.id], longest_put=0)
        await fill(bucket, [one])  # a PUT that was under way, and a store that died before it looked again
        async with parts_of(bucket, tmp_path) as parts:
            assert await parts.obedience.left([one.key, other.key]) == [other.key]
            async with asyncio.timeout(20):
                while await _lies(bucket, one.key):
                    await asyncio.sleep(0.02)
            assert await _lies(bucket, other.key)

    asyncio.run(scenario())


async def _lies(bucket: Any, key: str) -> bool:  # noqa: ANN401 - any bucket
    try:
        await bucket.get(key, max_bytes=1_000_000)
    except MissingError:
        return False
    return True


def test_what_goes_by_age_goes_from_the_cache(tmp_path: Path, make_face: Make) -> None:
    one, other = make_face(photo(), time=NOON), make_face(time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one, other])
        async with parts_of(bucket, tmp_path) as parts:
            for each in (one, other):
                await parts.reader.thumb(each.key)
            await bucket.delete(one.key)
            assert await parts.obedience.verify() == 1
            assert (await parts.reader.known([one.key, other.key])).keys() == {other.key}
            assert not await parts.listings.has(one.key, age_s=30)
        assert await retention.expire(bucket, keep=timedelta(0)) == 1

    asyncio.run(scenario())


def test_what_is_erased_while_it_is_read_is_not_kept(tmp_path: Path, make_face: Make) -> None:
    one = make_face(photo(), time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one])
        async with Cache(tmp_path / "cache", max_bytes=1_000_000) as cache:
            erased: set[str] = set()
            reader = Reader(bucket, cache, limits=face.Limits(), is_erased=erased.__contains__)
            making = asyncio.create_task(reader.thumb(one.key))
            learning = asyncio.create_task(reader.learn([one.key]))
            await asyncio.sleep(0)
            erased.add(one.key)
            await asyncio.gather(making, learning)
            assert await cache.keys() == []

    asyncio.run(scenario())


def test_the_second_sweep_takes_what_landed_meanwhile(tmp_path: Path, make_face: Make) -> None:
    one, bad = make_face(time=NOON), make_face(time=NOON)
    gone: list[str] = []

    async def note(keys: Any) -> None:  # noqa: ANN401 - a sequence of keys
        gone.extend(keys)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one])
        quarantine = Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1))
        await quarantine.put("faces/home/door", bad.data, "conflict", bad.face)
        eraser = Eraser(bucket, on_gone=note, wait_s=0.5)
        done = await eraser.erase([one.key, bad.key])
        assert done.deleted == 1
        assert set(gone) == {one.key, bad.key}
        await fill(bucket, [one])
        async with asyncio.timeout(20):
            while await _lies(bucket, one.key):
                await asyncio.sleep(0.05)
            while [note async for note in notes(bucket)]:
                await asyncio.sleep(0.05)
        await eraser.close()

    asyncio.run(scenario())


def test_the_cache_is_for_one_user_and_keeps_to_its_budget(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Cache(tmp_path / "c", max_bytes=1_000_000) as cache:
            assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / "c" / "thumbnails.db").stat().st_mode) == 0o600
            for number in range(300):
                await cache.keep(f"faces/{number:04}", Learnt(quality=0.5), bytes([number % 256]) * 8_000)
            assert await cache.size() <= 1_000_000
            assert await cache.thumb("faces/0000") is None
            assert await cache.thumb("faces/0299") == bytes([299 % 256]) * 8_000
            assert len(await cache.learnt([f"faces/{number:04}" for number in range(300)])) == 300
        assert sum(file.stat().st_size for file in (tmp_path / "c").iterdir()) < 1_500_000

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["noise", "truncated", "other", "folder-in-the-way"])
def test_a_cache_that_cannot_be_used_costs_nobody_a_picture(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    one = make_face(photo(), time=NOON)
    file = tmp_path / "cache" / "thumbnails.db"

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one])
        if kind == "folder-in-the-way":
            file.mkdir(parents=True)
        elif kind == "noise":
            file.parent.mkdir()
            file.write_bytes(bytes(range(256)) * 64)
        else:
            async with parts_of(bucket, tmp_path) as parts:
                await parts.reader.thumb(one.key)
            data = file.read_bytes()
            file.write_bytes(
                data[: len(data) // 2] if kind == "truncated" else b"SQLite format 3\x00" + data[40:]
            )
        for _ in range(2):
            async with parts_of(bucket, tmp_path) as parts:
                assert await parts.reader.thumb(one.key) == await parts.reader.thumb(one.key)
                await parts.obedience.forget([one.key])
        assert ("gallery.cache" in caplog.text) == (kind == "folder-in-the-way")

    asyncio.run(scenario())


def test_a_cache_that_breaks_while_it_is_used_is_begun_anew(tmp_path: Path, make_face: Make) -> None:
    one = make_face(photo(), time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await fill(bucket, [one])
        async with parts_of(bucket, tmp_path) as parts:
            made = await parts.reader.thumb(one.key)
            for file in (tmp_path / "cache").iterdir():
                file.write_bytes(b"x" * 9_000)
            assert await parts.reader.thumb(one.key) == made
            assert await parts.reader.thumb(one.key) == made

    asyncio.run(scenario())


def test_a_thumbnail_of_a_bucket_that_fails_is_no_damaged_one(tmp_path: Path, make_face: Make) -> None:
    one = make_face(photo(), time=NOON)

    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}/b"))
        await fill(bucket, [one])
        async with parts_of(bucket, tmp_path) as parts:
            (tmp_path / "b").rename(tmp_path / "c")
            (tmp_path / "b").write_text("in the way")
            with pytest.raises(BucketError):
                await parts.reader.thumb(one.key)
            (tmp_path / "b").unlink()
            (tmp_path / "c").rename(tmp_path / "b")
            assert await parts.reader.thumb(one.key)

    asyncio.run(scenario())
