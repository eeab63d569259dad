"""Erase faces for good: a tombstone first, then the objects, then once more after the longest PUT."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from facerelay.cloud import keys, proofs, quarantine
from facerelay.cloud.contract import LONGEST_PUT_S, Bucket
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shards.sweep import Listed, Sweep
from facerelay.cloud.survey import Survey, counted
from facerelay.cloud.tombstones import AGE_S, MAX_IDS, Tombstone, bury, now
from facerelay.steps import Watch, unwatched

log = logging.getLogger(__name__)

_AT_ONCE: Final = 32


class EraseError(ValueError):
    """This cannot be asked; the message says what can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which faces are meant: those that agree with all that is given.

    Attributes:
        ids: of faces.
        site: its name.
        camera: its name.
        start: faces taken at this time or later.
        end: faces taken before this time.
    """

    ids: tuple[str, ...] = ()
    site: str | None = None
    camera: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A face to delete, and whether that lies beyond the end of the rule's tombstone.

    It is an object of that key, unless it lies in a shard.
    """

    key: str
    id: str
    camera: str
    ahead: bool
    shard: Listed | None = None


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased.

    Attributes:
        tombstone: the key of the tombstone, which stays; empty where there was nothing to write one of.
        deleted: the keys of all deleted objects; of a face in a shard the key that it would have had, and
            that of the tar.
        swept: how many of them only the second sweep found.
        proof: the line of proof, as it lies in the bucket.
    """

    tombstone: str
    deleted: tuple[str, ...]
    swept: int
    proof: str

    @property
    def count(self) -> int:
        """How many objects were deleted, faces in shards among them."""
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
    """Erase the faces that agree with all that is given; see `Rule` and `erase_rule`.

    Raises:
        EraseError: nothing was given, or more than can be.
        BucketError: the bucket failed; asking again is safe.
    """
    rule = Rule(ids=tuple(ids), site=site, camera=camera, start=start, end=end)
    return await erase_rule(bucket, rule, longest_put=longest_put, watch=watch)


async def erase_rule(
    bucket: Bucket,
    rule: Rule,
    *,
    longest_put: float = LONGEST_PUT_S,
    watch: Watch = unwatched,
    sign: proofs.Sign | None = None,
) -> Erased:
    """Erase the faces that agree with a rule.

    Without ids the rule ends now at the latest: what a camera takes tomorrow is stored again. What had
    arrived by now goes all the same where its clock ran ahead, and stays away by its id.

    Args:
        bucket: where.
        rule: which faces.
        longest_put: seconds that a PUT may take which began before the tombstone was seen.
        watch: is told how far it is.
        sign: signs the proof.

    Raises:
        EraseError: nothing was given, or more than can be.
        BucketError: the bucket failed; asking again is safe.
    """
    asked, tombstone = _tombstones(rule)
    key = await bury(bucket, tombstone)
    log.info("%s is written; deleting", key)
    work = _Erasure(bucket, tombstone, asked, watch)
    first = await work.sweep()
    await wait_for_puts(longest_put + AGE_S if longest_put else 0, watch)
    second = await work.sweep()
    said = tombstone.model_dump(mode="json", exclude_none=True, exclude={"v", "made", "ids"})
    asked_for = proofs.asked(ids=tombstone.ids, **said)
    return await proved(bucket, asked_for, [key, *work.more], (first, second), sign=sign)


async def survey(bucket: Bucket, rule: Rule, *, watch: Watch = unwatched) -> Survey:
    """Count what an erasure would delete; nothing is written.

    Raises:
        EraseError: nothing was given, or more than can be.
        BucketError: the bucket cannot be read.
    """
    asked, tombstone = _tombstones(rule)
    work = _Erasure(bucket, tombstone, asked, watch)
    found = [one async for one in work.covered()]
    tars = {one.shard.shard.tar for one in found if one.shard}
    return counted([(one.key, one.camera) for one in found], tars)


async def proved(
    bucket: Bucket,
    asked: Mapping[str, object],
    tombstones: Sequence[str],
    sweeps: tuple[Sequence[str], Sequence[str]],
    *,
    sign: proofs.Sign | None = None,
) -> Erased:
    """Write the proof of two sweeps, and return what was erased."""
    first, second = sweeps
    deleted = tuple(sorted({*first, *second}))
    swept = len({*second} - {*first})
    proof = await proofs.write(
        bucket, asked=asked, tombstones=tombstones, deleted=deleted, swept=swept, sign=sign
    )
    return Erased(tombstones[0] if tombstones else "", deleted, swept, proof)


async def delete_all(bucket: Bucket, gone: Sequence[str], *, watch: Watch = unwatched) -> None:
    """Delete objects, some at a time.

    Raises:
        BucketError: the bucket failed; asking again is safe.
    """
    for at in range(0, len(gone), _AT_ONCE):
        watch("erasing", at, len(gone))
        await asyncio.gather(*(bucket.delete(key) for key in gone[at : at + _AT_ONCE]))


async def wait_for_puts(seconds: float, watch: Watch) -> None:
    """Wait until no PUT that began before can still be under way."""
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        watch("waiting for PUTs under way, s", passed, seconds)
        await asyncio.sleep(min(1.0, seconds - passed))


def _tombstones(rule: Rule) -> tuple[Tombstone, Tombstone]:
    """Return a rule as it was asked, and as it is written down: without ids it ends now at the latest."""
    if rule == Rule():
        raise EraseError("say what to erase: ids, a site, a camera, or a time range")
    if len(rule.ids) > MAX_IDS:
        raise EraseError(f"{len(rule.ids)} ids are too many at once: {MAX_IDS} at most")
    try:
        asked = Tombstone(
            made=now(), ids=rule.ids, site=rule.site, camera=rule.camera, start=rule.start, end=rule.end
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise EraseError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    ends = min(asked.end or asked.made, asked.made)
    return asked, asked if asked.ids else asked.model_copy(update={"end": ends})


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
        self._shards = Sweep(bucket, watch=watch)

    async def sweep(self) -> list[str]:
        """Delete all that is covered; return the keys."""
        found: list[_Found] = []
        async for one in self.covered():
            found.append(one)
            self._watch("looking", len(found))
        await self._bury_ahead([one.id for one in found if one.ahead])
        names = [one.key for one in found if one.shard is None]
        await delete_all(self._bucket, names, watch=self._watch)
        return names + await self._shards.obey({one.shard for one in found if one.shard})

    async def _bury_ahead(self, ids: list[str]) -> None:
        fresh = sorted(set(ids) - self._ahead)
        for at in range(0, len(fresh), MAX_IDS):
            batch = tuple(fresh[at : at + MAX_IDS])
            self.more.append(await bury(self._bucket, Tombstone(made=now(), ids=batch)))
        if fresh:
            self._ahead.update(fresh)
            self._shards.look_anew()

    async def covered(self) -> AsyncIterator[_Found]:
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
        async for shard, found in self._shards.find(lambda d: first <= d <= last, self._judge_row):
            for one in found:
                yield replace(one, shard=shard)
        async for note in quarantine.notes(self._bucket):
            if note.face and (one := self._judge(note.face, note.arrived, note.key)):
                for key in note.keys:
                    yield replace(one, key=key)

    def _judge_row(self, row: Row) -> _Found | None:
        one = self._judge(row, row.arrived, "")
        return replace(one, key=row.key) if one else None

    def _judge(self, face: keys.Facts | quarantine.Owner | Row, arrived: datetime, key: str) -> _Found | None:
        """Return this face if it is to go."""
        if self._ids and face.id not in self._ids:
            return None
        where = (face.site, face.camera, face.time)
        found = _Found(key, face.id, f"{face.site}/{face.camera}", ahead=False)
        if self._tombstone.rules(*where):
            return found
        meant = arrived <= self._asked.made and self._asked.rules(*where)
        return replace(found, ahead=True) if meant or face.id in self._ahead else None
