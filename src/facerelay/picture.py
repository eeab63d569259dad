"""The container of a picture: what its header says, and its EXIF block, read and written without decoding.

Hostile bytes cost no more than a walk over chunk headers: no pixel is decoded, nothing is decompressed,
and nothing is allocated beyond slices of what already arrived.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_EXIF_BYTES: Final = 65_000
"""A JPEG segment holds 65,535 bytes; the other formats keep to the same limit."""

_MAX_CHUNKS: Final = 4096
"""More chunks or segments than any encoder writes; a walk past it is a walk made to be long."""

PNG: Final = b"\x89PNG\r\n\x1a\n"
"""How a PNG begins."""

SEALED: Final = b"seAL"
"""The chunk of a PNG that holds a sealed picture: ancillary, private, unsafe to copy."""

_JPEG_EXIF: Final = b"Exif\x00\x00"
_SEGMENTS: Final = {*range(0xC0, 0xD0), *range(0xDA, 0xFF)}
_SCAN: Final = 0xDA
_END: Final = 0xD9
_STANDALONE: Final = {0x01, *range(0xD0, 0xD8)}
_START_OF_FRAME: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_VP8X_EXIF: Final = 0x08
_VP8X_ALPHA: Final = 0x10


class PictureError(ValueError):
    """These bytes are not a picture that facerelay takes.

    Attributes:
        reason: a short slug (`not-a-picture`, `truncated`, `too-large`, …) for counters and receipts.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture's header says: format, size in pixels, its EXIF block, and whether it ends as it should.

    Attributes:
        sealed: whether another picture is inside, encrypted.
    """

    format: str
    width: int
    height: int
    exif: bytes | None
    complete: bool
    sealed: bool = False

    @property
    def extension(self) -> str:
        """The file name's ending, without a dot."""
        return "jpg" if self.format == "jpeg" else self.format


def read(data: bytes, *, max_bytes: int, max_pixels: int) -> Picture:
    """Read the header of a JPEG, PNG or WebP.

    Args:
        data: the whole picture.
        max_bytes: larger pictures are refused before anything is looked at.
        max_pixels: width times height above it is refused; nothing has been decoded then.

    Raises:
        PictureError: too large, not a picture, a malformed header.
    """
    if len(data) > max_bytes:
        raise PictureError("too-large", f"{len(data)} bytes are more than the limit of {max_bytes}")
    picture = _parse(data)
    if picture.width * picture.height > max_pixels:
        raise PictureError(
            "too-many-pixels",
            f"{picture.width}x{picture.height} is more than the limit of {max_pixels} pixels",
        )
    if not picture.width or not picture.height:
        raise PictureError("no-pixels", "the picture has no width or no height")
    return picture


def with_exif(data: bytes, exif: bytes) -> bytes:
    """Put a TIFF-structured EXIF block into an encoder's JPEG, PNG or WebP, which has none yet.

    Raises:
        PictureError: the block is too large, or the bytes are no picture.
    """
    if len(exif) > MAX_EXIF_BYTES:
        raise PictureError("exif-too-large", f"the EXIF block has {len(exif)} bytes, over {MAX_EXIF_BYTES}")
    if data.startswith(b"\xff\xd8"):
        body = _JPEG_EXIF + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if data.startswith(PNG):
        ihdr = len(PNG) + 12 + 13
        return data[:ihdr] + png_chunk(b"eXIf", exif) + data[ihdr:]
    return _webp_with_exif(data, exif)


def _parse(data: bytes) -> Picture:
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith(PNG):
            return _read_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _read_webp(data)
    except (struct.error, IndexError) as error:
        raise PictureError("truncated", "the picture ends inside its header") from error
    if data[:1] == b"\x80" and data[-1:] == b".":
        raise PictureError("pickle", "a Python pickle is never opened: send the JPEG or PNG bytes themselves")
    raise PictureError("not-a-picture", "neither JPEG, PNG nor WebP")


def _read_jpeg(data: bytes) -> Picture:
    exif: bytes | None = None
    size: tuple[int, int] | None = None
    scanned = False
    for marker, body in _jpeg_segments(data):
        if marker == 0xE1 and exif is None and body.startswith(_JPEG_EXIF):  # noqa: PLR2004 - APP1
            exif = body[len(_JPEG_EXIF) :]
        if marker in _START_OF_FRAME:
            if size is not None:
                raise PictureError("malformed", "the JPEG says its size twice")
            size = struct.unpack_from(">HH", body, 1)
        scanned = marker == _SCAN
    if size is None:
        raise PictureError("malformed", "the JPEG does not say its size")
    complete = scanned and data.rstrip(b"\x00").endswith(b"\xff\xd9")
    return Picture("jpeg", size[1], size[0], exif, complete=complete)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of each segment, up to the first scan's (ITU-T T.81, B.1.1 and table B.1).

    A marker that begins no segment is refused: a decoder looks for the next one inside what follows.
    """
    at = 2
    for _ in range(_MAX_CHUNKS):
        if data[at] != 0xFF:  # noqa: PLR2004 - the marker byte of ITU-T T.81, B.1.1.2
            raise PictureError("malformed", "a JPEG marker is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # noqa: PLR2004 - fill bytes may precede a marker
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        if marker == _END:
            return
        if marker not in _SEGMENTS:
            raise PictureError("malformed", f"0x{marker:02X} is no marker of a JPEG's header")
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:  # noqa: PLR2004 - the length counts its own two bytes
            raise PictureError("truncated", "the JPEG ends inside a segment")
        yield marker, body
        if marker == _SCAN:
            return
        at += 2 + length
    raise PictureError("malformed", f"more than {_MAX_CHUNKS} JPEG segments before the picture")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, where its body begins, and how long it says that is: perhaps past the end."""
    at = len(PNG)
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, length
        at += 12 + length


def _read_png(data: bytes) -> Picture:
    width = height = 0
    exif: bytes | None = None
    complete = sealed = False
    for index, (kind, at, length) in enumerate(png_chunks(data)):
        if index == 0:
            if kind != b"IHDR":
                raise PictureError("malformed", "the PNG does not start with IHDR")
            width, height = struct.unpack_from(">II", data, at)
        elif at + length + 4 > len(data):
            break
        elif kind == b"eXIf" and exif is None and length <= MAX_EXIF_BYTES:
            exif = data[at : at + length]
        elif kind == SEALED:
            sealed = True
        elif kind == b"IEND":
            complete = True
            break
    return Picture("png", width, height, exif, complete=complete, sealed=sealed)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, length
        at += 8 + length + (length & 1)


def _read_webp(data: bytes) -> Picture:
    (declared,) = struct.unpack_from("<I", data, 4)
    width = height = 0
    exif: bytes | None = None
    for kind, at, length in _webp_chunks(data):
        if kind in (b"VP8X", b"VP8 ", b"VP8L") and not width:
            width, height = _webp_size(kind, data, at)
        elif kind == b"EXIF" and exif is None and length <= MAX_EXIF_BYTES and at + length <= len(data):
            exif = data[at : at + length].removeprefix(_JPEG_EXIF)
    return Picture("webp", width, height, exif, complete=len(data) >= declared + 8)


def _webp_size(kind: bytes, data: bytes, at: int) -> tuple[int, int]:
    """Width and height in pixels, from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, at + 4)
        return 1 + (low_w | high_w << 16), 1 + (low_h | high_h << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, at + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, at + 6)
    return width & 0x3FFF, height & 0x3FFF


def _webp_with_exif(data: bytes, exif: bytes) -> bytes:
    picture = _parse(data)
    kind, at, _ = next(_webp_chunks(data))
    chunks = data[12:]
    flags = _VP8X_EXIF
    if kind == b"VP8X":
        flags |= data[at]
        chunks = data[at + 10 :]
    elif kind == b"VP8L" and data[at + 4] >> 4 & 1:
        flags |= _VP8X_ALPHA
    size = struct.pack("<I", picture.width - 1)[:3] + struct.pack("<I", picture.height - 1)[:3]
    head = b"VP8X" + struct.pack("<IB3x", 10, flags) + size
    tail = b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\x00" * (len(exif) & 1)
    body = b"WEBP" + head + chunks + tail
    return b"RIFF" + struct.pack("<I", len(body)) + body
