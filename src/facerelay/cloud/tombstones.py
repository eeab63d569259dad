"""Tombstones: what was erased, and must not come back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)

from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.face import FaceId, Slug, new_id

log = logging.getLogger(__name__)

ROOT: Final = "tombstones"
AGE_S: Final = 5.0
"""A store's knowledge of the tombstones is no older than this when a PUT begins."""

MAX_IDS: Final = 10_000
_MAX_BYTES: Final = 1_000_000
_AT_ONCE: Final = 32


class Tombstone(BaseModel):
    """What was erased: faces of these ids, of this site and camera, taken from `start` until `end`.

    A face is covered when it agrees with all that is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    v: Literal[1] = 1
    made: AwareDatetime
    ids: Annotated[tuple[FaceId, ...], Field(max_length=MAX_IDS), FailFast()] = ()
    site: Slug | None = None
    camera: Slug | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    @model_validator(mode="after")
    def _covers_something(self) -> Self:
        """Refuse one that says nothing: it would cover every face there is."""
        if not (self.ids or self.site or self.camera or self.start or self.end):
            raise ValueError("it names no ids, site, camera or time")
        return self

    def covers(self, face_id: str, site: str, camera: str, taken: datetime) -> bool:
        """Whether a face was erased by this."""
        return (not self.ids or face_id in self.ids) and self.rules(site, camera, taken)

    def rules(self, site: str, camera: str, taken: datetime) -> bool:
        """Whether a face agrees with all but the ids."""
        return (
            self.site in {None, site}
            and self.camera in {None, camera}
            and (self.start is None or self.start <= taken)
            and (self.end is None or taken < self.end)
        )


async def bury(bucket: Bucket, tombstone: Tombstone) -> str:
    """Write a tombstone, and return its key."""
    key = f"{ROOT}/{new_id()}.json"
    await bucket.put(key, tombstone.model_dump_json(exclude_none=True).encode())
    return key


class Tombstones:
    """All tombstones of a bucket, read again when they are older than `age_s`.

    Args:
        bucket: where.
        age_s: seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self, bucket: Bucket, *, age_s: float = AGE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bucket = bucket
        self._clock = clock
        self.age_s: Final = age_s
        self._read_at = -float("inf")
        self._lock = asyncio.Lock()
        self._known: set[str] = set()
        self._read: dict[str, Tombstone] = {}
        self._by_id: dict[str, list[Tombstone]] = {}
        self._rules: list[Tombstone] = []

    async def covers(self, face_id: str, site: str, camera: str, taken: datetime) -> bool:
        """Whether a face was erased.

        Raises:
            BucketError: the tombstones cannot be read, so nobody can know.
        """
        await self.refresh()
        return self.covered(face_id, site, camera, taken)

    @property
    def known(self) -> int:
        """How many were read: more than before means that there are new ones."""
        return len(self._known)

    @property
    def read(self) -> list[tuple[str, Tombstone]]:
        """The tombstones of the last look with their keys, in the order of these: that of their writing."""
        return sorted(self._read.items(), key=lambda item: item[0])

    def covered(self, face_id: str, site: str, camera: str, taken: datetime) -> bool:
        """Whether a face was erased, by the tombstones of the last look."""
        if not self._rules and face_id not in self._by_id:
            return False
        found = (*self._rules, *self._by_id.get(face_id, ()))
        return any(one.rules(site, camera, taken) for one in found)

    def comes_before(self, site: str, camera: str, taken: datetime, *, arrived: datetime) -> bool:
        """Whether a face had arrived when a rule was made that ends then, and escapes it by its clock alone.

        Who erases without an end means all that had arrived: such a face too, though it says a later time.
        """
        return any(
            one.end == one.made
            and arrived <= one.made <= taken
            and one.model_copy(update={"end": None}).rules(site, camera, taken)
            for one in self._rules
        )

    async def refresh(self, *, age_s: float | None = None) -> None:
        """Read what is new, unless the last look is younger than `age_s`.

        Raises:
            BucketError: the tombstones cannot be read.
        """
        most = self.age_s if age_s is None else age_s
        if self._clock() - self._read_at > most:
            async with self._lock:
                if self._clock() - self._read_at > most:
                    await self._refresh()

    async def _refresh(self) -> None:
        begin = self._clock()
        fresh = [e.key async for e in self._bucket.list(ROOT) if e.key not in self._known]
        for at in range(0, len(fresh), _AT_ONCE):
            some = (self._take(key) for key in fresh[at : at + _AT_ONCE])
            for fault in await asyncio.gather(*some, return_exceptions=True):
                if fault is not None:
                    raise fault
        self._read_at = begin

    async def _take(self, key: str) -> None:
        """Read one; what is none covers nothing."""
        try:
            data = await self._bucket.get(key, max_bytes=_MAX_BYTES)
            self._read[key] = Tombstone.model_validate_json(data)
            self._add(self._read[key])
        except MissingError:
            return  # removed since it was listed
        except BucketError as error:
            if error.passing:
                raise
            log.error("%s is not a tombstone, and covers nothing: mend or remove it", error)  # noqa: TRY400 - no traceback needed
        except ValidationError as error:
            log.error("%s is not a tombstone (%d faults): mend or remove it", key, error.error_count())  # noqa: TRY400 - no traceback needed
        self._known.add(key)

    def _add(self, tombstone: Tombstone) -> None:
        if not tombstone.ids:
            self._rules.append(tombstone)
        for face_id in tombstone.ids:
            self._by_id.setdefault(face_id, []).append(tombstone)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
