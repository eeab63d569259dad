"""A shard's tar that comes back from the bucket: looked at before it is believed."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from facerelay.cloud.shards.names import MEMBER, member
from facerelay.cloud.shards.row import Row, RowError
from facerelay.face import FaceError, Limits, parse

MOST_BYTES: Final = 330_000_000
"""Of one tar: the largest shard, and the largest face that closes it."""

_BLOCK: Final = tarfile.BLOCKSIZE
_ANY_FACE: Final = Limits(bytes=60_000_000, pixels=500_000_000)
"""As much as settings can allow: what a store took is not judged anew."""


class TarError(ValueError):
    """Bytes that are no shard of ours."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar: its name, and where its bytes lie."""

    name: str
    offset: int
    length: int

    @property
    def blocks(self) -> slice:
        """Where all of it lies, header and padding included."""
        return slice(self.offset - _BLOCK, self.offset + self.length + -self.length % _BLOCK)


def members(tar: bytes) -> Iterator[Member]:
    """Yield the members of a tar, in their order.

    Raises:
        TarError: there is something in it that facerelay does not write, or it is cut off.
    """
    at = 0
    while at + _BLOCK <= len(tar):
        head = tar[at : at + _BLOCK]
        if not any(head):
            return
        found = member_at(head, at)
        if found.blocks.stop > len(tar):
            raise TarError(f"the member at byte {at} is cut off")
        yield found
        at = found.blocks.stop
    raise TarError("it is cut off")


def member_at(head: bytes, at: int) -> Member:
    """Return the member whose header lies at a place of a tar.

    Raises:
        TarError: it is none that facerelay writes.
    """
    try:
        info = tarfile.TarInfo.frombuf(head, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise TarError(f"no header of a member at byte {at}") from error
    if not info.isreg() or not MEMBER.fullmatch(info.name):
        raise TarError(f"the member at byte {at} is no face's")
    if info.size < 0:
        raise TarError(f"the member at byte {at} is cut off")
    return Member(info.name, at + _BLOCK, info.size)


def rows(tar: bytes, *, arrived: datetime) -> list[Row]:
    """Return the lines that a catalogue of a tar would have, by the pictures themselves.

    A member that is no sound face, or has another's name, has none.

    Args:
        tar: its bytes.
        arrived: what is taken for the time when its faces had arrived.

    Raises:
        TarError: it is no shard of ours.
    """
    found: dict[str, Row] = {}
    for one in members(tar):
        if one.name.endswith(".json"):
            continue
        try:
            frozen = parse(tar[one.offset : one.offset + one.length], _ANY_FACE)
            row = Row.of(frozen, arrived=arrived, offset=one.offset)
        except (FaceError, RowError):
            continue
        if one.name == member(row.id, row.sha256, row.extension):
            found.setdefault(one.name, row)
    return list(found.values())
