"""The EXIF tags of a face: its time, its id, and a JSON in UserComment for the rest."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay import __version__, exif

_MAKE, _MODEL, _DESCRIPTION, _SOFTWARE, _DATETIME = 0x010F, 0x0110, 0x010E, 0x0131, 0x0132
_VERSION, _ORIGINAL, _OFFSET, _SUBSEC = 0x9000, 0x9003, 0x9011, 0x9291
_COMMENT, _UNIQUE_ID = 0x9286, 0xA420
_COMMENT_ASCII: Final = b"ASCII\x00\x00\x00"
_FIRST_YEAR: Final = "1970"
"""A clock that was never set begins here; earlier times are made up."""

_TIME_FORM: Final = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", re.ASCII)
_OFFSET_FORM: Final = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)
_ID_FORM: Final = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", re.ASCII)
_NO_OFFSET: Final = {"+00:00", "-00:00"}


def build(*, face_id: str, time: datetime, source: str, about: str, comment: Mapping[str, object]) -> bytes:
    """Return the EXIF block of a face.

    Args:
        face_id: its UUIDv7.
        time: when the frame was taken.
        source: site and camera, as a model of camera.
        about: a line for people.
        comment: what has no tag of its own.
    """
    taken = time.astimezone(UTC)
    stamp = exif.ascii_tag(taken.strftime("%Y:%m:%d %H:%M:%S"))
    text = json.dumps(comment, separators=(",", ":")).encode("ascii")
    image = {
        _DESCRIPTION: exif.ascii_tag(about),
        _MAKE: exif.ascii_tag("facerelay"),
        _MODEL: exif.ascii_tag(source),
        _SOFTWARE: exif.ascii_tag(f"facerelay {__version__}"),
        _DATETIME: stamp,
    }
    photo = {
        _VERSION: (exif.UNDEFINED, b"0232"),
        _ORIGINAL: stamp,
        _OFFSET: exif.ascii_tag("+00:00"),
        _SUBSEC: exif.ascii_tag(f"{taken.microsecond:06d}"),
        _UNIQUE_ID: exif.ascii_tag(uuid.UUID(face_id).hex),
        _COMMENT: (exif.UNDEFINED, _COMMENT_ASCII + text),
    }
    return exif.build(image, photo)


def read(block: bytes) -> FaceTags | None:
    """Return the tags of a face of ours; None where this is another picture's EXIF."""
    try:
        tags = exif.parse(block)
    except exif.ExifError:
        return None
    comment = tags.get(_COMMENT, b"")
    if tags.get(_MAKE) != b"facerelay" or not comment.startswith(_COMMENT_ASCII):
        return None
    return FaceTags(tags)


class FaceTags:
    """What a face's EXIF says; `id` and `time` raise KeyError, ValueError or OverflowError where it is wrong.

    Args:
        tags: by their numbers.
    """

    def __init__(self, tags: Mapping[int, bytes]) -> None:
        self._tags = tags

    @property
    def comment(self) -> bytes:
        """The JSON."""
        return self._tags[_COMMENT][len(_COMMENT_ASCII) :]

    @property
    def id(self) -> str:
        """A UUIDv7, in its canonical form."""
        text = self._tags[_UNIQUE_ID].decode("ascii")
        if _ID_FORM.fullmatch(text):  # as we write it, a third of UUID's time
            return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        found = uuid.UUID(text)
        if found.version != 7:  # noqa: PLR2004 - UUIDv7
            raise ValueError("not a UUIDv7")
        return str(found)

    @property
    def time(self) -> datetime:
        """When the frame was taken, in UTC."""
        form = _TIME_FORM.fullmatch(self._tags[_ORIGINAL].decode("ascii"))
        if form is None:
            raise ValueError("not a time")
        year, month, day, clock = form.groups()
        if year < _FIRST_YEAR:
            raise ValueError("before there were such cameras")
        micro = int(self._tags.get(_SUBSEC, b"0")[:6].ljust(6, b"0"))
        taken = datetime.fromisoformat(f"{year}-{month}-{day}T{clock}.{micro:06d}+00:00")
        told = self._tags.get(_OFFSET, b"+00:00").decode("ascii")
        if told in _NO_OFFSET:
            return taken
        offset = _OFFSET_FORM.fullmatch(told)
        if offset is None:
            raise ValueError("not an offset")
        shift = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (1 if offset[1] == "+" else -1)
        return taken - shift
