"""A face as it is kept: encoded within its bytes, frozen, and sealed where that is asked for."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from facerelay import face
from facerelay.config import Config
from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes.crop import encode
from facerelay.sections import PictureFormat
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)
_seldom = Seldom(log)

_AROUND_EXIF: Final = 32
"""Bytes of a picture's container, at most, that hold the EXIF block."""


class Seal(Protocol):
    """What encrypts pictures (`facerelay.sealing.Sealer`)."""

    def room(self, known: face.Face, most: int) -> int:
        """Return how many bytes a picture may have, to be `most` at most once sealed."""

    def seal(self, frozen: face.Frozen) -> face.Frozen:
        """Return a face with its picture sealed."""


def sealer_of(config: Config) -> Seal | None:
    """Return what encrypts pictures as the settings say; None where they stay open.

    Raises:
        KeyFileError: trust.cert or trust.key cannot be used.
    """
    if not config.seal.recipients:
        return None
    from facerelay.sealing import sealer  # noqa: PLC0415 - its libraries take time to load

    return sealer(config)


def encode_face(
    known: face.Face, image: Image, *, form: PictureFormat, most: int, seal: Seal | None = None
) -> face.Frozen:
    """Encode a crop as the settings say, and freeze it with what is known of the face.

    Args:
        known: the face.
        image: height x width x 3, BGR.
        form: how; its target of bytes counts what is known of the face as well.
        most: bytes of a message, at most. A picture that cannot be made so small is returned all the same.
        seal: encrypts it; None leaves it open.
    """
    limit = min(most, form.max_bytes or most)
    room = limit if seal is None else seal.room(known, limit)
    encoded = encode(
        image,
        format=form.format,
        quality=form.quality,
        grey=form.grey,
        max_side=form.max_side,
        max_bytes=max(1, room - len(known.exif()) - _AROUND_EXIF),
    )
    frozen = face.freeze(known, encoded)
    if seal is not None:
        frozen = seal.seal(frozen)
    if len(frozen.data) > limit:
        setting = "limits.message_bytes" if limit == most else "picture.max_bytes"
        words = "camera %s: a face has %d bytes, over %s = %d, and cannot be made smaller"
        _seldom.say(logging.WARNING, setting, words, known.camera, len(frozen.data), setting, limit)
    return frozen
