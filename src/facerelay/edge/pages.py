"""Rows read off the pages of a SQLite file, whatever state the rest of it is in.

Each page of a table's leaves stands for itself: what its neighbours, the tree above it and the file's header
have suffered does not matter. The write-ahead log's pages are read as well, the newest first. Nothing that is
found here is to be trusted further than its reader can check it. Format: sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from facerelay.edge.schema import PAGE

_WAL_HEADER: Final = 32
_FRAME: Final = 24 + PAGE
_HEADER: Final = 100
_TABLE_LEAF, _INDEX_LEAF, _INDEX_INNER = 0x0D, 0x0A, 0x02
_LOCAL: Final = {_TABLE_LEAF: PAGE - 35, _INDEX_LEAF: 1002, _INDEX_INNER: 1002}
_LEAST_LOCAL: Final = (PAGE - 12) * 32 // 255 - 23
_MOST: Final = 64_000_000
_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_FLOAT: Final = 7
_CONSTANTS: Final = {0: None, 8: 0, 9: 1}
_BLOB: Final = 12

Value = int | float | str | bytes | None


class Row(NamedTuple):
    """What a cell holds: `number` is the row's own in a table, None in an index."""

    number: int | None
    values: tuple[Value, ...]


class Pages:
    """The pages of a file and of its write-ahead log, read one by one.

    Args:
        path: the file; its log is looked for beside it.
    """

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        self._wal = _opened(path.with_name(path.name + "-wal"))
        self._count = (os.fstat(self._file).st_size + PAGE - 1) // PAGE if self._file is not None else 0
        self._frames = list(self._find_frames())
        self._newest = dict(self._frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._file, self._wal):
            if fd is not None:
                os.close(fd)

    @property
    def size(self) -> int:
        """Bytes of the file and its log."""
        return (self._count + len(self._frames)) * PAGE

    def rows(self, *, longest: int = _MOST) -> Iterator[Row]:
        """Yield the row of every cell that can be read; one that was written twice comes newest first.

        Args:
            longest: leaves out rows of more bytes.
        """
        for number, at in reversed(self._frames):
            yield from self._cells(_read(self._wal, at), _HEADER if number == 1 else 0, longest)
        for number in range(1, self._count + 1):
            page = _read(self._file, (number - 1) * PAGE)
            yield from self._cells(page, _HEADER if number == 1 else 0, longest)

    def _find_frames(self) -> Iterator[tuple[int, int]]:
        """Yield page numbers and places of the log's committed pages; a damaged one hides none behind it."""
        size = os.fstat(self._wal).st_size if self._wal is not None else 0
        salts = [_read(self._wal, at + 8, 8) for at in range(_WAL_HEADER, size - _FRAME + 1, _FRAME)]
        salt = _read(self._wal, 16, 8)
        if salt not in salts[:1]:  # the log's header or its first page is damaged
            salt = salt if salt in salts else b"".join(salts[:1])
        waiting: list[tuple[int, int]] = []
        for at in range(_WAL_HEADER, size - _FRAME + 1, _FRAME):
            head = _read(self._wal, at, 24)
            if len(head) < 24 or head[8:16] != salt:  # noqa: PLR2004 - a frame's header
                continue
            number, commit = struct.unpack_from(">II", head)
            waiting.append((number, at + 24))
            if commit:
                yield from waiting
                waiting.clear()

    def _cells(self, page: bytes, start: int, longest: int) -> Iterator[Row]:
        if len(page) < PAGE or page[start] not in _LOCAL:
            return
        kind = page[start]
        (count,) = struct.unpack_from(">H", page, start + 3)
        first = start + (12 if kind == _INDEX_INNER else 8)
        for at in range(first, min(first + 2 * count, PAGE - 1), 2):
            with suppress(IndexError, ValueError, struct.error):
                yield self._cell(page, kind, int.from_bytes(page[at : at + 2]), longest)

    def _cell(self, page: bytes, kind: int, at: int, longest: int) -> Row:
        size, at = _varint(page, at + (4 if kind == _INDEX_INNER else 0))
        number = None
        if kind == _TABLE_LEAF:
            number, at = _varint(page, at)
        if size <= _LOCAL[kind]:
            payload = page[at : at + size]
        elif kind == _TABLE_LEAF and size <= min(longest, self.size):
            payload = self._long(page, at, size)
        else:
            raise ValueError("longer than any row of ours")
        if len(payload) != size:
            raise ValueError("cut off")
        return Row(number, tuple(_values(payload)))

    def _long(self, page: bytes, at: int, size: int) -> bytes:
        """Return a payload that goes on in a chain of further pages."""
        local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE - 4)
        local = local if local <= _LOCAL[_TABLE_LEAF] else _LEAST_LOCAL
        parts, left = [page[at : at + local]], size - local
        following = int.from_bytes(page[at + local : at + local + 4])
        while left > 0:
            further = self._page(following)
            if len(further) < PAGE:
                raise ValueError("cut off")
            parts.append(further[4 : 4 + left])
            left -= PAGE - 4
            following = int.from_bytes(further[:4])
        return b"".join(parts)

    def _page(self, number: int) -> bytes:
        if number in self._newest:
            return _read(self._wal, self._newest[number])
        return _read(self._file, (number - 1) * PAGE) if 1 <= number <= self._count else b""


def log_is_whole(path: Path) -> bool:
    """Whether the write-ahead log beside a file holds no commit that SQLite would pass over as damaged.

    SQLite ends at the first page whose checksum is wrong: what was committed behind it would be lost
    without a word. Logs of more than 64 MB are not looked at.
    """
    fd = _opened(path.with_name(path.name + "-wal"))
    if fd is None:
        return True
    try:
        size = os.fstat(fd).st_size
        return not _WAL_HEADER < size < _MOST or _whole(os.pread(fd, size, 0))
    finally:
        os.close(fd)


def _whole(log: bytes) -> bool:
    order = ">" if log[3] & 1 else "<"
    sums = _checksum(log[:24], order, (0, 0))
    sound = sums == struct.unpack_from(">II", log, 24)
    salt = log[16:24] if sound else log[_WAL_HEADER + 8 : _WAL_HEADER + 16]
    for at in range(_WAL_HEADER, len(log) - _FRAME + 1, _FRAME):
        commit, salts, *wanted = struct.unpack_from(">I8sII", log, at + 4)
        if salts != salt:
            sound = False  # or it is of an earlier round, and so are those behind it
            continue
        if sound:
            sums = _checksum(log[at : at + 8] + log[at + 24 : at + _FRAME], order, sums)
            sound = sums == tuple(wanted)
        if commit and not sound:
            return False
    return True


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    for first, second in struct.iter_unpack(f"{order}II", data):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _read(fd: int | None, at: int, size: int = PAGE) -> bytes:
    """Return what is there; nothing where the disk does not give it."""
    try:
        return os.pread(fd, size, at) if fd is not None else b""
    except OSError:
        return b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the last one has no flag
            return value, at + place + 1
    value = value << 8 | data[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _values(payload: bytes) -> Iterator[Value]:
    """Yield a record's columns.

    Raises:
        ValueError: it is no record.
        IndexError: as above.
    """
    body, at = _varint(payload, 0)
    end = body
    while at < end:
        kind, at = _varint(payload, at)
        if kind in _CONSTANTS:
            yield _CONSTANTS[kind]
            continue
        size = _INTEGERS.get(kind) or (8 if kind == _FLOAT else (kind - _BLOB) // 2)
        if size < 0 or body + size > len(payload):
            raise ValueError("no record")
        raw, body = payload[body : body + size], body + size
        if kind in _INTEGERS:
            yield int.from_bytes(raw, signed=True)
        elif kind == _FLOAT:
            yield struct.unpack(">d", raw)[0]
        else:
            yield raw.decode() if kind % 2 else raw
