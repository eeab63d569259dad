"""Catalogues and tars of somebody else: none takes memory, hides another, or shows what is not its own."""

from __future__ import annotations

import asyncio
import io
import logging
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench.packs import put_shard

from conftest import Make
from facerelay.cloud.audit import audit
from facerelay.cloud.bucket import Bucket, BucketError
from facerelay.cloud.shards import catalogue
from facerelay.cloud.shards.catalogue import CatalogueError
from facerelay.cloud.shards.names import Shard
from facerelay.cloud.shards.pages import PageError
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shards.view import ShardView
from gallery_parts import folder

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MOST = 1_000_000
TAR = "shards/date=2026-11-20/20261120T130000Z-cloud-00000000.tar"


async def put_rows(bucket: Bucket, rows: list[Row], **other: str) -> Shard:
    """Write a catalogue of these rows, and no tar."""
    shard = Shard.new(other.pop("date", "2026-11-20"), "mallory", NOON)
    data = catalogue.write(rows, tar=other.get("tar", shard.tar))
    await bucket.put_new(shard.catalogue, data)
    return shard


async def keys_of(bucket: Bucket) -> list[str]:
    return sorted([entry.key async for entry in bucket.list("faces")])


def parquet(count: int, **columns: Any) -> bytes:  # noqa: ANN401 - a column's value, or a list of values
    """Return a catalogue by its schema with whatever values."""
    plain: dict[str, Any] = {
        "id": "01a20044-f114-7d10-b123-9cd9cd404fff", "site": "home", "camera": "door", "time": NOON,
        "arrived": NOON, "clock": "synchronised", "outbox": "a" * 32, "run": "b" * 8, "seq": 1, "score": 0.5,
        "quality": 0.5, "sealed": False, "sha256": "c" * 64, "extension": "jpg", "offset": 512, "length": 9,
        "tar": TAR,
    }  # fmt: skip
    options = columns.pop("options", {})
    values = {
        name: value if isinstance(value, (list, pa.DictionaryArray)) else [value] * count
        for name, value in (plain | columns).items()
    }
    schema = catalogue.SCHEMA
    for place, (name, value) in enumerate(values.items()):
        if isinstance(value, pa.DictionaryArray):
            schema = schema.set(schema.get_field_index(name), pa.field(name, value.type, nullable=False))
            assert schema.names[place] == name
    file = io.BytesIO()
    pq.write_table(pa.table(values, schema=schema), file, compression="zstd", **options)
    return file.getvalue()


def named_by_all(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def test_what_is_no_catalogue_is_refused(make_face: Make, tmp_path: Path) -> None:
    _, rows = asyncio.run(put_shard(folder(tmp_path), [make_face(time=NOON)]))
    good = catalogue.write(rows, tar=TAR)
    other = io.BytesIO()
    pq.write_table(pa.table({"id": ["x"], "more": [1]}), other)
    bad = [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", good[:-20], good[20:], other.getvalue(), good * 2]
    for data in bad[:-1]:
        with pytest.raises(CatalogueError):
            catalogue.read(data, tar=TAR)
        with pytest.raises(CatalogueError):
            catalogue.places(data, date="2026-11-20")
    with pytest.raises(CatalogueError, match="another tar"):
        catalogue.read(good, tar=TAR.replace("00000000", "00000001"))
    with pytest.raises(CatalogueError, match="another day"):
        catalogue.places(good, date="2026-11-21")


def test_any_damage_is_an_error_of_ours_or_none(make_face: Make, tmp_path: Path) -> None:
    faces = [make_face(time=NOON) for _ in range(20)]
    _, rows = asyncio.run(put_shard(folder(tmp_path), faces))
    good = catalogue.write(rows, tar=TAR)
    chance = random.Random(8)  # noqa: S311 - the same damage each time
    refused = 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            assert len(catalogue.read(bytes(data), tar=TAR)) <= 20
            catalogue.places(bytes(data), date="2026-11-20")
        except CatalogueError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("what", [
    # 200 MB of one letter in pages that pack to some kB
    {"count": 200, "site": "a" * 1_000_000, "options": {"use_dictionary": False}},
    # one text of 300 kB, named by each of 100,000 rows
    {"count": 100_000, "camera": named_by_all("a" * 300_000, 100_000), "options": {"store_schema": False}},
    # as differences from the one before: each row is longer by nothing that is written
    {"count": 1_000, "camera": "a" * 50_000,
     "options": {"use_dictionary": False, "column_encoding": {"camera": "DELTA_BYTE_ARRAY"}}},
    {"count": 200_001},
])  # fmt: skip
def test_a_bomb_takes_no_memory(what: dict[str, Any]) -> None:
    data = parquet(**what)
    assert len(data) < 2_000_000
    pool = pa.system_memory_pool()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        start = pool.max_memory()
        with pytest.raises(CatalogueError):
            catalogue.read(data, tar=TAR)
        with pytest.raises(CatalogueError):
            catalogue.places(data, date="2026-11-20")
        assert pool.max_memory() - start < 20_000_000
    finally:
        pa.set_memory_pool(before)


def test_a_header_that_says_less_than_it_unpacks_to_is_no_way_around() -> None:
    data = bytearray(parquet(1_000, options={"use_dictionary": False}))
    known = pq.read_metadata(io.BytesIO(bytes(data)))
    at = known.row_group(0).column(0).data_page_offset
    assert data[at + 2] == 0x15  # field 2, a number: what the page unpacks to
    data[at + 3 : at + 6] = b"\x80\x80\x00"  # 0, as long as it was
    with pytest.raises(CatalogueError):
        catalogue.read(bytes(data), tar=TAR)


def test_too_many_cameras_are_refused() -> None:
    names = [f"c{n}" for n in range(20_001)]
    with pytest.raises(CatalogueError, match="cameras"):
        catalogue.places(parquet(len(names), camera=names), date="2026-11-20")


def test_values_that_lead_elsewhere_are_refused() -> None:
    for column, value in (
        ("site", "../../etc"), ("camera", "a/b"), ("site", "home\n"), ("extension", "html"),
        ("id", "x"), ("offset", -1), ("length", -1), ("sha256", "z" * 64),
    ):  # fmt: skip
        with pytest.raises(CatalogueError):
            catalogue.read(parquet(1, **{column: value}), tar=TAR)


def test_a_broken_catalogue_hides_no_other(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    faces = [make_face(time=NOON + timedelta(seconds=n)) for n in range(4)]

    async def scenario() -> None:
        bucket = folder(tmp_path)
        _, rows = await put_shard(bucket, faces)
        for n in range(30):
            await bucket.put_new(
                f"catalogue/date=2026-11-20/20261120T1300{n:02}Z-bad-{n:08x}.parquet", b"PAR1"
            )
        far = [replace(row, time=row.time + timedelta(days=1)) for row in rows]
        await put_rows(bucket, far)
        await put_rows(bucket, [replace(row, length=0, id=row.id[:-1] + "0") for row in rows])
        await put_rows(bucket, [replace(row, id=row.id[:-1] + "1") for row in rows], tar=TAR)
        await bucket.put_new("catalogue/date=2026-99-99/20261120T130000Z-bad-00000000.parquet", b"PAR1")
        await bucket.put_new("catalogue/date=2026-11-20/odd.parquet", b"PAR1")
        assert await keys_of(ShardView(bucket)) == sorted(one.key for one in faces)
        assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 1
        found = await audit(bucket, [])
        assert (found.checked, found.unreadable.count >= 30) == (4, True)

    asyncio.run(scenario())


def test_a_large_catalogue_is_not_read(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_face(time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path)
        await put_shard(bucket, [one])
        path = tmp_path / "catalogue/date=2026-11-20/20261120T130000Z-big-00000000.parquet"
        with path.open("wb") as file:
            file.truncate(10_000_000_000)
        read: list[str] = []
        get = bucket.get

        async def noted(key: str, *, max_bytes: int) -> bytes:
            read.append(key)
            return await get(key, max_bytes=max_bytes)

        monkeypatch.setattr(bucket, "get", noted)
        assert await keys_of(ShardView(bucket)) == [one.key]
        assert not [key for key in read if "-big-" in key]

    asyncio.run(scenario())


def test_rows_that_point_elsewhere_give_no_bytes(tmp_path: Path, make_face: Make) -> None:
    first, second = make_face(time=NOON), make_face(time=NOON)

    async def scenario() -> None:
        bucket = folder(tmp_path)
        shard, rows = await put_shard(bucket, [first, second])
        tar = (tmp_path / shard.tar).read_bytes()
        lies = [
            replace(rows[0], offset=rows[1].offset, length=rows[1].length),  # another's bytes
            replace(rows[1], offset=2**61),
            replace(rows[1], id=rows[1].id[:-4] + "0000", offset=len(tar) - 10, length=500),
            replace(rows[1], id=rows[1].id[:-4] + "0001", length=2**60),
        ]
        await bucket.delete(shard.catalogue)
        await bucket.put_new(shard.catalogue, catalogue.write(lies, tar=shard.tar))
        view = ShardView(bucket)
        listed = await keys_of(view)
        assert len(listed) == 4
        for key in listed:
            with pytest.raises(BucketError):
                await view.get(key, max_bytes=MOST)
        found = await audit(bucket, [])
        assert found.unreadable.count == 4

    asyncio.run(scenario())


def test_ids_that_come_twice_are_one_face_and_other_bytes_another(
    tmp_path: Path, make_face: Make, jpeg: bytes
) -> None:
    one = make_face(time=NOON)
    other = make_face(jpeg[:-2] + b"\x00\xff\xd9", time=NOON, id=one.face.id)

    async def scenario() -> None:
        bucket = folder(tmp_path)
        _, rows = await put_shard(bucket, [one])
        await put_rows(bucket, rows * 50)
        view = ShardView(bucket)
        assert await keys_of(view) == [one.key]
        assert await view.get(one.key, max_bytes=MOST) == one.data  # whichever of the two is asked first
        await put_shard(bucket, [other])
        assert await keys_of(ShardView(bucket)) == sorted([one.key, other.key])
        assert (await audit(bucket, [])).twice.first == [one.face.id]

    asyncio.run(scenario())


def test_a_tar_of_somebody_elses_is_read_as_far_as_it_is_ours(tmp_path: Path, make_face: Make) -> None:
    faces = [make_face(time=NOON) for _ in range(3)]

    async def scenario() -> None:
        for number, harm in enumerate((b"", b"\xff" * 512, b"../../etc/passwd" + bytes(496))):
            bucket = folder(tmp_path / str(number))
            shard, rows = await put_shard(bucket, faces)
            path = tmp_path / str(number) / shard.tar
            tar = path.read_bytes()
            at = rows[1].offset - 512
            path.write_bytes(tar[:at] + harm + tar[at + len(harm) :] if harm else b"")
            found = await audit(bucket, [])
            assert found.checked == (1 if harm else 0)
            assert found.unreadable.count == 3 - found.checked

    asyncio.run(scenario())


def test_page_headers_are_read_within_the_file() -> None:
    class Column:
        data_page_offset, dictionary_page_offset, has_dictionary_page = 4, 0, False

        def __init__(self, size: int) -> None:
            self.total_compressed_size = size

    class Known:
        num_row_groups = num_columns = 1

        def __init__(self, size: int) -> None:
            self._size = size

        def row_group(self, _: int) -> Known:
            return self

        def column(self, _: int) -> Column:
            return Column(self._size)

    from facerelay.cloud.shards.pages import unpacked  # noqa: PLC0415 - beside what stands for the library

    chance = random.Random(3)  # noqa: S311 - the same bytes each time
    for _ in range(2_000):
        data = b"PAR1" + chance.randbytes(chance.randrange(200))
        for size in (len(data) - 4, 10**15, -1):
            try:
                unpacked(data, Known(size))
            except PageError:
                continue
    with pytest.raises(PageError, match="outside"):
        unpacked(b"PAR1", Known(10**15))
