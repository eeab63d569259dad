"""Numbered faces whose bytes follow from seed, number and what the journal says: an audit needs no copy."""

from __future__ import annotations

import functools
import os
import random
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from facerelay import face

SITE: Final = "home"
CAMERA: Final = "door"
SMALLEST: Final = 2_000
LARGEST: Final = 9_000
_EXIF_BYTES: Final = 560
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Offered:
    """A face that was offered to the outbox: its number, and what the outbox and the clock gave to it."""

    number: int
    outbox: str
    run: str
    seq: int
    micros: int
    """When it was taken, by the clock of its process: microseconds since 1970."""


@functools.cache
def _base() -> bytes:
    """Return a small JPEG."""
    return cv2.imencode(".jpg", np.full((64, 48, 3), 127, np.uint8))[1].tobytes()


def _random(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed}:{number}")  # noqa: S311 - to be made again, not to be secret


def id_of(seed: int, offered: Offered) -> str:
    """Return the face's id: a UUIDv7."""
    value = (offered.micros // 1000) << 80 | _random(seed, offered.number).getrandbits(76)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return str(uuid.UUID(int=value))


def freeze(seed: int, offered: Offered) -> face.Frozen:
    """Return the face, 2 to 9 kB: a JPEG with a comment of random bytes."""
    rng = _random(seed, offered.number)
    rng.getrandbits(76)
    base = _base()
    size = rng.randint(SMALLEST, LARGEST) - len(base) - _EXIF_BYTES
    comment = rng.randbytes(max(size, 8))
    encoded = base[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + base[2:]
    known = face.Face(
        id=id_of(seed, offered), outbox=offered.outbox, run=offered.run, seq=offered.seq, site=SITE,
        camera=CAMERA, time=_EPOCH + timedelta(microseconds=offered.micros), box=(0, 0, 48, 64),
        frame=(48, 64), score=0.9, quality=rng.random(), track=offered.number,
    )  # fmt: skip
    return face.freeze(known, encoded)


class Writing:
    """The journal as the feeder writes it: a line is one write, so `kill -9` leaves none half written."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def offered(self, one: Offered) -> None:
        """Before a face is put into the outbox."""
        self._line(f"o {one.number} {one.outbox} {one.run} {one.seq} {one.micros}")

    def kept(self, number: int) -> None:
        """The outbox has promised it."""
        self._line(f"k {number}")

    def turned_away(self, number: int, begin: float, end: float) -> None:
        """The outbox could not take it, and said so: between these monotonic times."""
        self._line(f"t {number} {begin:.3f} {end:.3f}")

    def _line(self, text: str) -> None:
        os.write(self._fd, f"{text}\n".encode())


@dataclass
class Journal:
    """What the feeder did: all that it offered, and the outbox's word on each; the time of a no, too."""

    offered: dict[int, Offered] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    turned_away: dict[int, tuple[float, float]] = field(default_factory=dict)


def read_journal(path: Path) -> Journal:
    """Return what a journal says; an empty one where there is no file yet."""
    found = Journal()
    for kind, number, rest in _lines(path):
        if kind == "o":
            outbox, run, seq, micros = rest
            found.offered[number] = Offered(number, outbox, run, int(seq), int(micros))
        elif kind == "k":
            found.kept.add(number)
        else:
            begin, end = map(float, rest)
            found.turned_away[number] = begin, end
    return found


def after_last(path: Path) -> int:
    """Return the number after the last that a journal has, without keeping what it says."""
    return sum(kind == "o" for kind, _, _ in _lines(path))


def _lines(path: Path) -> Iterator[tuple[str, int, list[str]]]:
    if path.exists():
        with path.open(encoding="ascii") as file:
            for line in file:
                kind, number, *rest = line.split()
                yield kind, int(number), rest
