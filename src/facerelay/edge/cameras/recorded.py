"""What has an end: a file, a folder of pictures, a numbered sequence of them, a recording on a web server."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import av.error

from facerelay.edge.cameras import video
from facerelay.edge.cameras.lull import Lull
from facerelay.edge.cameras.opening import CameraError, Container, reason_of
from facerelay.edge.cameras.video import Picture

STILLS: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
VIDEOS: Final = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
    ".ogv", ".gif", ".h264", ".h265", ".mjpeg", ".mjpg", ".3gp",
}  # fmt: skip

_SECONDS_A_STILL: Final = 3.0
"""Longer than a visit survives a gap: each picture of a folder shows visits of its own."""

_MISSING_S: Final = 1.0
"""A recording that ends so much before its time has broken off: not every format says so itself."""

_PATTERN: Final = re.compile(r"%(?:0([1-9]))?d")

_log = logging.getLogger(__name__)


class Sequence(NamedTuple):
    """Pictures of one folder whose names differ by a number; `width` is the number's least, with zeros."""

    folder: Path
    before: str
    width: int
    after: str


def is_sequence(source: str) -> bool:
    """Tell whether a source is a pattern of file names, and not a file that is called so."""
    return "%" in source and _PATTERN.search(source) is not None and not Path(source).expanduser().exists()


def sequence(source: str) -> Sequence:
    """Read a pattern such as `shots/frame-%05d.jpg`.

    Raises:
        CameraError: two numbers in it, one in a folder's name, no kind of picture, or no such folder.
    """
    path = Path(source).expanduser()
    found = list(_PATTERN.finditer(path.name))
    if len(found) != 1 or _PATTERN.search(str(path.parent)):
        raise CameraError(source, "write one %d, or one such as %05d, and only in the name of the file")
    if path.suffix.lower() not in STILLS:
        raise CameraError(source, f"a sequence is of pictures: {', '.join(sorted(STILLS))}")
    if not path.parent.is_dir():
        raise CameraError(source, "there is no such folder")
    (number,) = found
    return Sequence(path.parent, path.name[: number.start()], int(number[1] or 1), path.name[number.end() :])


def play_sequence(source: str, fps: float) -> Iterator[Picture]:
    """Yield the pictures of a sequence by number, `fps` a second; damaged ones are left out.

    Raises:
        CameraError: see `sequence`; none matches, or none can be read.
    """
    files = _numbered(sequence(source))
    if not files:
        raise CameraError(source, "no file of that folder has such a name")
    for count, picture in _readable(files, source):
        yield Picture(count / fps, picture.raster)


def _readable(files: list[Path], source: str) -> Iterator[tuple[int, Picture]]:
    """Yield the number and the first picture of each file; damaged ones are left out.

    Raises:
        CameraError: none can be read.
    """
    bad = 0
    for count, file in enumerate(files):
        try:
            picture = next(video.read_file(file))
        except CameraError as error:
            bad += 1
            if bad == 1:
                _log.warning("%s; such pictures are left out", error)
        else:
            yield count, picture
    if bad == len(files):
        raise CameraError(source, "none of its pictures can be read")


def _numbered(wanted: Sequence) -> list[Path]:
    digits = re.compile(re.escape(wanted.before) + r"([0-9]{1,18})" + re.escape(wanted.after))
    found: list[tuple[int, Path]] = []
    for each in wanted.folder.iterdir():
        match = digits.fullmatch(each.name)
        if match and f"{int(match[1]):0{wanted.width}d}" == match[1] and _is_plain(each):
            found.append((int(match[1]), each))
    return [path for _, path in sorted(found)]


def play_path(source: str, lull: Lull | None = None) -> Iterator[Picture]:
    """Yield the pictures of a file, or of a folder's still pictures; damaged ones are left out.

    Args:
        source: the file or folder.
        lull: see `decode`.

    Raises:
        CameraError: there is nothing of that name, or nothing in it that can be read.
    """
    path = Path(source).expanduser()
    require(path, source)
    if not path.is_dir():
        alone = path.suffix.lower() in STILLS
        yield from (Picture(each.pts, each.raster, still=alone) for each in video.read_file(path, lull))
        return
    stills = files_in(path, STILLS)
    if not stills:
        raise CameraError(source, "the folder has no still pictures: name one of its videos")
    for number, picture in _readable(stills, source):
        yield Picture(number * _SECONDS_A_STILL, picture.raster, still=True)


def has_an_end(container: Container) -> bool:
    """Tell whether what was opened from the network is a recording: it says how long it lasts.

    A single picture does not: it is asked for again, which is how some cameras are watched.
    """
    return bool(container.duration)


def play_container(container: Container, source: str) -> Iterator[Picture]:
    """Yield every picture of a recording on a web server, and close it.

    Raises:
        CameraError: at the end of what came, where it broke off.
    """
    last = -math.inf
    try:
        with container:
            seconds = _seconds(container)
            for picture in video.pictures(container, source):
                last = picture.pts
                yield picture
    except (av.error.FFmpegError, OSError) as error:
        raise CameraError(source, f"the recording broke off ({reason_of(error)})") from error
    if seconds - last > _MISSING_S:
        raise CameraError(source, f"the recording broke off: {last:.0f} of {seconds:.0f} s came")


def _seconds(container: Container) -> float:
    """Return how long the video lasts, where its container says it of the video itself; else 0."""
    stream = container.streams.video[0] if container.streams.video else None
    if stream is None or stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def require(path: Path, source: str) -> None:
    """Raise a CameraError where there is nothing of that name."""
    if not path.exists():
        raise CameraError(source, "there is no such file or folder (a webcam is a number, a stream a URL)")


def files_in(folder: Path, endings: set[str]) -> list[Path]:
    """Return the files of some kinds that lie in the folder itself, by name."""
    return sorted(
        each
        for each in folder.iterdir()
        if each.suffix.lower() in endings and not each.name.startswith(".") and _is_plain(each)
    )


def _is_plain(path: Path) -> bool:
    """Tell a file from a link, which could lead to one that nobody meant to show."""
    return path.is_file() and not path.is_symlink()
