"""Frames of a camera: webcam, file, folder or sequence of pictures, stream or recording, built-in scene.

`expand` turns a source as a user writes it into cameras; `open_camera` gives the frames of one. Pictures that
come by MQTT are handed to `posted`.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

from facerelay.edge.cameras import hls, posted, recorded
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.live import Live
from facerelay.edge.cameras.lull import Lull
from facerelay.edge.cameras.opening import CameraError, Container, live_opener, redact, split_url
from facerelay.edge.cameras.raster import Image, Pixels, Raster
from facerelay.edge.cameras.video import Picture

__all__ = ["SCENE", "CameraError", "Frame", "expand", "open_camera", "redact"]

SCENE: Final = "scene"
"""The name of the built-in scene."""

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LATE_S: Final = 0.1
_STARVED_S: Final = 0.5

_log = logging.getLogger(__name__)


def expand(source: str) -> list[tuple[str, str]]:
    """Return the cameras in a source, as pairs of a name and a source for `open_camera`.

    Each video in a folder is a camera, named after its file where that is a slug, else `clip-<n>`.
    A folder that has only still pictures is one camera. Anything else is one camera, as it is; what
    `mqtt:` with a `+` brings is known only when it comes.

    Raises:
        CameraError: a folder without any picture or video, nothing of that name, a URL that is none, a
            pattern or a topic that cannot be taken.
    """
    if source == SCENE:
        return [(SCENE, source)]
    if source.isdecimal():
        return [(f"webcam-{int(source)}", source)]
    if posted.is_topic(source):
        return [(_slug(posted.plain_name(posted.topic_of(source)), "posted"), source)]
    if "://" in source:
        split_url(source)
        # What is redacted has no host where a part of the password would be taken for it.
        return [(_slug(split_url(redact(source)).hostname or "", "camera"), source)]
    if recorded.is_sequence(source):
        return [(_slug(recorded.sequence(source).before.rstrip("-_. ").lower(), "pictures"), source)]
    return _expand_path(source)


def _expand_path(source: str) -> list[tuple[str, str]]:
    path = Path(source).expanduser()
    if not path.is_dir():
        recorded.require(path, source)
        return [(_slug(path.stem, "clip-1"), str(path))]
    clips = recorded.files_in(path, recorded.VIDEOS)
    if clips:
        return _name_clips(clips)
    if recorded.files_in(path, recorded.STILLS):
        return [(_slug(path.resolve().name, "pictures"), str(path))]
    raise CameraError(source, "the folder has neither videos nor pictures: name another one")


def open_camera(
    source: str,
    *,
    pace: bool,
    stop: threading.Event,
    loop: bool = False,
    fps: float = 25.0,
    transport: str = "auto",
    freeze_s: float = 60.0,
    lull: Lull | None = None,
) -> Generator[Frame, None, None]:
    """Yield the frames of one camera until its end or until `stop` is set.

    A live source (webcam, URL) gives its newest frame, never a queue of old ones, and is opened again,
    with growing pauses, whenever it fails; while it is silent, a blank frame comes each second or so.
    A file ends at its end, and so does a URL that turns out to be a recording.

    Args:
        source: a webcam's number, a file, a folder of still pictures, a pattern of numbered ones
            (`shots/frame-%05d.jpg`), an rtsp(s):// or http(s):// URL, or `scene`.
        pace: play recordings and the scene in real time, leaving out what comes too late; else every frame
            as fast as it is taken.
        stop: set it to end; the generator looks at it several times a second.
        loop: play the built-in scene again and again; other sources pay no heed to it.
        fps: pictures a second of a numbered sequence.
        transport: of RTSP; see `live_opener`.
        freeze_s: see `Live`.
        lull: says which frames need not be decoded; their numbers are left out.

    Raises:
        CameraError: at the first frame, when the source cannot be opened at all; at the end of what came,
            when a recording breaks off.
    """
    lull = lull or Lull()
    if source == SCENE:
        yield from _play(_scene(loop=loop), lull, pace=pace, stop=stop)
    elif posted.is_topic(source):
        raise CameraError(source, "pictures that come by MQTT are taken by the capture role alone")
    elif source.isdecimal() or "://" in source:
        yield from _from_afar(source, pace=pace, stop=stop, transport=transport, freeze_s=freeze_s, lull=lull)
    elif recorded.is_sequence(source):
        yield from _play(recorded.play_sequence(source, fps), lull, pace=pace, stop=stop)
    else:
        yield from _play(recorded.play_path(source, lull), lull, pace=pace, stop=stop)


def _from_afar(
    source: str, *, pace: bool, stop: threading.Event, transport: str, freeze_s: float, lull: Lull
) -> Generator[Frame, None, None]:
    """Watch a live source; what turns out to be a recording is played instead."""
    opener = _Opener(source, transport, stop)
    begin = 0.0
    for frame in _watch(source, opener, freeze_s, lull):
        begin = frame.pts
        yield frame
    if opener.recording is not None and not stop.is_set():
        yield from _play(opener.recording, lull, pace=pace, stop=stop, begin=begin)


class _Opener:
    """Opens a source for `Live`, until it turns out to be a recording: then `done` ends that watch.

    Attributes:
        done: set by `stop`, or by a recording.
        recording: its pictures.

    Raises:
        CameraError: see `live_opener`.
    """

    def __init__(self, source: str, transport: str, stop: threading.Event) -> None:
        self._source, self._stop = source, stop
        self._is_playlist = not source.isdecimal() and hls.is_playlist(source)
        self._open = live_opener(source, transport=transport)
        self._may_end = not source.isdecimal() and split_url(source).scheme.lower() in {"http", "https"}
        self._lives = False
        self.done = _Either(stop)
        self.recording: Iterable[Picture] | None = None

    def __call__(self) -> Container:
        """Open it.

        Raises:
            CameraError: it cannot be opened, or is a recording.
        """
        if self._is_playlist:
            stream = hls.Stream(self._source, stop=self._stop)
            if not stream.ended:
                self._lives = True
                return stream.live()
            pictures: Iterable[Picture] = stream.pictures()
        else:
            container = self._open()
            if not self._may_end or not recorded.has_an_end(container):
                self._lives = True
                return container
            pictures = recorded.play_container(container, self._source)
        if self._lives:
            # It is not played from its beginning: what was seen live would be seen twice.
            raise CameraError(self._source, "the stream has ended")
        self.recording = pictures
        self.done.set()
        raise CameraError(self._source, "it is a recording")


class _Either(threading.Event):
    """An event that is set as well where another one is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """Whether either is set."""
        return super().is_set() or self._other.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the other one: this one is set only by who does not wait."""
        return self._other.wait(timeout) or super().is_set()


def _watch(source: str, opener: _Opener, freeze_s: float, lull: Lull) -> Generator[Frame, None, None]:
    pts, failed = 0.0, False
    with Live(source, opener, opener.done, freeze_s=freeze_s, lull=lull) as live:
        for index, picture in live:
            pts = max(pts, picture.pts)
            try:
                raster = picture.raster()
            except CameraError as error:
                # The next one may be better; what fails at each frame is told but once.
                if not failed:
                    _log.warning("%s; such pictures are left out", error)
                raster, failed = None, True
            yield Frame(raster=raster, index=index, pts=pts, time=datetime.now(UTC), dark=picture.dark)


def _play(
    pictures: Iterable[Picture], lull: Lull, *, pace: bool, stop: threading.Event, begin: float = 0.0
) -> Generator[Frame, None, None]:
    """Yield recorded pictures, at their own time if `pace`; the stream's clock starts at `begin`."""
    zero: float | None = None
    given, behind = 0.0, False
    for index, picture in enumerate(pictures):
        if pace:
            now = time.monotonic()
            zero = now - picture.pts if zero is None else zero
            late = now - zero - picture.pts
            behind = late > _LATE_S and now - given < _STARVED_S
            lull.late_s = late
            stop.wait(max(0.0, -late))
            given = given if behind else time.monotonic()
        if stop.is_set():
            return
        yield Frame(
            raster=picture.raster(), index=index + lull.left_out, pts=begin + picture.pts,
            time=datetime.now(UTC), still=picture.still, late=behind,
        )  # fmt: skip


def _scene(*, loop: bool) -> Generator[Picture, None, None]:
    from facerelay.edge.cameras.scene import Scene, SceneError  # noqa: PLC0415 - only where it is played

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


def _renderer(render: Callable[[int], Image], number: int) -> Callable[[], Raster]:
    return lambda: Pixels(render(number))


def _name_clips(clips: list[Path]) -> list[tuple[str, str]]:
    named: dict[str, str] = {}
    for number, clip in enumerate(clips, 1):
        free = (f"clip-{n}" for n in count(number) if f"clip-{n}" not in named)
        name = _slug(clip.stem, "")
        named[name if name and name not in named else next(free)] = str(clip)
    return list(named.items())


def _slug(name: str, otherwise: str) -> str:
    return name if _SLUG.fullmatch(name) else otherwise
