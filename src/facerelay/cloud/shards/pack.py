"""A tar that grows: a picture, and beside it what is known of it as JSON, as WebDataset's readers have it."""

from __future__ import annotations

import json
import tarfile
from datetime import datetime
from typing import Final

from facerelay.cloud.shards.names import member
from facerelay.cloud.shards.row import Row
from facerelay.face import Frozen, describe

_BLOCK: Final = tarfile.BLOCKSIZE
END: Final = bytes(2 * _BLOCK)
"""The end of a tar."""

_MODE: Final = 0o640
_LAST: Final = 8**11 - 1
"""The last second that a header can tell."""


class Pack:
    """The bytes of an open shard, in memory, and the lines of its catalogue.

    Attributes:
        rows: of the faces in it.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self.rows: list[Row] = []

    def __len__(self) -> int:
        """How many bytes it has."""
        return len(self._data)

    def add(self, frozen: Frozen, *, arrived: datetime) -> Row:
        """Add a face, and return its line."""
        facts = json.dumps(describe(frozen.face) | {"key": frozen.key}, separators=(",", ":")).encode()
        at = int(frozen.face.time.timestamp())
        offset = self._append(member(frozen.face.id, frozen.sha256, frozen.extension), frozen.data, at)
        self._append(member(frozen.face.id, frozen.sha256, "json"), facts, at)
        row = Row.of(frozen, arrived=arrived, offset=offset)
        self.rows.append(row)
        return row

    def picture(self, row: Row) -> bytes:
        """Return the bytes of a face in it."""
        return bytes(self._data[row.offset : row.offset + row.length])

    def tar(self) -> bytes:
        """Return the tar, whole."""
        return b"".join((self._data, END))

    def _append(self, name: str, data: bytes, at: int) -> int:
        """Append a member, and return where its bytes begin."""
        self._data += header(name, len(data), at)
        offset = len(self._data)
        self._data += data
        self._data += bytes(-len(data) % _BLOCK)
        return offset


def header(name: str, length: int, at: int) -> bytes:
    """Return the header of a member.

    Args:
        name: the member's.
        length: bytes that follow, and are padded to whole blocks.
        at: the second that the face was taken, by the Unix clock.
    """
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = length, min(max(0, at), _LAST), _MODE
    return info.tobuf(tarfile.USTAR_FORMAT)
