"""An audit: which of the wanted faces lie in the bucket, by the bucket's own bytes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from facerelay import face as faces
from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.cloud.scratch import Missing, Named, Scratch, Wanted
from facerelay.cloud.shards.scan import Content, contents
from facerelay.cloud.tombstones import Tombstones
from facerelay.face import FaceError, Limits
from facerelay.span import Span
from facerelay.steps import Watch, unwatched

__all__ = ["Audit", "Lost", "Named", "Stray", "Wanted", "audit"]

_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 64_000_000
_ANY: Final = Limits(bytes=60_000_000, pixels=500_000_000)
_TICK: Final = timedelta(microseconds=1)
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOURS: Final = 24

STRAY: Final = "stray"
"""What the books say of a face that they ought to know, and don't."""

Ask = Callable[[faces.Face], str]
"""Answers what the books say of a face that is not wanted: a word to count it by, or `STRAY`."""


class Lost(NamedTuple):
    """A wanted face that is not there, and why."""

    id: str
    key: str
    why: Literal["absent", "other-bytes", "unreadable"]


class Stray(NamedTuple):
    """A face in the bucket that the books ought to know, and don't."""

    id: str
    key: str
    run: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        checked: objects whose bytes were read.
        wanted: faces that must be there.
        found: wanted faces whose bytes are there: hash and id agree.
        lost: wanted faces of which no object has those bytes, unless they were erased.
        unequal: ids of wanted faces that an object names in its EXIF, with other bytes.
        twice: ids that more than one object has in its EXIF.
        erased: wanted faces that are not there, and that a tombstone covers.
        misplaced: keys that don't follow from the bytes that lie there.
        strays: faces that the books ought to know, and don't.
        others: how many faces were not wanted otherwise, by what the books say of them.
        unreadable: keys of objects that are no faces, and of faces that a catalogue names in vain.
        again: ids that lie in a shard and once more, with the same bytes: readers have them once.
        orphans: tars, and their members, that no catalogue names: readers don't have them.
    """

    checked: int
    wanted: int
    found: int
    lost: Named[Lost]
    unequal: Named[str]
    twice: Named[str]
    erased: int
    misplaced: Named[str]
    strays: Named[Stray]
    others: Mapping[str, int]
    unreadable: Named[str]
    again: Named[str]
    orphans: Named[str]

    @property
    def clean(self) -> bool:
        """Whether every wanted face is there, once, with its own bytes."""
        return not (self.lost.count or self.unequal.count or self.twice.count or self.misplaced.count)


async def audit(
    bucket: Bucket,
    wanted: Iterable[Wanted],
    *,
    spans: Sequence[Span] = (Span(),),
    limits: Limits = _ANY,
    ask: Ask = lambda _: "unknown",
    watch: Watch = unwatched,
) -> Audit:
    """Read the faces of a bucket in some spans, and compare them with what was wanted.

    Only the partitions that a span touches are listed, and the shards of its days. Memory does not grow with
    the faces: what is to be remembered of each lies in a temporary file, some 320 bytes a face. `wanted` is
    taken before the bucket is looked at: what is stored meanwhile is not lost. Faces past their retention
    must not be among them.

    Args:
        bucket: where.
        wanted: what must be there, and lies in the spans by its key.
        spans: what is read; they don't overlap.
        limits: what a picture may be; anything larger is unreadable, and is not read.
        ask: what the books say of a face that is not wanted.
        watch: is told how far it is.

    Raises:
        BucketError: the bucket cannot be read, so nothing can be said.
    """
    with Scratch() as scratch:
        scratch.want(wanted)
        work, total = _Work(scratch, limits, ask), scratch.wanted()
        for span in spans:
            async for batch in _batches(bucket, span, limits.bytes):
                await asyncio.gather(*(work.check(bucket, key) for key in batch))
                watch("reading faces", work.checked, total or None)
        async for one in _in_shards(bucket, spans, limits.bytes):
            work.check_in_shard(one)
            watch("reading faces", work.checked, total or None)
        return await work.result(bucket)


async def _batches(bucket: Bucket, span: Span, longest: int) -> AsyncIterator[list[str]]:
    """Yield the keys of faces in lots that are read at once: bounded in number and in bytes."""
    batch: list[str] = []
    size = 0
    async for prefix in _prefixes(bucket, span):
        async for entry in bucket.list(prefix):
            facts = keys.parse(entry.key)
            if facts is not None and not span.holds(facts.site, facts.camera, facts.time):
                continue
            if len(batch) == _AT_ONCE or (batch and size + min(entry.size, longest) > _BYTES_AT_ONCE):
                yield batch
                batch, size = [], 0
            batch.append(entry.key)
            size += min(entry.size, longest)
    yield batch


async def _prefixes(bucket: Bucket, span: Span) -> AsyncIterator[str]:
    """Yield the partitions that a span touches: whole days where it can be, else hours."""
    if not span.timed:
        parts = [keys.ROOT, *([f"site={span.site}"] if span.site else [])]
        if span.site and span.camera:
            parts.append(f"camera={span.camera}")
        yield "/".join(parts)
        return
    async for date in keys.dates(
        bucket, site=span.site, camera=span.camera, wanted=lambda day: _touches(span, day)
    ):
        hours = _hours(span, date[-10:])
        if len(hours) == _HOURS:
            yield date
        else:
            for hour in hours:
                yield f"{date}/hour={hour:02}"


def _in_shards(bucket: Bucket, spans: Sequence[Span], longest: int) -> AsyncIterator[Content]:
    return contents(
        bucket,
        dates=lambda day: any(_touches(span, day) for span in spans),
        holds=lambda row: any(span.holds(row.site, row.camera, row.time) for span in spans),
        longest=longest,
    )


def _touches(span: Span, day: str) -> bool:
    """Whether a span touches a day."""
    first = keys.day(span.start) if span.start else ""
    last = keys.day(max(span.end, _FIRST) - _TICK) if span.end else "9999-99-99"
    return first <= day <= last


def _hours(span: Span, day: str) -> list[int]:
    """Return the hours of a day that a span touches; none of a day that is not in the calendar."""
    try:
        begin = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    except ValueError:
        return []
    starts = [begin + timedelta(hours=hour) for hour in range(_HOURS)]
    return [
        at.hour
        for at in starts
        if (span.start is None or span.start - at < timedelta(hours=1))
        and (span.end is None or at < span.end)
    ]


class _Work:
    """The state of one audit."""

    def __init__(self, scratch: Scratch, limits: Limits, ask: Ask) -> None:
        self._scratch = scratch
        self._limits = limits
        self._ask = ask
        self._misplaced: Named[str] = Named()
        self._unreadable: Named[str] = Named()
        self._strays: Named[Stray] = Named()
        self._others: Counter[str] = Counter()
        self._orphans: Named[str] = Named()
        self.checked = 0

    async def check(self, bucket: Bucket, key: str) -> None:
        """Read one object's bytes and compare."""
        try:
            data = await bucket.get(key, max_bytes=self._limits.bytes)
        except MissingError:
            return  # deleted since it was listed
        except BucketError as error:
            if error.passing:
                raise
            self._no_face(key)
            return
        self._look(key, data)

    def check_in_shard(self, one: Content) -> None:
        """Compare what lies in a shard, or should."""
        if one.orphan:
            self._orphans.add(one.key)
        elif one.data is None:
            self._no_face(one.key)
        else:
            self._look(one.key, one.data, in_shard=True)

    def _look(self, key: str, data: bytes, *, in_shard: bool = False) -> None:
        self.checked += 1
        try:
            frozen = faces.parse(data, self._limits)
        except FaceError:
            self._no_face(key)
            return
        self._compare(key, frozen, in_shard=in_shard)

    def _no_face(self, key: str) -> None:
        self._unreadable.add(key)
        if facts := keys.parse(key):
            self._scratch.see_unreadable(facts.id, key)

    def _compare(self, key: str, frozen: faces.Frozen, *, in_shard: bool) -> None:
        face = frozen.face
        if key != frozen.key:
            self._misplaced.add(key)
        if self._scratch.see(face.id, frozen.sha256, in_shard=in_shard) is None:
            said = self._ask(face)
            if said == STRAY:
                self._strays.add(Stray(face.id, key, face.run, face.seq))
            else:
                self._others[said] += 1

    async def result(self, bucket: Bucket) -> Audit:
        """Sum up, and ask the tombstones about what is not there."""
        tombstones = Tombstones(bucket)
        lost: Named[Lost] = Named()
        erased = 0
        for one in self._scratch.missing():
            if await _covered(tombstones, one):
                erased += 1
            else:
                lost.add(Lost(one.id, one.key, _why(one)))
        return Audit(
            checked=self.checked,
            wanted=self._scratch.wanted(),
            found=self._scratch.found(),
            lost=lost,
            unequal=self._scratch.unequal(),
            twice=self._scratch.twice(),
            erased=erased,
            misplaced=self._misplaced,
            strays=self._strays,
            others=self._others,
            unreadable=self._unreadable,
            again=self._scratch.again(),
            orphans=self._orphans,
        )


def _why(one: Missing) -> Literal["absent", "other-bytes", "unreadable"]:
    if one.unequal:
        return "other-bytes"
    return "unreadable" if one.unreadable else "absent"


async def _covered(tombstones: Tombstones, wanted: Missing) -> bool:
    facts = keys.parse(wanted.key)
    if facts is None:
        return await tombstones.covers(wanted.id, "", "", datetime.max.replace(tzinfo=UTC))
    return await tombstones.covers(wanted.id, facts.site, facts.camera, facts.time)
