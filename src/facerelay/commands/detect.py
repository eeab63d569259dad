"""Find faces in pictures: the way to try a detector, and to score one."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

import click
import cv2
import numpy as np

from facerelay import picture
from facerelay.commands import logs
from facerelay.commands.exits import Exit
from facerelay.commands.progress import watching
from facerelay.config import Config
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.eyes.crop import encode
from facerelay.edge.eyes.detect import Detection, configured
from facerelay.edge.eyes.quality import measure
from facerelay.edge.eyes.search import Search
from facerelay.picture import PictureError
from facerelay.settings import ConfigError
from facerelay.topics import shown

_MOST_BYTES: Final = 64_000_000
_MOST_PIXELS: Final = 64_000_000
_MOST_SIDE: Final = 16_384
_MOST_NAME: Final = 200
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+]*:/")
_LINES, _TEXT = (0, 220, 0), (0, 0, 0)


def detect(config: Config, files: Sequence[Path], *, draw: Path | None = None) -> int:
    """Print a line of JSON for each picture, in order: its faces in pixels, or why it cannot be read.

    Pictures are taken as they are displayed: turned as their EXIF says. What finds the faces is what looks
    at a camera's frames: `Search`, as the settings say.

    Args:
        config: its `detect` section counts.
        files: JPEG, PNG, WebP or BMP.
        draw: a folder for copies with the faces drawn in; nothing that is there is written over.

    Returns:
        The exit code: 0 if all could be read.

    Raises:
        ConfigError, ModelError: the detector cannot be made.
        OSError: the folder cannot be written.
    """
    if any(_ADDRESS.match(str(file)) for file in files):  # which may hold a password, so it is not shown
        raise ConfigError(
            "an address is no file: for a camera write it into [[camera]], and try it with `facerelay doctor`"
        )
    search = Search(configured(config.detect), tiles=config.detect.tiles)
    if draw is not None:
        draw.mkdir(parents=True, exist_ok=True)
    with watching(lines=True) as watch:
        failed = False
        for number, file in enumerate(files):
            watch("pictures", number, len(files))
            failed |= not _one(search, file, draw)
    return Exit.UNWELL if failed else Exit.FINE


def _one(search: Search, file: Path, draw: Path | None) -> bool:
    """Print a picture's line; returns False where it cannot be read."""
    try:
        image = _read(file)
    except (OSError, PictureError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        click.echo(json.dumps({"file": str(file), "error": reason}))
        logs.complain(f"{_named(file)}: {shown(reason)}")
        return False
    raster = Pixels(image)
    found = search.find(raster)
    click.echo(json.dumps({"file": str(file), "faces": [_described(raster, each) for each in found]}))
    if draw is not None:
        _write_new(draw, file.stem, _drawn(image, found))
    return True


def _named(file: Path) -> str:
    """Return a path as a terminal may show it, however long: its characters that control one are escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(file))


def _read(file: Path) -> Image:
    """Return a picture as it is displayed, height x width x 3, BGR.

    Raises:
        OSError: it cannot be read.
        PictureError: it is no picture, or too large.
    """
    with file.open("rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if data.startswith(b"BM"):
        _check_bmp(data)
    else:
        seen = picture.read(data, max_bytes=_MOST_BYTES, max_pixels=_MOST_PIXELS)
        _check_size(seen.width, seen.height)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise PictureError("malformed", "the picture cannot be decoded")
    return cast("Image", image)


def _check_bmp(data: bytes) -> None:
    """Check a BMP's size before anything is decoded (BITMAPCOREHEADER, BITMAPINFOHEADER and later)."""
    try:
        (header,) = struct.unpack_from("<I", data, 14)
        width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)  # noqa: PLR2004 - the core header
    except struct.error:
        raise PictureError("truncated", "the picture ends inside its header") from None
    if len(data) > _MOST_BYTES:
        raise PictureError("too-large", f"more than the limit of {_MOST_BYTES} bytes")
    _check_size(width, abs(height))


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise PictureError("no-pixels", "the picture has no width or no height")
    if max(width, height) > _MOST_SIDE or width * height > _MOST_PIXELS:
        limits = f"{_MOST_SIDE} pixels a side, {_MOST_PIXELS} in all"
        raise PictureError("too-many-pixels", f"{width}x{height} is more than the limit of {limits}")


def _described(raster: Pixels, face: Detection) -> dict[str, Any]:
    quality = measure(raster, face)
    return {
        "box": [round(at, 2) for at in face.box],
        "score": round(face.score, 4),
        "landmarks": [[round(x, 2), round(y, 2)] for x, y in face.landmarks],
        "quality": {name: round(part, 4) for name, part in {"total": quality.total, **quality.parts}.items()},
    }


def _drawn(image: Image, faces: Sequence[Detection]) -> bytes:
    """Draw boxes, landmarks and scores into a picture, and return it as a JPEG."""
    thick = max(1, round(max(image.shape[:2]) / 600))
    for face in faces:
        x, y, w, h = (round(at) for at in face.box)
        cv2.rectangle(image, (x, y), (x + w, y + h), _LINES, thick)
        for px, py in face.landmarks:
            cv2.circle(image, (round(px), round(py)), thick, _LINES, -1)
        word, size = f"{face.score:.2f}", 0.4 * thick
        (wide, high), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        foot = max(high + 2, y)
        cv2.rectangle(image, (x, foot - high - 2), (x + wide, foot), _LINES, -1)
        cv2.putText(image, word, (x, foot - 1), cv2.FONT_HERSHEY_SIMPLEX, size, _TEXT, thick)
    return encode(image, max_side=_MOST_SIDE)


def _write_new(folder: Path, stem: str, data: bytes) -> None:
    """Write a JPEG into a folder, under a number where its name is taken."""
    stem = os.fsdecode(os.fsencode(stem)[:_MOST_NAME])
    for number in count(1):
        path = folder / f"{stem}{f'-{number}' if number > 1 else ''}.jpg"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            opened = os.open(path, flags, 0o640)
        except FileExistsError:
            continue
        with os.fdopen(opened, "wb") as file:
            file.write(data)
        return
