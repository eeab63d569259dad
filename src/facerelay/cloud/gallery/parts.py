"""The gallery's parts, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from facerelay.cloud.contract import Bucket
from facerelay.cloud.gallery.cache import Cache
from facerelay.cloud.gallery.counted import CountedBucket
from facerelay.cloud.gallery.erasing import Eraser
from facerelay.cloud.gallery.listings import Listings
from facerelay.cloud.gallery.live import Live
from facerelay.cloud.gallery.obeying import Obedience
from facerelay.cloud.gallery.reading import Reader, describe
from facerelay.cloud.gallery.timeline import Timeline
from facerelay.cloud.gallery.wall import Wall
from facerelay.cloud.proofs import Sign
from facerelay.cloud.shards.view import ShardView
from facerelay.cloud.unseal import Unsealer
from facerelay.face import Limits
from facerelay.sections import Gallery


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What answers the pages; `eraser` is None where nothing may be erased."""

    bucket: CountedBucket
    faces: ShardView
    limits: Limits
    listings: Listings
    reader: Reader
    obedience: Obedience
    wall: Wall
    timeline: Timeline
    live: Live
    eraser: Eraser | None


@asynccontextmanager
async def assembled(
    bucket: Bucket,
    settings: Gallery,
    limits: Limits,
    *,
    unsealer: Unsealer | None = None,
    sign: Sign | None = None,
) -> AsyncIterator[Parts]:
    """Put the parts together over a bucket, for as long as the block runs.

    Args:
        bucket: where the faces are.
        settings: the gallery's.
        limits: what a picture may be, at most.
        unsealer: opens what is sealed; None leaves it closed.
        sign: signs proofs of erasure.
    """
    counted = CountedBucket(bucket)
    faces = ShardView(counted, behind=True)
    async with Cache(settings.cache, max_bytes=settings.cache_bytes) as cache:
        listings = Listings(faces)
        obedience = Obedience(faces, cache, listings)
        live = Live(
            listings, describe=describe, is_erased=obedience.is_erased, look_s=settings.look_s,
            beside=obedience.look, landed=faces.landed,
        )  # fmt: skip
        listings.on_change = live.tell
        obedience.tell_gone = live.tell_erased

        async def gone(erased: Sequence[str]) -> None:
            await obedience.look(age_s=0)
            await obedience.forget(erased)

        eraser = Eraser(counted, on_gone=gone, sign=sign) if settings.erase else None
        if eraser is not None:
            obedience.tell_alive = eraser.obey
        reader = Reader(faces, cache, limits=limits, is_erased=obedience.is_erased, unsealer=unsealer)
        timeline = Timeline(faces, listings)
        try:
            yield Parts(
                bucket=counted, faces=faces, limits=limits, listings=listings, reader=reader,
                obedience=obedience, wall=Wall(listings, reader, obedience), timeline=timeline,
                live=live, eraser=eraser,
            )  # fmt: skip
        finally:
            await live.close()
            await timeline.close()
            if eraser is not None:
                await eraser.close()
            await faces.close()
