"""Shards for tests and benches, made with the format's own parts, without a store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from facerelay.cloud import keys
from facerelay.cloud.bucket import Bucket
from facerelay.cloud.shards import catalogue
from facerelay.cloud.shards.names import Shard
from facerelay.cloud.shards.pack import Pack
from facerelay.cloud.shards.row import Row
from facerelay.face import Frozen


async def put_shard(
    bucket: Bucket, faces: Iterable[Frozen], *, store: str = "cloud", closed: datetime | None = None
) -> tuple[Shard, list[Row]]:
    """Write faces of one day as a shard, and return its name and its rows."""
    pack = Pack()
    now = closed or datetime.now(UTC)
    chosen = list(faces)
    for one in chosen:
        pack.add(one, arrived=now)
    shard = Shard.new(keys.day(chosen[0].face.time), store, now)
    await bucket.put_new(shard.tar, pack.tar(), content_type="application/x-tar")
    await bucket.put_new(shard.catalogue, catalogue.write(pack.rows, tar=shard.tar))
    return shard, pack.rows
