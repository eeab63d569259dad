"""A day of the bucket: its faces counted by the hour, and some of their pictures."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

from facerelay import face as faces
from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError, Entry
from facerelay.face import Face, FaceError, Limits
from facerelay.steps import Watch, unwatched

_AT_ONCE: Final = 16
_MOST_LISTED: Final = 1_000_000
_HOURS: Final = 24


class Picture(NamedTuple):
    """A face of the sample: its key, what is known of it, its bytes as they lie in the bucket."""

    key: str
    face: Face
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What of a day lies in the bucket.

    Attributes:
        counts: faces in each hour, by `<site>/<camera>`.
        pictures: some of them, chosen by nothing but their hashes.
        whole: whether all was listed.
    """

    counts: Mapping[str, tuple[int, ...]]
    pictures: tuple[Picture, ...]
    whole: bool

    @property
    def total(self) -> int:
        """How many faces were listed."""
        return sum(map(sum, self.counts.values()))


async def sample(
    bucket: Bucket,
    day: date,
    *,
    site: str | None = None,
    camera: str | None = None,
    pictures: int,
    limits: Limits,
    watch: Watch = unwatched,
) -> Sample:
    """List a day's partitions, and read some of the pictures in them: of each camera about as many.

    Args:
        bucket: where.
        day: in UTC.
        site: leaves out others.
        camera: leaves out others.
        pictures: how many to read, at most.
        limits: what a picture may be; others are counted, and not read.
        watch: is told how far it is.

    Raises:
        BucketError: the bucket cannot be read.
    """
    wanted = day.isoformat()
    prefixes = [
        found
        async for found in keys.dates(bucket, site=site, camera=camera, wanted=lambda date: date == wanted)
    ]
    each = max(1, pictures // len(prefixes)) if prefixes else 0
    counts: dict[str, list[int]] = {}
    chosen: list[tuple[str, str]] = []
    listed = 0
    for prefix in prefixes:
        lot: list[tuple[str, str]] = []
        async for entry in bucket.list(prefix):
            listed += 1
            if listed > _MOST_LISTED:
                break
            _count(entry, counts)
            if entry.size <= limits.bytes:
                _choose(lot, entry.key, each)
            watch("listing", listed)
        chosen += lot
    read = await _read(bucket, [key for _, key in heapq.nlargest(pictures, chosen)], limits, watch)
    return Sample(
        counts={name: tuple(hours) for name, hours in sorted(counts.items())},
        pictures=tuple(read),
        whole=listed <= _MOST_LISTED,
    )


def _count(entry: Entry, counts: dict[str, list[int]]) -> None:
    facts = keys.parse(entry.key)
    if facts is not None:
        counts.setdefault(f"{facts.site}/{facts.camera}", [0] * _HOURS)[facts.time.hour] += 1


def _choose(lot: list[tuple[str, str]], key: str, most: int) -> None:
    """Keep a key if its hash is among the highest: by chance, and yet the same at every look."""
    if keys.parse(key) is None:
        return
    digest = key.rpartition(".")[0][-8:]
    if len(lot) < most:
        heapq.heappush(lot, (digest, key))
    else:
        heapq.heappushpop(lot, (digest, key))


async def _read(bucket: Bucket, chosen: list[str], limits: Limits, watch: Watch) -> list[Picture]:
    found: list[Picture] = []
    for at in range(0, len(chosen), _AT_ONCE):
        watch("reading pictures", at, len(chosen))
        lot = await asyncio.gather(*(_one(bucket, key, limits) for key in chosen[at : at + _AT_ONCE]))
        found += [picture for picture in lot if picture is not None]
    return found


async def _one(bucket: Bucket, key: str, limits: Limits) -> Picture | None:
    """Return a picture; None where it is gone meanwhile, no face, or a sealed one."""
    try:
        data = await bucket.get(key, max_bytes=limits.bytes)
        found = faces.parse(data, limits).face
        return None if found.sealed else Picture(key, found, data)
    except FaceError:
        return None
    except BucketError as error:
        if error.fault in {"missing", "too-large"}:
            return None
        raise
