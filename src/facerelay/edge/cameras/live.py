"""A live source: read by a thread of its own, opened again when it fails, always at its newest frame."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Self

import av

from facerelay.edge.cameras.health import STALL_S, Freeze, Journal, Patience
from facerelay.edge.cameras.lull import Lull
from facerelay.edge.cameras.opening import Container, describe, lends, reason_of
from facerelay.edge.cameras.stream import Stream
from facerelay.edge.cameras.video import Picture, converter, copied

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 3.0
SILENT_S: Final = 1.0
"""After so long without a picture comes one without an image."""

OPENING_S: Final = 30.0
"""An opening that has not ended by then hangs: its own time limits are shorter."""

MOST_HANGING: Final = 3
"""Threads whose read hangs, at most: with so many, nothing more is tried until one of them wakes."""

_LOOK_S: Final = 0.2
_JOIN_S: Final = 1.0


class Live:
    """The newest picture of a live source, and its number, until `stop` is set.

    While nothing comes, it yields a blank one about each second, so that what waits for time to pass can go
    on; it is dark while the source is taken to be gone. The reader decodes all that comes, so that nothing
    old gathers in the network; a picture is turned into BGR only when it is taken.

    A source that fails, hangs, ends or stands still is opened again, after pauses from half a second to three
    seconds. A read that hangs is given up: its thread closes what it holds when it wakes.

    Args:
        source: for the log.
        open_: opens it.
        stop: set it to end.
        freeze_s: a source whose picture did not change at all for so long is opened again; 0: never.
        lull: says which frames need not be decoded.
    """

    def __init__(
        self,
        source: str,
        open_: Callable[[], Container],
        stop: threading.Event,
        *,
        freeze_s: float = 60.0,
        lull: Lull | None = None,
    ) -> None:
        self._source, self._open, self._stop = source, open_, stop
        self._lull = lull or Lull()
        self._begin = time.monotonic()
        self._changed = threading.Condition()
        self._newest: tuple[int, Picture] | None = None
        self._count = 0
        self._journal, self._patience, self._freeze = Journal(source), Patience(), Freeze(freeze_s)
        self._reader: _Reader | None = None
        self._hanging: list[_Reader] = []
        self._pause, self._next = FIRST_PAUSE_S, 0.0

    def __enter__(self) -> Self:
        self._try(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.gone.set()
            # A read that hangs ends at its own timeout; nobody needs to wait for it.
            reader.join(_JOIN_S)

    def __iter__(self) -> Iterator[tuple[int, Picture]]:
        index, pts, blank_at = 0, 0.0, self._begin + SILENT_S
        while True:
            newest = self._take()
            if self._stop.is_set():
                return
            now = time.monotonic()
            self._tend(now)
            if newest is None and now >= blank_at:
                newest = index, Picture(now - self._begin, _nothing, dark=self._is_dark(now))
            if newest is not None:
                index, pts, blank_at = newest[0], max(pts, newest[1].pts), now + SILENT_S
                yield index, replace(newest[1], pts=pts)

    def post(self, reader: _Reader, frame: av.VideoFrame, at: float, passed: int) -> None:
        """Take a reader's frame of a time, before which so many passed, itself included."""
        take = copied if reader.lent else converter
        picture = Picture(at - self._begin, take(frame, self._source))
        with self._changed:
            if reader is not self._reader:
                return
            self._count += passed
            self._newest = (self._count - 1, picture)
            self._changed.notify()
        self._journal.flows(reader.what, (frame.width, frame.height))

    def wake(self) -> None:
        """Have the end of a reader seen at once."""
        with self._changed:
            self._changed.notify()

    def _take(self) -> tuple[int, Picture] | None:
        def told() -> bool:
            return self._newest is not None or (self._reader is not None and bool(self._reader.end))

        with self._changed:
            self._changed.wait_for(told, _LOOK_S)
            newest, self._newest = self._newest, None
        return newest

    def _is_dark(self, now: float) -> bool:
        never = not self._count and now - self._begin >= STALL_S
        return never or self._journal.gone

    def _tend(self, now: float) -> None:
        """See to the reader: whether it has ended or hangs, and whether it is time for another."""
        reader = self._reader
        if reader is None:
            if now >= self._next:
                self._try(now)
        elif reader.end:
            self._end(reader, reader.end, now)
        else:
            silent = now - reader.heard
            most = self._patience.seconds(reader.pictures, now) if reader.what else OPENING_S
            if silent > most:
                self._hanging.append(reader)
                self._end(reader, f"nothing came for {silent:.0f} s", now, silent=silent)

    def _try(self, now: float) -> None:
        self._hanging = [each for each in self._hanging if each.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            return
        self._freeze.open(now)
        self._reader = _Reader(
            self, self._source, self._open, freeze=self._freeze, patience=self._patience, lull=self._lull
        )
        self._reader.start()

    def _end(self, reader: _Reader, reason: str, now: float, *, silent: float = 0.0) -> None:
        """Let a reader go, and set the time of the next attempt."""
        reader.gone.set()
        self._patience.doubt(silent if reader.pictures else 0.0, now)
        with self._changed:
            self._reader = None
        self._journal.lost(reason)
        self._pause = FIRST_PAUSE_S if reader.pictures else min(LONGEST_PAUSE_S, 2 * self._pause)
        # An attempt that took long is a part of its pause.
        pause = self._pause * random.uniform(0.5, 1) - (now - reader.begun)  # noqa: S311 - not a secret
        self._next = now + max(min(self._pause, FIRST_PAUSE_S), pause)


class _Reader(threading.Thread):
    """Opens a source once, and reads it until it ends or nobody wants it any more.

    Attributes:
        gone: set when it is given up.
        begun: when it began to open, monotonic seconds.
        heard: its last sign of life.
        what: what it has opened; empty before.
        lent: its frames lie in memory that closing takes away.
        pictures: so many came.
        end: why it ended; empty before.
    """

    def __init__(
        self,
        live: Live,
        source: str,
        open_: Callable[[], Container],
        *,
        freeze: Freeze,
        patience: Patience,
        lull: Lull,
    ) -> None:
        super().__init__(name="camera", daemon=True)
        self._live, self._source, self._open = live, source, open_
        self._freeze, self._patience, self._lull = freeze, patience, lull
        self.gone = threading.Event()
        self.begun = self.heard = time.monotonic()
        self.what = self.end = ""
        self.lent = False
        self.pictures = 0

    def run(self) -> None:
        """Read; whatever the camera sends, this ends with a reason."""
        try:
            with self._open() as container:
                end = self._read_safely(container)
        except Exception as error:  # noqa: BLE001 - whatever a camera sends, it is tried again
            end = reason_of(error)
        self.end = end
        self._live.wake()

    def _read_safely(self, container: Container) -> str:
        try:
            return self._read(container)
        except Exception as error:  # noqa: BLE001 - as above; here its traceback lets go of the last frame
            return reason_of(error)

    def _read(self, container: Container) -> str:
        """Give pictures until they end or nobody wants them, and return why."""
        self.heard = time.monotonic()
        self.what, self.lent = describe(container), lends(container)
        stream, passed = Stream(container, self._source, self._lull), 0
        for frame, at in stream:
            if self.gone.is_set():
                return "given up"
            now = time.monotonic()
            if self.pictures:
                self._patience.note(now - self.heard, now)
            else:
                self._patience.opened(now)
            self.heard, self.pictures = now, self.pictures + 1
            self._live.post(self, frame, at, stream.passed - passed)
            passed = stream.passed
            frozen = self._freeze.seconds(frame, now)
            if frozen:
                return f"the picture did not change for {frozen:.0f} s"
        return "the stream ended"


def _nothing() -> None:
    """Return the raster of a picture that did not come."""
