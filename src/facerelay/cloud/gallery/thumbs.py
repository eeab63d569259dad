"""Thumbnails: small pictures made of faces whose header was looked at before a pixel is decoded."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Final

from PIL import Image

from facerelay import face, picture
from facerelay.cloud.gallery.cache import Learnt
from facerelay.cloud.unseal import Look

SIDE: Final = 320
"""Longest side in pixels, at most."""

MEDIA: Final = "image/webp"
_QUALITY: Final = 78
_METHOD: Final = 2
"""Of the encoder's six, the last whose time is below that of decoding."""

LARGE: Final = 2_000_000
"""Pixels of a picture that is not decoded beside another one."""

_PIXELS: Final = {"jpeg": 40_000_000, "png": 8_400_000, "webp": 8_400_000}
"""A 4K frame at least. A decoder takes up to 3 bytes for each pixel of a JPEG, 8 of a PNG, 16 of a WebP."""

_SCAN: Final = b"\xff\xda"
_SCANS: Final = 64
"""Of a JPEG, at most: each one costs a walk over all of the picture, and takes twelve bytes."""

_SCANNED: Final = 15_000_000
"""Pixels of a JPEG of several scans: its decoder keeps all coefficients, up to 8 bytes for each pixel."""

_FAULTS: Final = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError, OverflowError,
    Image.DecompressionBombError,
)  # fmt: skip
_BACKGROUND: Final = (128, 128, 128)


# Of odd metadata, which is looked at nowhere here: each hostile picture would be a line in the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class DamagedError(ValueError):
    """A picture that cannot be shown; the message says why, in a few words."""


def learn(look: Look, limits: face.Limits) -> Learnt:
    """Return what a face's bytes say; no pixel is decoded. One that stays sealed says nothing."""
    sealed = look.seal is not None
    try:
        seen = picture.read(look.data, max_bytes=limits.bytes, max_pixels=limits.pixels)
        known = face.parse(look.data, limits).face
    except (picture.PictureError, face.FaceError) as error:
        return Learnt(fault=error.reason, sealed=sealed)
    if look.closed:
        return Learnt(width=seen.width, height=seen.height, sealed=True)
    visit = f"{known.outbox}-{known.run}-{known.track}"
    return Learnt(known.quality, seen.width, seen.height, visit, sealed=sealed)


def make(data: bytes) -> bytes:
    """Return a thumbnail of a JPEG, PNG or WebP, as WebP without any of its metadata.

    Raises:
        DamagedError: it cannot be decoded, or only at too high a price.
    """
    try:
        seen = picture.read(data, max_bytes=len(data), max_pixels=_PIXELS["jpeg"])
    except picture.PictureError as error:
        raise DamagedError(error.reason) from error
    scans = data.count(_SCAN) if seen.format == "jpeg" else 1  # a preview in its EXIF may add some
    if scans > _SCANS:
        raise DamagedError("too-many-scans")
    if seen.width * seen.height > (_PIXELS[seen.format] if scans == 1 else _SCANNED):
        raise DamagedError("too-many-pixels")
    try:
        with Image.open(io.BytesIO(data), formats=[seen.format.upper()]) as image:
            if image.size != (seen.width, seen.height):
                raise DamagedError("malformed")
            image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded no larger than needed
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
            out = io.BytesIO()
            _plain(image).save(out, "WEBP", quality=_QUALITY, method=_METHOD)
    except _FAULTS as error:
        raise DamagedError("damaged") from error
    return out.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    """Return it in three colours; what was transparent is grey."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGB", image.size, _BACKGROUND)
    clear = image.convert("RGBA")
    ground.paste(clear, mask=clear.getchannel("A"))
    return ground
