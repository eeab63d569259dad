"""Hostile bytes: mutations of what is valid, and bombs; the same for the same seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from facerelay import exif, face, picture

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "v1"
_NUMBERS: Final = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00\x00", b"\xff\xff", b"\x7f\xff", b"\xff\x7f",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00",
)  # fmt: skip
_WORDS: Final = (
    b"faces/", b"../", b"\r\n", b"\x1b[2J", b"\xe2\x80\xae", b"<svg onload=alert(1)>", b"{", b"[", b'"',
    b"1e999",
    b"-1", b"9" * 400, b"null", b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"IHDR", b"IDAT", b"eXIf", b"VP8X",
    b"\x80\x04",
)  # fmt: skip


def faces(count: int = 6) -> list[bytes]:
    """Return valid faces: the golden ones, and small ones of our own making."""
    found = [(GOLDEN / f"face.{ending}").read_bytes() for ending in ("jpg", "png", "webp")]
    rng = np.random.default_rng(1)
    for number in range(count):
        side = 16 + 8 * number
        ending = ("jpg", "png", "webp")[number % 3]
        encoded = cv2.imencode(f".{ending}", rng.integers(0, 255, (side, side, 3), dtype=np.uint8))[
            1
        ].tobytes()
        found.append(face.freeze(known(number), encoded).data)
    return found


def known(number: int) -> face.Face:
    """Return what is known of face `number`."""
    return face.Face(
        id=f"019a5b00-0000-7000-8000-{number:012d}", outbox="a" * 32, run="b" * 8, seq=number + 1,
        site="home",
        camera="door", time=datetime(2026, 11, 21, 10, 11, 12, 131415, tzinfo=UTC), box=(1, 2, 3, 4),
        frame=(1280, 720), score=0.5, quality=0.5, track=number, parts={"sharpness": 0.5},
        clock="synchronised",
    )  # fmt: skip


def plain() -> bytes:
    """Return a small JPEG without EXIF."""
    return cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes()


def bombs() -> list[bytes]:
    """Return pictures that are small, and ask for much: pixels, segments, chunks, EXIF, scans."""
    jpeg = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    scan = jpeg[jpeg.rfind(b"\xff\xda") : -2]
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 16, 6, 0, 0, 0)
    ihdr = struct.pack(">IIBBBBB", 7_000, 7_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    return [
        png + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(bytes(10_000))) + _chunk(b"IEND", b""),
        png + _chunk(b"IHDR", ihdr)
        + _chunk(b"IDAT", zlib.compress(bytes(49_007_000)))
        + _chunk(b"IEND", b""),
        png + _chunk(b"IHDR", ihdr) + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9_000_000))) * 9,
        png + _chunk(b"IHDR", ihdr) * 900 + _chunk(b"IEND", b""),
        png + b"\x00\x00\x00\x00IHDR" * 20,
        jpeg[:-2] + scan * 900 + b"\xff\xd9",
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5_000,
        b"\xff\xd8" + b"\xff" * 60_000,
        picture.with_exif(jpeg, exif_bomb()),
        picture.with_exif(jpeg, looping_exif()),
        b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\x00\x00\x00\x08\x00\x00\x00" + b"\xff" * 6,
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        b"PK\x03\x04" + bytes(60), b"\x1f\x8b\x08" + bytes(60), b"GIF89a" + b"\xff" * 60,
        b"<svg onload=alert(1)>",
    ]  # fmt: skip


def exif_bomb(entries: int = 63) -> bytes:
    """Return an EXIF block whose entries all are the same 60 kB, in a directory that is its own child."""
    fields = [struct.pack("<HHII", 0x1000 + n, exif.ASCII, 60_000, 900) for n in range(entries)]
    fields.append(struct.pack("<HHII", exif.EXIF_IFD, exif.LONG, 1, 8))
    head = b"II*\x00" + struct.pack("<IH", 8, len(fields)) + b"".join(fields) + struct.pack("<I", 8)
    return head.ljust(900, b"\x00") + b"A" * 60_000


def looping_exif() -> bytes:
    """Return an EXIF block whose directories point at one another for ever."""
    entry = struct.pack("<HHII", exif.EXIF_IFD, exif.LONG, 1, 8)
    return b"II*\x00" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)


class Mutator:
    """Makes hostile bytes out of valid ones.

    Args:
        seed: of all chance.
        valid: what is changed.
        special: what comes as it is, now and then.
    """

    def __init__(self, seed: int, valid: Sequence[bytes], special: Sequence[bytes] = ()) -> None:
        self._random = random.Random(seed)  # noqa: S311 - hostile bytes, not secrets
        self._valid = list(valid)
        self._special = list(special)

    def next(self) -> bytes:
        """Return the next."""
        chance = self._random.random()
        if chance < 0.03 and self._special:
            return self._random.choice(self._special)
        if chance < 0.10:
            return self._random.randbytes(self._random.choice((0, 1, 8, 100, 3_000)))
        data = bytearray(self._random.choice(self._valid))
        for _ in range(self._random.choice((1, 1, 1, 2, 4, 8))):
            self._change(data)
        return bytes(data)

    def mutate(self, data: bytes, most: int) -> bytes:
        """Return a mutation of some bytes, of a length of `most` at most."""
        changed = bytearray(data)
        self._change(changed)
        return bytes(changed[:most])

    def _change(self, data: bytearray) -> None:
        chance = self._random
        reach = min(len(data), chance.choice((64, 1_200, len(data)))) or 1
        at = chance.randrange(reach)
        match chance.randrange(8):
            case 0 | 1 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 2 | 3:
                number = chance.choice(_NUMBERS)
                data[at : at + len(number)] = number
            case 4:
                del data[at:]
            case 5:
                del data[at : at + chance.choice((1, 2, 4, 100))]
            case 6:
                data[at:at] = chance.choice((*_WORDS, chance.randbytes(chance.randrange(12))))
            case _:
                other = chance.choice(self._valid)
                begin = chance.randrange(len(other) or 1)
                data[at : at + chance.choice((0, 4, 200))] = other[
                    begin : begin + chance.choice((4, 60, 900))
                ]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
