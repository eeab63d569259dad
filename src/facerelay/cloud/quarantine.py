"""Quarantine: what the store cannot read, kept as it came for a short while, within a budget."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from facerelay.cloud import foreign, tombstones
from facerelay.cloud.contract import Bucket, BucketError, Entry, MissingError
from facerelay.cloud.keys import slug_of
from facerelay.face import Face, FaceId
from facerelay.seldom import Seldom
from facerelay.topics import shown

log = logging.getLogger(__name__)

ROOT: Final = "quarantine"
_REMEMBERED: Final = 4096
_MAX_NOTE: Final = 8192
_ALONE: Final = timedelta(hours=1)
_BLOCK: Final = 4096
"""What the smallest object counts for: a disk takes as much, and small ones would be very many."""


class Owner(BaseModel):
    """Which face it was, where that could be read all the same."""

    id: FaceId
    site: str
    camera: str
    time: AwareDatetime


class Note(BaseModel):
    """What lies beside a message in quarantine, as JSON."""

    model_config = ConfigDict(frozen=True)

    key: Annotated[str, Field(exclude=True)] = ""
    topic: str
    reason: str
    arrived: AwareDatetime
    size: int
    sha256: str
    face: Owner | None = None

    @property
    def keys(self) -> tuple[str, str]:
        """The keys of the note and of its message."""
        return self.key, f"{self.key.removesuffix('.json')}.bin"


class Quarantine:
    """Messages under `quarantine/`, with a note beside each.

    Args:
        bucket: where.
        max_bytes: of all that is kept; what comes past it is counted by the caller, and not kept.
        keep: how long.
    """

    def __init__(self, bucket: Bucket, *, max_bytes: int, keep: timedelta) -> None:
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._keep = keep
        self._used: int | None = None
        self._counting = asyncio.Lock()
        self._recent: OrderedDict[bytes, None] = OrderedDict()
        self._seldom = Seldom(log)

    async def put(self, topic: str, payload: bytes, reason: str, face: Face | None = None) -> bool:
        """Keep a message; return False where it already is, was erased, or where the budget is spent.

        Raises:
            BucketError: the bucket failed, in a way that may pass.
        """
        sha256 = hashlib.sha256(payload).hexdigest()
        mark = _mark(topic, sha256)
        if mark not in self._recent and face is None and await foreign.is_erased(self._bucket, sha256):
            return False
        used = await self._counted()
        if mark in self._recent:  # another one of it may have come meanwhile
            return False
        note = _note(topic, payload, reason, sha256, face)
        text = note.model_dump_json(exclude_none=True).encode()
        size = _space(len(payload)) + _space(len(text))
        if used + size > self._max_bytes:
            form = "%s: not kept, the quarantine is full: raise store.quarantine_bytes"
            self._seldom.say(logging.WARNING, "full", form, shown(topic))
            return False
        self._used = used + size
        self._recent[mark] = None
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        try:
            await self._write(f"{_stem(note)}", payload, text)
        except BucketError as error:
            if self._used is not None:  # else it is counted anew
                self._used -= size
            self._recent.pop(mark, None)
            if error.passing:
                raise
            self._seldom.say(logging.ERROR, "bucket", "%s: not kept in quarantine: %s", shown(topic), error)
            return False
        return True

    def recount(self) -> None:
        """Count anew what is used when something comes: others may have put, and swept."""
        self._used = None

    async def sweep(self, now: Callable[[], datetime] = tombstones.now) -> int:
        """Delete what is too old, count anew what is used, and return how many objects went.

        A message that lost its note, by the end of a store between the two, goes after an hour: nobody could
        find it by its face.
        """
        at = now()
        old: list[str] = []
        kept: dict[str, Entry] = {}
        async for entry in self._bucket.list(ROOT):
            if entry.modified < at - self._keep:
                old.append(entry.key)
            else:
                kept[entry.key] = entry
        for key, entry in list(kept.items()):
            alone = key.endswith(".bin") and f"{key.removesuffix('.bin')}.json" not in kept
            if alone and entry.modified < at - _ALONE:
                old.append(key)
                del kept[key]
        for key in old:
            await self._bucket.delete(key)
        self._used = sum(_space(entry.size) for entry in kept.values())
        return len(old)

    async def _write(self, stem: str, payload: bytes, note: bytes) -> None:
        await self._bucket.put_new(f"{stem}.bin", payload)
        await self._bucket.put(f"{stem}.json", note)

    async def _counted(self) -> int:
        """Return what is used; it is counted once, whoever else asks meanwhile."""
        async with self._counting:
            if self._used is None:
                self._used = await self._usage()
            return self._used

    async def _usage(self) -> int:
        return sum([_space(entry.size) async for entry in self._bucket.list(ROOT)])


def _space(size: int) -> int:
    return max(size, _BLOCK)


def _mark(topic: str, sha256: str) -> bytes:
    """Return what is remembered of a message: of one length, however long its topic."""
    return hashlib.sha256(f"{sha256} {topic}".encode("utf-8", "surrogatepass")).digest()


def _note(topic: str, payload: bytes, reason: str, sha256: str, face: Face | None) -> Note:
    owner = Owner(id=face.id, site=face.site, camera=face.camera, time=face.time) if face else None
    return Note(
        topic=topic[:1000],
        reason=reason,
        arrived=datetime.now(UTC),
        size=len(payload),
        sha256=sha256,
        face=owner,
    )


def _stem(note: Note) -> str:
    at = note.arrived
    name = f"{at:%H%M%S.%f}-{note.sha256[:8]}-{slug_of(note.topic)}"
    return f"{ROOT}/date={at:%Y-%m-%d}/{name}"


async def notes(bucket: Bucket) -> AsyncIterator[Note]:
    """Yield the notes of all that lies in quarantine; one that is none is passed over.

    Raises:
        BucketError: the bucket cannot be read.
    """
    seldom = Seldom(log)
    async for entry in bucket.list(ROOT):
        if not entry.key.endswith(".json"):
            continue
        try:
            note = Note.model_validate_json(await bucket.get(entry.key, max_bytes=_MAX_NOTE))
        except MissingError:
            continue  # deleted since it was listed
        except (ValidationError, BucketError) as error:
            if isinstance(error, BucketError) and error.passing:
                raise
            seldom.say(logging.WARNING, "note", "%s is not a note of quarantine: passed over", entry.key)
        else:
            yield note.model_copy(update={"key": entry.key})
