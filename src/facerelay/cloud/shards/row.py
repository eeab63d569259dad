"""A face in a shard, as a line of the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from facerelay.face import FACE_ID, SLUG, Face, Frozen, key_of

if TYPE_CHECKING:
    from facerelay.cloud.tombstones import Tombstones

FORMS: Final = {
    "id": re.compile(FACE_ID, re.ASCII),
    "site": re.compile(SLUG, re.ASCII),
    "camera": re.compile(SLUG, re.ASCII),
    "clock": re.compile(r"synchronised|unsynchronised|unknown"),
    "outbox": re.compile(r"[0-9a-f]{8,64}", re.ASCII),
    "run": re.compile(r"[0-9a-f]{8,64}", re.ASCII),
    "sha256": re.compile(r"[0-9a-f]{64}", re.ASCII),
    "extension": re.compile(r"jpg|png|webp"),
}
"""What the texts of a line look like."""

_MOST: Final = 2**62


class RowError(ValueError):
    """A line of a catalogue that is none of ours; the message names what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A face, and where its bytes lie: `length` bytes of the shard's tar, from `offset` on.

    Attributes:
        arrived: when the store had it, in UTC.
        score: the detector's, 0 to 1; None of a sealed face, as `quality`.
        others: as in `Face` and `Frozen`.
    """

    id: str
    site: str
    camera: str
    time: datetime
    arrived: datetime
    clock: str
    outbox: str
    run: str
    seq: int
    score: float | None
    quality: float | None
    sealed: bool
    sha256: str
    extension: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        for name, form in FORMS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not form.fullmatch(value):
                raise RowError(f"{name} is not one that facerelay writes")
        for name in ("seq", "offset", "length"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value <= _MOST:
                raise RowError(f"{name} is not a number that can be")
        for name in ("time", "arrived"):
            value = getattr(self, name)
            if not isinstance(value, datetime) or value.tzinfo is None:
                raise RowError(f"{name} is not a time with its zone")

    @classmethod
    def of(cls, frozen: Frozen, *, arrived: datetime, offset: int) -> Row:
        """Return the line of a face that lies at an offset."""
        face = frozen.face
        return cls(
            id=face.id, site=face.site, camera=face.camera, time=face.time.astimezone(UTC), arrived=arrived,
            clock=face.clock, outbox=face.outbox, run=face.run, seq=face.seq,
            score=None if face.sealed else face.score, quality=None if face.sealed else face.quality,
            sealed=face.sealed, sha256=frozen.sha256, extension=frozen.extension, offset=offset,
            length=len(frozen.data),
        )  # fmt: skip

    def erased_by(self, tombstones: Tombstones) -> bool:
        """Whether the face was erased, by the tombstones of the last look."""
        return tombstones.covered(self.id, self.site, self.camera, self.time)

    @property
    def key(self) -> str:
        """The key that this face has in a bucket of objects: its name, whatever the layout."""
        face = Face(
            id=self.id, outbox=self.outbox, run=self.run, seq=self.seq, site=self.site, camera=self.camera,
            time=self.time, box=(0, 0, 0, 0), frame=(0, 0), score=0, quality=0,
        )  # fmt: skip
        return key_of(face, self.sha256, self.extension)
