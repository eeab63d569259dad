"""Shards for benches and tests, made with the format's own parts, without a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from facerelay.cloud import keys
from facerelay.cloud.bucket import Bucket
from facerelay.cloud.shards import catalogue
from facerelay.cloud.shards.names import PARQUET, TAR, Shard
from facerelay.cloud.shards.pack import Pack
from facerelay.cloud.shards.row import Row
from facerelay.face import Frozen


async def put_shard(
    bucket: Bucket,
    faces: Iterable[Frozen],
    *,
    store: str = "cloud",
    closed: datetime | None = None,
    arrived: Callable[[Frozen], datetime] | None = None,
) -> tuple[Shard, list[Row]]:
    """Write faces of one day as a shard, and return its name and its rows.

    Args:
        bucket: where.
        faces: in the order in which they lie in it.
        store: whose it is.
        closed: when; now, if not given.
        arrived: when each face came; as it was closed, if not given.
    """
    pack, now, chosen = Pack(), closed or datetime.now(UTC), list(faces)
    for one in chosen:
        pack.add(one, arrived=arrived(one) if arrived else now)
    shard = Shard.new(keys.day(chosen[0].face.time), store, now)
    tar = await asyncio.to_thread(pack.tar)
    await bucket.put_new(shard.tar, tar, content_type=TAR)
    lines = await asyncio.to_thread(catalogue.write, pack.rows, tar=shard.tar)
    await bucket.put_new(shard.catalogue, lines, content_type=PARQUET)
    return shard, pack.rows
