"""A tar made of another one: some of its faces, their bytes as they were."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from facerelay.cloud.shards.names import member
from facerelay.cloud.shards.pack import END, header
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shards.unpack import Member, TarError, members


@dataclass(frozen=True, slots=True)
class Carried:
    """Faces in a tar of their own.

    Attributes:
        tar: its bytes.
        rows: the lines of its catalogue.
        unsound: how many faces have other bytes than their line says; they are in it as they were.
        astray: how many lines led to no face of theirs; they are not.
    """

    tar: bytes
    rows: Sequence[Row]
    unsound: int
    astray: int


def carry(tar: bytes, rows: Iterable[Row]) -> Carried:
    """Make a tar of some of the faces of another.

    Args:
        tar: the other's bytes.
        rows: the lines of those faces in its catalogue.
    """
    there = _members(tar)
    view = memoryview(tar)
    pieces: list[bytes | memoryview] = []
    kept: dict[str, Row] = {}
    unsound = astray = at = 0
    for row in rows:
        name = member(row.id, row.sha256, row.extension)
        own = there.get(name)
        if name in kept:
            continue
        data = view[row.offset : row.offset + row.length]
        if len(data) != row.length or hashlib.sha256(data).hexdigest() != row.sha256:
            if own is None or (own.offset, own.length) != (row.offset, row.length):
                astray += 1
                continue
            unsound += 1
        begin = at
        for piece in (*_picture(view, row, name), *_facts(view, row, there)):
            pieces.append(piece)
            at += len(piece)
        kept[name] = replace(row, offset=begin + HEADER)
    return Carried(b"".join([*pieces, END]), list(kept.values()), unsound, astray)


HEADER: Final = len(header("x", 0, 0))


def _members(tar: bytes) -> dict[str, Member]:
    """Return the members by name, as far as the tar is one."""
    found: dict[str, Member] = {}
    with suppress(TarError):
        for one in members(tar):
            found.setdefault(one.name, one)
    return found


def _picture(view: memoryview, row: Row, name: str) -> tuple[bytes | memoryview, ...]:
    """Return the pieces of a picture's member; its header is written anew, as it was."""
    data = view[row.offset : row.offset + row.length]
    return header(name, row.length, _mtime(row)), data, _padding(row.length)


def _facts(view: memoryview, row: Row, there: dict[str, Member]) -> tuple[bytes | memoryview, ...]:
    """Return the pieces of the JSON beside a picture; of one that is gone, what its line says."""
    name = member(row.id, row.sha256, "json")
    if own := there.get(name):
        return (view[own.blocks],)
    said = {
        "id": row.id, "site": row.site, "camera": row.camera, "time": row.time.isoformat(),
        "outbox": row.outbox, "run": row.run, "seq": row.seq, "clock": row.clock, "key": row.key,
    }  # fmt: skip
    data = json.dumps(said, separators=(",", ":")).encode()
    return header(name, len(data), _mtime(row)), data, _padding(len(data))


def _mtime(row: Row) -> int:
    return int(row.time.timestamp())


def _padding(length: int) -> bytes:
    return bytes(-length % HEADER)
