"""Erase faces for good: a tombstone first, then the objects, then once more after the longest PUT."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from facerelay.cloud import keys, quarantine
from facerelay.cloud.contract import LONGEST_PUT_S, Bucket
from facerelay.cloud.tombstones import AGE_S, MAX_IDS, Tombstone, bury, now

log = logging.getLogger(__name__)

_AT_ONCE: Final = 32


class EraseError(ValueError):
    """This cannot be asked; the message says what can."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased.

    Attributes:
        tombstone: the key of the tombstone, which stays.
        deleted: the keys of all deleted objects.
        swept: how many of them only the second sweep found.
        proof: all of it as one line of JSON, with a sha256 over the sorted keys, one a line.
    """

    tombstone: str
    deleted: tuple[str, ...]
    swept: int
    proof: str

    @property
    def count(self) -> int:
        """How many objects were deleted."""
        return len(self.deleted)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the deleted faces."""
        return tuple(sorted({facts.id for key in self.deleted if (facts := keys.parse(key))}))


async def erase(
    bucket: Bucket,
    *,
    ids: Iterable[str] = (),
    site: str | None = None,
    camera: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    longest_put: float = LONGEST_PUT_S,
) -> Erased:
    """Erase the faces that agree with all that is given.

    Without ids the rule ends now at the latest: what a camera takes tomorrow is stored again.

    Args:
        bucket: where.
        ids: of faces.
        site: its name.
        camera: its name.
        start: faces taken at this time or later.
        end: faces taken before this time.
        longest_put: seconds that a PUT may take which began before the tombstone was seen.

    Raises:
        EraseError: nothing was given, or more than can be.
        BucketError: the bucket failed; asking again is safe.
    """
    asked = _tombstone(tuple(ids), site, camera, start, end)
    tombstone = asked if asked.ids else asked.model_copy(update={"end": min(end or asked.made, asked.made)})
    key = await bury(bucket, tombstone)
    log.info("%s is written; deleting", key)
    first = await _sweep(bucket, tombstone, asked)
    await asyncio.sleep(longest_put + AGE_S if longest_put else 0)
    second = await _sweep(bucket, tombstone, asked)
    deleted = tuple(sorted({*first, *second}))
    swept = len(set(second) - set(first))
    criteria = tombstone.model_dump(mode="json", exclude_none=True, exclude={"v", "made"})
    proof = {
        "asked": criteria, "tombstone": key, "deleted": len(deleted), "second_sweep": swept,
        "sha256": hashlib.sha256("\n".join(deleted).encode()).hexdigest(), "time": now().isoformat(),
    }  # fmt: skip
    return Erased(key, deleted, swept, json.dumps(proof))


def _tombstone(
    ids: tuple[str, ...], site: str | None, camera: str | None, start: datetime | None, end: datetime | None
) -> Tombstone:
    if not ids and site is None and camera is None and start is None and end is None:
        raise EraseError("say what to erase: ids, a site, a camera, or a time range")
    if len(ids) > MAX_IDS:
        raise EraseError(f"{len(ids)} ids are too many at once: {MAX_IDS} at most")
    try:
        return Tombstone(made=now(), ids=ids, site=site, camera=camera, start=start, end=end)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise EraseError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


async def _sweep(bucket: Bucket, tombstone: Tombstone, asked: Tombstone) -> list[str]:
    found = [key async for key in _covered(bucket, tombstone, asked)]
    for at in range(0, len(found), _AT_ONCE):
        await asyncio.gather(*(bucket.delete(key) for key in found[at : at + _AT_ONCE]))
    return found


async def _covered(bucket: Bucket, tombstone: Tombstone, asked: Tombstone) -> AsyncIterator[str]:
    """Yield the keys of what the tombstone covers, by the partitions that it can lie in.

    What had arrived before counts as well where no end was asked for: its camera's clock may run ahead.
    """
    ids = frozenset(tombstone.ids)
    first = f"{tombstone.start.astimezone(UTC):%Y-%m-%d}" if tombstone.start else ""
    last = f"{asked.end.astimezone(UTC):%Y-%m-%d}" if asked.end else "9999-99-99"
    async for date in keys.dates(
        bucket, site=tombstone.site, camera=tombstone.camera, wanted=lambda d: first <= d <= last
    ):
        async for entry in bucket.list(date):
            facts = keys.parse(entry.key)
            if facts is None or (ids and facts.id not in ids):
                continue
            where = (facts.site, facts.camera, facts.time)
            if tombstone.rules(*where) or (entry.modified <= asked.made and asked.rules(*where)):
                yield entry.key
    async for note in quarantine.notes(bucket):
        if (owner := note.face) and tombstone.covers(owner.id, owner.site, owner.camera, owner.time):
            yield note.key
            yield note.key.removesuffix(".json") + ".bin"
