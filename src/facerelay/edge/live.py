"""A live source: read by a thread of its own, opened again when it fails, always at its newest frame."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

import av.error

from facerelay.edge import video
from facerelay.edge.opening import CameraError, Container, reason_of, redact
from facerelay.edge.video import Picture

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
SILENT_S: Final = 1.0
"""After so long without a picture comes one without an image."""

_LOOK_S: Final = 0.2
_JOIN_S: Final = 1.0

_log = logging.getLogger(__name__)


class Live:
    """The newest picture of a live source, and its number, until `stop` is set.

    While nothing comes after the first picture, it yields one without an image once in a while, so that
    what waits for time to pass can go on. The reader decodes all that comes, so that nothing old gathers
    in the network; a picture is turned into BGR only when it is taken. Its pauses double from one second
    to thirty.
    """

    def __init__(self, source: str, open_: Callable[[], Container], stop: threading.Event) -> None:
        self._source, self._open, self._stop = source, open_, stop
        self._done = threading.Event()
        self._changed = threading.Condition()
        self._newest: tuple[int, Picture] | None = None
        self._count = 0
        self._begin = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        # A read that hangs ends at its own timeout; nobody needs to wait for it.
        self._thread.join(_JOIN_S)

    def __iter__(self) -> Iterator[tuple[int, Picture]]:
        index, silent_at = 0, math.inf
        while not self._ended():
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None, _LOOK_S)
                newest, self._newest = self._newest, None
            now = time.monotonic()
            if newest is None and now >= silent_at:
                newest = index, Picture(now - self._begin, lambda: video.NO_IMAGE)
            if newest is not None:
                index, silent_at = newest[0], now + SILENT_S
                yield newest

    def _ended(self) -> bool:
        return self._stop.is_set() or self._done.is_set()

    def _read(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._ended():
            before = self._count
            reason = self._read_once()
            if self._ended():
                return
            pause = FIRST_PAUSE_S if self._count > before else pause
            _log.warning("camera %s: %s; trying again in %.0f s", redact(self._source), reason, pause)
            self._wait(pause)
            pause = min(LONGEST_PAUSE_S, 2 * pause)

    def _read_once(self) -> str:
        """Read until the source fails or ends, and return why."""
        try:
            with self._open() as container:
                for picture in video.arriving(container, self._source, self._begin):
                    with self._changed:
                        self._newest = (self._count, picture)
                        self._count += 1
                        self._changed.notify()
                    if self._ended():
                        break
        except (av.error.FFmpegError, OSError, CameraError) as error:
            return reason_of(error)
        except Exception as error:  # noqa: BLE001 - a camera's thread must live, whatever the camera sends
            return reason_of(error)
        return "the stream ended"

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._ended() and time.monotonic() < until:
            self._stop.wait(min(_LOOK_S, seconds))
