"""The same month of faces in shards, for the gallery's bench: each day's in the order of their times."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

from bench.gallery_fill import CAMERAS, DAYS, pictures
from bench.packs import put_shard
from facerelay import config, face
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.face import Frozen

PER_SHARD = 1_000
_SITES = 2
_PROCESSES = 2


def fill(where: config.Bucket, count: int, now: datetime) -> None:
    """Write the faces into a bucket as shards."""
    context = get_context("spawn")
    parts = [context.Process(target=_part, args=(where, count, now, part)) for part in range(_PROCESSES)]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        assert part.exitcode == 0, part.exitcode


def putting(where: config.Bucket) -> Callable[[Frozen], None]:
    """Return what puts one face into a bucket, as a shard of its own."""
    return lambda one: asyncio.run(put(open_bucket(where), [one]))


async def put(bucket: Bucket, faces: list[Frozen]) -> None:
    """Write faces of one day as a shard that was closed just after the last."""
    second = timedelta(seconds=1)
    closed = faces[-1].face.time + 2 * second
    await put_shard(bucket, faces, closed=closed, arrived=lambda one: one.face.time + second)


def _part(where: config.Bucket, count: int, now: datetime, part: int) -> None:
    os.nice(5)
    bucket = open_bucket(where)

    async def everything() -> None:
        for back in range(part, DAYS, _PROCESSES):
            faces = list(_day(now - timedelta(days=back), count // DAYS))
            days: dict[str, list[Frozen]] = {}
            for one in faces:
                days.setdefault(one.face.time.date().isoformat(), []).append(one)
            for some in days.values():
                for at in range(0, len(some), PER_SHARD):
                    await put(bucket, some[at : at + PER_SHARD])

    asyncio.run(everything())


def _day(until: datetime, count: int) -> Iterator[Frozen]:
    """Yield the faces of the 24 hours until a time, the earliest first."""
    chance = random.Random(until.toordinal())  # noqa: S311 - the same month each time
    shown = list(pictures())
    for shift in sorted(chance.random() for _ in range(count)):
        camera = chance.randrange(CAMERAS)
        yield face.freeze(
            face.Face(
                id=face.new_id(), outbox=f"{camera % _SITES:032x}", run="b" * 8, seq=chance.randrange(10**9),
                site=f"site-{camera % _SITES}", camera=f"camera-{camera // _SITES}",
                time=(until - timedelta(days=1 - shift)).astimezone(UTC), box=(40, 30, 80, 96),
                frame=(1280, 720), score=0.9, quality=chance.random(), track=chance.randrange(10**6),
                clock="synchronised",
            ),
            chance.choice(shown),
        )  # fmt: skip
