"""A small EXIF block: ASCII and UNDEFINED tags in IFD0 and the Exif IFD, bounded when read.

Source: CIPA DC-008 (Exif 2.32), which rests on TIFF 6.0. Pillow reads the same tags, but warns,
allocates by the file's own counts, and decodes a PNG to look for them: not for bytes from a network.
"""

from __future__ import annotations

import struct
from typing import Final

ASCII: Final = 2
LONG: Final = 4
UNDEFINED: Final = 7

EXIF_IFD: Final = 0x8769
_ENTRY: Final = 12
_INLINE: Final = 4
_MAX_ENTRIES: Final = 64

Tags = dict[int, tuple[int, bytes]]
"""Tag number to (field type, value)."""


class ExifError(ValueError):
    """The EXIF block is malformed."""


def ascii_tag(text: str) -> tuple[int, bytes]:
    """Return the value of an ASCII tag: NUL-terminated, anything outside ASCII replaced."""
    return ASCII, text.encode("ascii", "replace") + b"\x00"


def build(image: Tags, photo: Tags) -> bytes:
    """Build a little-endian block from the tags of IFD0 and of the Exif IFD."""
    pointer = {EXIF_IFD: (LONG, b"\x00\x00\x00\x00")}
    head = 8
    exif_at = head + len(_ifd({**image, **pointer}, head))
    image = {**image, EXIF_IFD: (LONG, struct.pack("<I", exif_at))}
    return b"II*\x00" + struct.pack("<I", head) + _ifd(image, head) + _ifd(photo, exif_at)


def _ifd(tags: Tags, at: int) -> bytes:
    """One directory that starts at offset `at`: sorted entries, then the values too long to lie inside."""
    entries = struct.pack("<H", len(tags))
    values = b""
    values_at = at + 2 + _ENTRY * len(tags) + 4
    for tag in sorted(tags):
        kind, value = tags[tag]
        count = 1 if kind == LONG else len(value)
        if len(value) <= _INLINE:
            field = value.ljust(_INLINE, b"\x00")
        else:
            field = struct.pack("<I", values_at + len(values))
            values += value + b"\x00" * (len(value) & 1)
        entries += struct.pack("<HHI", tag, kind, count) + field
    return entries + struct.pack("<I", 0) + values


def parse(block: bytes) -> dict[int, bytes]:
    """Read the ASCII and UNDEFINED tags of IFD0 and of the Exif IFD, with NULs at the end of ASCII cut.

    Raises:
        ExifError: not a TIFF structure, or an offset that leaves the block.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
    if order is None:
        raise ExifError("the EXIF block has no TIFF header")
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        tags = _directory(block, order, first)
        if EXIF_IFD in tags:
            (photo,) = struct.unpack(order + "I", tags.pop(EXIF_IFD))
            tags |= _directory(block, order, photo)
    except struct.error as error:
        raise ExifError("the EXIF block ends inside a directory") from error
    return tags


def _directory(block: bytes, order: str, at: int) -> dict[int, bytes]:
    (count,) = struct.unpack_from(order + "H", block, at)
    if count > _MAX_ENTRIES:
        raise ExifError(f"an EXIF directory of {count} entries, over {_MAX_ENTRIES}")
    tags: dict[int, bytes] = {}
    entries = block[at + 2 : at + 2 + count * _ENTRY]
    for tag, kind, length, field in struct.iter_unpack(order + "HHI4s", entries):
        if tag == EXIF_IFD:
            tags[tag] = field
        elif kind == ASCII:
            tags[tag] = _value(block, order, tag, length, field).rstrip(b"\x00")
        elif kind == UNDEFINED:
            tags[tag] = _value(block, order, tag, length, field)
    return tags


def _value(block: bytes, order: str, tag: int, length: int, field: bytes) -> bytes:
    """Return a value that lies in its entry's own four bytes, or elsewhere in the block."""
    if length <= _INLINE:
        return field[:length]
    (start,) = struct.unpack(order + "I", field)
    if start + length > len(block):
        raise ExifError(f"EXIF tag {tag:#06x} lies outside the block")
    return block[start : start + length]
