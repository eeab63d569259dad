"""Faces that wait to be sent, as they are read from the outbox's tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from facerelay.edge.schema import BrokenError
from facerelay.face import SLUG

SELECT_WAITING: Final = (
    "SELECT row, id, sha256, site, camera, outbox, data, quality"
    " FROM faces LEFT JOIN pictures USING (row) WHERE state = 'waiting'"
)
"""All that wait, in the order of `Waiting`'s fields; a face whose picture is gone has none."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A face that waits to be sent: its frozen bytes and where they go."""

    row: int
    id: str
    sha256: str
    site: str
    camera: str
    outbox: str
    data: bytes
    quality: float


@dataclass(frozen=True, slots=True)
class News:
    """What one commit changed: faces that came to wait, and ids that wait no longer.

    Faces that were parked and wait again are on the disk alone, the first of them in row `again`.
    """

    arrived: Sequence[Waiting]
    gone: Sequence[str]
    again: int | None = None


def is_sound(face: Waiting) -> bool:
    """Whether a face that was read from the disk has its picture, and that picture its bytes.

    Raises:
        BrokenError: it has, and its row was damaged: its picture says what was in there.
    """
    if not isinstance(face.data, bytes) or hashlib.sha256(face.data).hexdigest() != face.sha256:
        return False
    named = all(re.fullmatch(SLUG, name) for name in (face.site, face.camera))
    if not named or face.id.replace("-", "").encode() not in face.data:
        raise BrokenError("a face's row is not its picture's")
    return True
