"""The names of shards, of their catalogues, and of the members of a tar."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from facerelay.face import FACE_ID, SLUG

ROOT: Final = "shards"
CATALOGUE: Final = "catalogue"

TAR: Final = "application/x-tar"
PARQUET: Final = "application/vnd.apache.parquet"
"""Media types of the two."""

MOST_CATALOGUE_BYTES: Final = 32_000_000
"""Of one catalogue; a shard of 256 MB of the smallest faces has less."""

_DATE: Final = r"\d{4}-\d\d-\d\d"
_STEM: Final = rf"(?P<closed>\d{{8}}T\d{{6}}Z)-(?P<store>{SLUG})-(?P<nonce>[0-9a-f]{{8}})"
_SHARD: Final = re.compile(rf"{ROOT}/date=(?P<date>{_DATE})/{_STEM}\.tar", re.ASCII)
_CATALOGUE: Final = re.compile(rf"{CATALOGUE}/date=(?P<date>{_DATE})/{_STEM}\.parquet", re.ASCII)
_CLOSED: Final = "%Y%m%dT%H%M%SZ"

MEMBER: Final = re.compile(
    rf"(?P<id>{FACE_ID})-(?P<hash8>[0-9a-f]{{8}})\.(?P<extension>jpg|png|webp|json)", re.ASCII
)


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """A shard, by its name.

    Attributes:
        date: of its faces, as YYYY-MM-DD in UTC.
        closed: when it was closed, to the second; faces in it had arrived before.
        store: whose it is.
        nonce: tells it from others.
    """

    date: str
    closed: datetime
    store: str
    nonce: str

    @classmethod
    def new(cls, date: str, store: str, closed: datetime) -> Self:
        """Name a shard that is closed now, or one that is written anew and was closed then."""
        return cls(date, closed.astimezone(UTC).replace(microsecond=0), store, secrets.token_hex(4))

    @property
    def tar(self) -> str:
        """The key of its tar."""
        return f"{ROOT}/date={self.date}/{self._stem}.tar"

    @property
    def catalogue(self) -> str:
        """The key of its catalogue."""
        return f"{CATALOGUE}/date={self.date}/{self._stem}.parquet"

    @property
    def _stem(self) -> str:
        return f"{self.closed.strftime(_CLOSED)}-{self.store}-{self.nonce}"


def parse(key: str) -> Shard | None:
    """Return the shard that a tar's or a catalogue's key names; None of any other key."""
    found = _SHARD.fullmatch(key) or _CATALOGUE.fullmatch(key)
    if found is None:
        return None
    try:
        closed = datetime.strptime(found["closed"], _CLOSED).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Shard(found["date"], closed, found["store"], found["nonce"])


def member(face_id: str, sha256: str, extension: str) -> str:
    """Return the name of a member of the tar: no dot but the last, where WebDataset's samples are cut."""
    return f"{face_id}-{sha256[:8]}.{extension}"
