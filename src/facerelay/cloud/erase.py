"""Erase faces for good: a tombstone first, then the objects, then once more after the longest PUT."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from facerelay.cloud import keys, quarantine
from facerelay.cloud.contract import LONGEST_PUT_S, Bucket
from facerelay.cloud.tombstones import AGE_S, MAX_IDS, Tombstone, bury, now
from facerelay.steps import Watch, unwatched

log = logging.getLogger(__name__)

_AT_ONCE: Final = 32


class EraseError(ValueError):
    """This cannot be asked; the message says what can."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An object to delete, and whether its face lies beyond the end of the rule's tombstone."""

    key: str
    id: str
    ahead: bool


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
    watch: Watch = unwatched,
) -> Erased:
    """Erase the faces that agree with all that is given.

    Without ids the rule ends now at the latest: what a camera takes tomorrow is stored again. What had
    arrived by now goes all the same where its clock ran ahead, and stays away by its id.

    Args:
        bucket: where.
        ids: of faces.
        site: its name.
        camera: its name.
        start: faces taken at this time or later.
        end: faces taken before this time.
        longest_put: seconds that a PUT may take which began before the tombstone was seen.
        watch: is told how far it is.

    Raises:
        EraseError: nothing was given, or more than can be.
        BucketError: the bucket failed; asking again is safe.
    """
    asked = _tombstone(tuple(ids), site, camera, start, end)
    tombstone = asked if asked.ids else asked.model_copy(update={"end": min(end or asked.made, asked.made)})
    key = await bury(bucket, tombstone)
    log.info("%s is written; deleting", key)
    work = _Erasure(bucket, tombstone, asked, watch)
    first = await work.sweep()
    await _wait(longest_put + AGE_S if longest_put else 0, watch)
    second = await work.sweep()
    deleted = tuple(sorted({*first, *second}))
    swept = len(set(second) - set(first))
    criteria = tombstone.model_dump(mode="json", exclude_none=True, exclude={"v", "made"})
    more = {"more_tombstones": work.more} if work.more else {}
    return Erased(key, deleted, swept, prove(criteria, key, deleted, second_sweep=swept, **more))


def prove(asked: Mapping[str, Any], tombstone: str, deleted: Iterable[str], **more: object) -> str:
    """Return the line of proof of an erasure, as JSON: it names what was asked, and no person.

    Args:
        asked: the rule.
        tombstone: its key.
        deleted: the keys of all objects that went; their sha256 is over the sorted keys, one a line.
        more: what else there is to say.
    """
    gone = sorted(deleted)
    digest = hashlib.sha256("\n".join(gone).encode()).hexdigest()
    proof = {"asked": asked, "tombstone": tombstone, "deleted": len(gone), **more, "sha256": digest}
    return json.dumps(proof | {"time": now().isoformat()})


async def delete_all(bucket: Bucket, gone: Sequence[str], *, watch: Watch = unwatched) -> None:
    """Delete objects, some at a time.

    Raises:
        BucketError: the bucket failed; asking again is safe.
    """
    for at in range(0, len(gone), _AT_ONCE):
        watch("erasing", at, len(gone))
        await asyncio.gather(*(bucket.delete(key) for key in gone[at : at + _AT_ONCE]))


async def _wait(seconds: float, watch: Watch) -> None:
    """Wait until no PUT that began before can still be under way."""
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        watch("waiting for PUTs under way, s", passed, seconds)
        await asyncio.sleep(min(1.0, seconds - passed))


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


class _Erasure:
    """One erasure: what its tombstone covers, and what clocks that run ahead have put beyond its end.

    Without an end a rule ends now, for what is taken later is not meant. A face that had arrived before
    is meant, whatever its clock said: its id gets a tombstone too, or it could be sent and stored again.

    Attributes:
        more: the keys of these further tombstones.
    """

    def __init__(self, bucket: Bucket, tombstone: Tombstone, asked: Tombstone, watch: Watch) -> None:
        self._watch = watch
        self.more: list[str] = []
        self._bucket = bucket
        self._tombstone = tombstone
        self._asked = asked
        self._ids = frozenset(tombstone.ids)
        self._ahead: set[str] = set()

    async def sweep(self) -> list[str]:
        """Delete all that is covered; return the keys."""
        found: list[_Found] = []
        async for one in self._covered():
            found.append(one)
            self._watch("looking", len(found))
        await self._bury_ahead([one.id for one in found if one.ahead])
        names = [one.key for one in found]
        await delete_all(self._bucket, names, watch=self._watch)
        return names

    async def _bury_ahead(self, ids: list[str]) -> None:
        fresh = sorted(set(ids) - self._ahead)
        for at in range(0, len(fresh), MAX_IDS):
            batch = tuple(fresh[at : at + MAX_IDS])
            self.more.append(await bury(self._bucket, Tombstone(made=now(), ids=batch)))
        self._ahead.update(fresh)

    async def _covered(self) -> AsyncIterator[_Found]:
        """Yield what is covered, by the partitions that it can lie in, and in quarantine."""
        asked = self._asked
        first = keys.day(asked.start) if asked.start else ""
        last = keys.day(asked.end) if asked.end else "9999-99-99"
        async for date in keys.dates(
            self._bucket, site=asked.site, camera=asked.camera, wanted=lambda d: first <= d <= last
        ):
            async for entry in self._bucket.list(date):
                facts = keys.parse(entry.key)
                if facts is not None and (one := self._judge(facts, entry.modified, entry.key)):
                    yield one
        async for note in quarantine.notes(self._bucket):
            if note.face and (one := self._judge(note.face, note.arrived, note.key)):
                for key in note.keys:
                    yield replace(one, key=key)

    def _judge(self, face: keys.Facts | quarantine.Owner, arrived: datetime, key: str) -> _Found | None:
        """Return an object of this face if it is to go."""
        if self._ids and face.id not in self._ids:
            return None
        where = (face.site, face.camera, face.time)
        if self._tombstone.rules(*where):
            return _Found(key, face.id, ahead=False)
        meant = arrived <= self._asked.made and self._asked.rules(*where)
        return _Found(key, face.id, ahead=True) if meant or face.id in self._ahead else None
