"""An audit: which of the wanted faces lie in the bucket, by the bucket's own bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from facerelay import face as faces
from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.cloud.tombstones import Tombstones
from facerelay.face import FaceError, Limits

_AT_ONCE: Final = 32
_BYTES_AT_ONCE: Final = 64_000_000
_ANY: Final = Limits(bytes=60_000_000, pixels=500_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A face that the edge was told is stored: its id, the hash of its bytes, its key."""

    id: str
    sha256: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        checked: objects whose bytes were read.
        found: wanted faces whose bytes are there: hash and id agree.
        lost: ids of wanted faces of which no object has those bytes, unless they were erased.
        unequal: ids of wanted faces that an object names in its EXIF, with other bytes.
        twice: ids that more than one object has in its EXIF.
        erased: wanted faces that are not there, and that a tombstone covers.
        misplaced: keys that don't follow from the bytes that lie there.
        unknown: faces of ours that nobody asked for.
        unreadable: objects that are no faces.
    """

    checked: int
    found: int
    lost: tuple[str, ...]
    unequal: tuple[str, ...]
    twice: tuple[str, ...]
    erased: int
    misplaced: tuple[str, ...]
    unknown: int
    unreadable: int

    @property
    def clean(self) -> bool:
        """Whether every wanted face is there, once, with its own bytes."""
        return not (self.lost or self.unequal or self.twice or self.misplaced)


async def audit(
    bucket: Bucket, wanted: Iterable[Wanted], *, site: str | None = None, limits: Limits = _ANY
) -> Audit:
    """Read all faces of a bucket, or of one site, and compare them with what was wanted.

    Memory grows with the number of ids, not with the pictures. Take `wanted` before the call: what is
    stored meanwhile is unknown then, not lost. Faces past their retention must not be among them.

    Args:
        bucket: where.
        wanted: what must be there.
        site: its name; all sites without it.
        limits: what a picture may be; anything larger is unreadable, and is not read.

    Raises:
        BucketError: the bucket cannot be read, so nothing can be said.
    """
    work = _Work({one.id: one for one in wanted}, limits)
    async for batch in _batches(bucket, site, limits.bytes):
        await asyncio.gather(*(work.check(bucket, key) for key in batch))
    return await work.result(bucket)


async def _batches(bucket: Bucket, site: str | None, longest: int) -> AsyncIterator[list[str]]:
    """Yield the keys of faces in lots that are read at once: bounded in number and in bytes."""
    batch: list[str] = []
    size = 0
    prefix = f"{keys.ROOT}/site={site}" if site else keys.ROOT
    async for entry in bucket.list(prefix):
        if len(batch) == _AT_ONCE or (batch and size + min(entry.size, longest) > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(entry.key)
        size += min(entry.size, longest)
    yield batch


class _Work:
    """The state of one audit."""

    def __init__(self, wanted: dict[str, Wanted], limits: Limits) -> None:
        self._wanted = wanted
        self._limits = limits
        self._seen: set[str] = set()
        self._sound: set[str] = set()
        self._twice: set[str] = set()
        self._unequal: set[str] = set()
        self._misplaced: list[str] = []
        self._checked = self._unknown = self._unreadable = 0

    async def check(self, bucket: Bucket, key: str) -> None:
        """Read one object's bytes and compare."""
        try:
            data = await bucket.get(key, max_bytes=self._limits.bytes)
        except MissingError:
            return  # deleted since it was listed
        except BucketError as error:
            if error.passing:
                raise
            self._unreadable += 1
            return
        self._checked += 1
        try:
            sealed = faces.unseal(data, self._limits)
        except FaceError:
            self._unreadable += 1
            return
        self._compare(key, sealed)

    def _compare(self, key: str, sealed: faces.Sealed) -> None:
        face_id = sealed.face.id
        if face_id in self._seen:
            self._twice.add(face_id)
        self._seen.add(face_id)
        if key != sealed.key:
            self._misplaced.append(key)
        wanted = self._wanted.get(face_id)
        if wanted is None:
            self._unknown += 1
        elif hashlib.sha256(sealed.data).hexdigest() == wanted.sha256:
            self._sound.add(face_id)
        else:
            self._unequal.add(face_id)

    async def result(self, bucket: Bucket) -> Audit:
        """Sum up, and ask the tombstones about what is not there."""
        tombstones = Tombstones(bucket)
        missing = [one for face_id, one in self._wanted.items() if face_id not in self._sound]
        lost = [one.id for one in missing if not await _covered(tombstones, one)]
        return Audit(
            checked=self._checked,
            found=len(self._sound),
            lost=tuple(lost),
            unequal=tuple(sorted(self._unequal)),
            twice=tuple(sorted(self._twice)),
            erased=len(missing) - len(lost),
            misplaced=tuple(self._misplaced),
            unknown=self._unknown,
            unreadable=self._unreadable,
        )


async def _covered(tombstones: Tombstones, wanted: Wanted) -> bool:
    facts = keys.parse(wanted.key)
    if facts is None:
        return await tombstones.covers(wanted.id, "", "", datetime.max.replace(tzinfo=UTC))
    return await tombstones.covers(wanted.id, facts.site, facts.camera, facts.time)
