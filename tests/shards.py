"""The shards of a bucket, for tests: written, read as readers do, and looked at whether they are whole."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby

from bench.packs import put_shard

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, MissingError
from facerelay.cloud.shards import catalogue
from facerelay.cloud.shards.names import MOST_CATALOGUE_BYTES, Shard
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shards.sweep import Listed, dates, of_date
from facerelay.cloud.shards.unpack import MOST_BYTES
from facerelay.face import Frozen


async def put_shards(
    bucket: Bucket, faces: Iterable[Frozen], *, closed: datetime | None = None, lines: bool = True
) -> list[Shard]:
    """Write faces as shards, one for each day; without `lines` no catalogue."""

    def day(one: Frozen) -> str:
        return keys.day(one.face.time)

    made = []
    for _, some in groupby(sorted(faces, key=day), day):
        shard, _rows = await put_shard(bucket, some, store="store", closed=closed)
        if not lines:
            await bucket.delete(shard.catalogue)
        made.append(shard)
    return made


async def there(bucket: Bucket) -> list[Listed]:
    """Return all shards, whole or not."""
    return [listed for date in await dates(bucket) for listed in await of_date(bucket, date)]


async def readable(bucket: Bucket) -> dict[str, bytes]:
    """Return the faces that catalogues lead to, by key; their bytes are looked at."""
    found: dict[str, bytes] = {}
    for listed in await there(bucket):
        if listed.catalogue is None or listed.tar is None:
            continue
        try:
            data = await bucket.get(listed.shard.catalogue, max_bytes=MOST_CATALOGUE_BYTES)
            tar = await bucket.get(listed.shard.tar, max_bytes=MOST_BYTES)
        except MissingError:
            continue
        for row in await asyncio.to_thread(catalogue.read, data, tar=listed.shard.tar):
            picture = tar[row.offset : row.offset + row.length]
            assert hashlib.sha256(picture).hexdigest() == row.sha256
            found[row.key] = picture
    return found


async def whole(bucket: Bucket) -> list[Row]:
    """See that each shard has a tar and a catalogue that agree; return all lines."""
    lines: list[Row] = []
    for listed in await there(bucket):
        assert listed.tar is not None, f"{listed.shard.catalogue} has no tar"
        assert listed.catalogue is not None, f"{listed.shard.tar} has no catalogue"
        data = await bucket.get(listed.shard.catalogue, max_bytes=MOST_CATALOGUE_BYTES)
        rows = catalogue.read(data, tar=listed.shard.tar)
        tar_data = await bucket.get(listed.shard.tar, max_bytes=MOST_BYTES)
        with tarfile.open(fileobj=io.BytesIO(tar_data)) as tar:
            members = tar.getmembers()
            pictures = {one.offset_data: one for one in members if not one.name.endswith(".json")}
            assert len(members) == 2 * len(rows) == 2 * len(pictures)
            assert {row.offset: row.length for row in rows} == {at: one.size for at, one in pictures.items()}
        lines += rows
    return lines


def keys_of(faces: Sequence[Frozen]) -> set[str]:
    return {one.key for one in faces}
