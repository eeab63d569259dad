"""The container of a sealed face: a PNG that shows a lock, and holds the picture encrypted.

Its chunks are IHDR, eXIf, IDAT, `seAL` with the ciphertext, `siGN` with the id of the signing key and its
signature over all bytes before that chunk, and IEND, after which there is nothing. Nothing here decrypts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from facerelay import picture
from facerelay.face import Face

SIGNATURE: Final = b"siGN"
KEY_BYTES: Final = 8
SIGNATURE_BYTES: Final = 64

_SIDE: Final = 32
_SHADES: Final = 2
_LOCK: Final = bytes.fromhex(
    "18d3635805050ca4329646411953c3a08ca8a510c6caac9559a80ca044140ec6d4d0d030302314087031c2a61266e0d60eb7820c"
    "9f02002ee99881"
)
"""A lock on grey, 32 x 32 pixels in four shades, the same in every sealed face."""

_SIZE: Final = struct.pack(">IIBBBBB", _SIDE, _SIDE, _SHADES, 0, 0, 0, 0)
_HEAD: Final = picture.PNG + picture.png_chunk(b"IHDR", _SIZE)
_TILE: Final = picture.png_chunk(b"IDAT", _LOCK)
_END: Final = picture.png_chunk(b"IEND", b"")
_AROUND: Final = 12
"""Bytes of a chunk beside its body."""

FIXED_BYTES: Final = len(_HEAD) + len(_TILE) + len(_END) + 3 * _AROUND + KEY_BYTES + SIGNATURE_BYTES
"""Bytes of a sealed face beside its EXIF and its ciphertext."""

_ORDER: Final = (b"IHDR", b"eXIf", b"IDAT", picture.SEALED)


class SealError(ValueError):
    """A sealed face that is not as it should be, or cannot be opened; the message says why."""


class UncheckedError(Exception):
    """Whose seal it is cannot be said now; it may be later."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The parts of a sealed face.

    Attributes:
        ciphertext: in the format of age.
        signed: the bytes that the signature is over.
        key: the id of the key that signed them, 16 hex digits; empty where nobody did.
        signature: 64 bytes, not checked here.
    """

    ciphertext: bytes
    signed: bytes
    key: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """Who sealed a face.

    Attributes:
        by: whose key it was, in words; empty where that is not known.
        revoked: whether the key was revoked since.
        fault: why the signature does not count; empty where it does.
    """

    by: str = ""
    revoked: bool = False
    fault: str = ""


def outside(face: Face) -> Face:
    """Return what is told of a face outside of its seal."""
    return replace(
        face, box=(0, 0, 0, 0), frame=(0, 0), score=0.0, quality=0.0, track=0, parts={}, thinned=None,
        sealed=True,
    )  # fmt: skip


def head(face: Face, ciphertext: bytes) -> bytes:
    """Return all of a sealed face that its signature is over.

    Args:
        face: what is told of it, see `outside`.
        ciphertext: in the format of age.
    """
    exif = picture.png_chunk(b"eXIf", face.exif())
    return _HEAD + exif + _TILE + picture.png_chunk(picture.SEALED, ciphertext)


def tail(key: str, signature: bytes) -> bytes:
    """Return the rest of it: who signed, and the end."""
    return picture.png_chunk(SIGNATURE, bytes.fromhex(key) + signature) + _END


def split(data: bytes) -> Sealed:
    """Take a sealed face apart.

    Every byte of it is one of those that are signed, or follows from them and the signature: nobody can make
    another file of it that would pass as well.

    Raises:
        SealError: a chunk is missing, is not where it should be, or is followed by something.
    """
    found = list(picture.png_chunks(data))
    kinds = tuple(kind for kind, _, _ in found)
    signed = kinds == (*_ORDER, SIGNATURE, b"IEND")
    if not signed and kinds != (*_ORDER, b"IEND"):
        raise SealError("its chunks are not those of a sealed face")
    for kind, at, length in found:
        if data[at - 8 : at + length + 4] != picture.png_chunk(kind, data[at : at + length]):
            raise SealError("a chunk of it is damaged")
    end_at, end_length = found[-1][1:]
    if len(data) != end_at + 4 or end_length:
        raise SealError("something follows its end")
    at, length = found[len(_ORDER) - 1][1:]
    cut = at + length + 4
    if not signed:
        return Sealed(data[at : at + length], data[:cut], "", b"")
    body = data[cut + 8 : -len(_END) - 4]
    if len(body) != KEY_BYTES + SIGNATURE_BYTES:
        raise SealError("its signature has a wrong length")
    return Sealed(data[at : at + length], data[:cut], body[:KEY_BYTES].hex(), body[KEY_BYTES:])
