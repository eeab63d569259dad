"""Frames of a camera: a webcam, a file, a folder of pictures, a stream from the network, the built-in scene.

`expand` turns a source as a user writes it into cameras; `open_camera` gives the frames of one.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

from facerelay.edge import video
from facerelay.edge.detect import Image
from facerelay.edge.live import Live
from facerelay.edge.opening import CameraError, live_opener, redact, split_url
from facerelay.edge.video import Picture

__all__ = ["SCENE", "CameraError", "Frame", "expand", "open_camera", "redact"]

SCENE: Final = "scene"
"""The name of the built-in scene."""

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_STILLS: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_VIDEOS: Final = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
    ".ogv", ".gif", ".h264", ".h265", ".mjpeg", ".mjpg", ".3gp",
}  # fmt: skip
_SECONDS_A_STILL: Final = 3.0
"""Longer than a visit survives a gap: each picture of a folder shows visits of its own."""

_LATE_S: Final = 0.1
_STARVED_S: Final = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a camera, or word that none came.

    Attributes:
        image: height x width x 3, uint8, BGR; 0 x 0 x 3 if none came.
        index: its number in the stream, from 0; numbers left out are frames that were dropped.
        pts: seconds on the stream's clock, which never goes back.
        time: when it arrived here, in UTC.
        still: whether it stands alone (a photograph), so that no other frame shows the same moment.
    """

    image: Image
    index: int
    pts: float
    time: datetime
    still: bool = False

    @property
    def blank(self) -> bool:
        """Whether no picture came: it says only that time has passed."""
        return self.image.size == 0


def expand(source: str) -> list[tuple[str, str]]:
    """Return the cameras in a source, as pairs of a name and a source for `open_camera`.

    Each video in a folder is a camera, named after its file where that is a slug, else `clip-<n>`.
    A folder that has only still pictures is one camera. Anything else is one camera, as it is.

    Raises:
        CameraError: a folder without any picture or video, nothing of that name, or a URL that is none.
    """
    if source == SCENE:
        return [(SCENE, source)]
    if source.isdecimal():
        return [(f"webcam-{int(source)}", source)]
    if "://" in source:
        split_url(source)
        # What is redacted has no host where a part of the password would be taken for it.
        return [(_slug(split_url(redact(source)).hostname or "", "camera"), source)]
    path = Path(source).expanduser()
    if not path.is_dir():
        _require(path, source)
        return [(_slug(path.stem, "clip-1"), str(path))]
    clips = _files(path, _VIDEOS)
    if clips:
        return _name_clips(clips)
    if _files(path, _STILLS):
        return [(_slug(path.resolve().name, "pictures"), str(path))]
    raise CameraError(source, "the folder has neither videos nor pictures: name another one")


def open_camera(
    source: str, *, pace: bool, stop: threading.Event, loop: bool = False
) -> Generator[Frame, None, None]:
    """Yield the frames of one camera until its end or until `stop` is set.

    A live source (webcam, URL) gives its newest frame, never a queue of old ones, and is opened again,
    with growing pauses, whenever it fails; while it is silent after its first frame, a blank frame comes
    each second or so. A file ends at its end.

    Args:
        source: a webcam's number, a file, a folder of still pictures, an rtsp(s):// or http(s):// URL,
            or `scene`.
        pace: play files and the scene in real time, leaving out what comes too late; else every frame
            as fast as it is taken.
        stop: set it to end; the generator looks at it several times a second.
        loop: play the built-in scene again and again; other sources pay no heed to it.

    Raises:
        CameraError: at the first frame, when the source cannot be opened at all.
    """
    if source == SCENE:
        yield from _play(_scene(loop=loop), pace=pace, stop=stop)
    elif source.isdecimal() or "://" in source:
        yield from _watch(source, stop)
    else:
        yield from _play(_recorded(source), pace=pace, stop=stop)


def _watch(source: str, stop: threading.Event) -> Generator[Frame, None, None]:
    pts, failed = 0.0, False
    with Live(source, live_opener(source), stop) as live:
        for index, picture in live:
            pts = max(pts, picture.pts)
            try:
                image = picture.image()
            except CameraError as error:
                # The next one may be better; what fails at each frame is told but once.
                if not failed:
                    _log.warning("%s; such pictures are left out", error)
                image, failed = video.NO_IMAGE, True
            yield Frame(image, index, pts, datetime.now(UTC))


def _play(pictures: Iterable[Picture], *, pace: bool, stop: threading.Event) -> Generator[Frame, None, None]:
    """Yield recorded pictures, at their own time if `pace`."""
    begin: float | None = None
    given = 0.0
    for index, picture in enumerate(pictures):
        if pace:
            now = time.monotonic()
            begin = now - picture.pts if begin is None else begin
            late = now - begin - picture.pts
            if late > _LATE_S and now - given < _STARVED_S:
                continue
            stop.wait(max(0.0, -late))
            given = time.monotonic()
        if stop.is_set():
            return
        yield Frame(picture.image(), index, picture.pts, datetime.now(UTC), still=picture.still)


def _recorded(source: str) -> Generator[Picture, None, None]:
    path = Path(source).expanduser()
    _require(path, source)
    if not path.is_dir():
        alone = path.suffix.lower() in _STILLS
        yield from (Picture(each.pts, each.image, still=alone) for each in video.read_file(path))
        return
    stills = _files(path, _STILLS)
    if not stills:
        raise CameraError(source, "the folder has no still pictures: name one of its videos")
    for number, still in enumerate(stills):
        for picture in video.read_file(still):
            yield Picture(number * _SECONDS_A_STILL, picture.image, still=True)
            break


def _scene(*, loop: bool) -> Generator[Picture, None, None]:
    from facerelay.edge.scene import Scene, SceneError  # noqa: PLC0415 - only where it is played

    try:
        scene = Scene()
    except SceneError as error:
        raise CameraError(SCENE, str(error)) from error
    turn = 0
    while True:
        for number in range(scene.frames):
            yield Picture((turn * scene.frames + number) / scene.fps, _renderer(scene.render, number))
        turn += 1
        if not loop:
            return


def _renderer(render: Callable[[int], Image], number: int) -> Callable[[], Image]:
    return lambda: render(number)


def _require(path: Path, source: str) -> None:
    if not path.exists():
        raise CameraError(source, "there is no such file or folder (a webcam is a number, a stream a URL)")


def _files(folder: Path, endings: set[str]) -> list[Path]:
    """Return what lies in the folder itself: a link could lead to a file that nobody meant to show."""
    return sorted(
        each
        for each in folder.iterdir()
        if each.suffix.lower() in endings
        and not each.name.startswith(".")
        and each.is_file()
        and not each.is_symlink()
    )


def _name_clips(clips: list[Path]) -> list[tuple[str, str]]:
    named: dict[str, str] = {}
    for number, clip in enumerate(clips, 1):
        free = (f"clip-{n}" for n in count(number) if f"clip-{n}" not in named)
        name = _slug(clip.stem, "")
        named[name if name and name not in named else next(free)] = str(clip)
    return list(named.items())


def _slug(name: str, otherwise: str) -> str:
    return name if _SLUG.fullmatch(name) else otherwise
