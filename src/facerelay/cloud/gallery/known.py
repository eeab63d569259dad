"""All that a face's picture says of itself."""

from __future__ import annotations

from typing import Any, Final

from facerelay import exif, face, picture

_SOFTWARE: Final = 0x0131
_DESCRIPTION: Final = 0x010E
_MOST: Final = 200


def told(data: bytes, limits: face.Limits) -> dict[str, Any]:
    """Return what the header and the EXIF of a picture say; `fault` says why that is not all."""
    try:
        seen = picture.read(data, max_bytes=limits.bytes, max_pixels=limits.pixels)
    except picture.PictureError as error:
        return {"fault": str(error)}
    about = {"format": seen.format.upper(), "width": seen.width, "height": seen.height}
    try:
        frozen = face.parse(data, limits)
    except face.FaceError as error:
        return {**about, "fault": str(error)}
    parts = {name: round(value, 4) for name, value in frozen.face.parts.items()}
    known = face.describe(frozen.face) | ({"parts": parts} if parts else {}) | about
    known["sha256"] = frozen.sha256
    return known | _tags(seen.exif or b"")


def _tags(block: bytes) -> dict[str, str]:
    """Return the tags that are text for people."""
    try:
        tags = exif.parse(block)
    except exif.ExifError:
        return {}
    found = {"software": tags.get(_SOFTWARE, b""), "description": tags.get(_DESCRIPTION, b"")}
    return {name: value[:_MOST].decode("ascii", "replace") for name, value in found.items() if value}
