"""From frames to the faces worth sending: motion gate, search, tracks and policy in a row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.lull import Lull
from facerelay.edge.cameras.raster import Raster
from facerelay.edge.eyes.best import Look, Policy, Shot
from facerelay.edge.eyes.detect import Detection
from facerelay.edge.eyes.motion import Change, Motion
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker, Update
from facerelay.edge.eyes.zones import Zones

_LULL_S: Final = 3.0
"""Nothing has moved for so long: less is decoded until something does."""


@dataclass(slots=True)
class Counters:
    """What a camera has seen so far.

    Attributes:
        frames: that the camera gave, those dropped before anybody saw them included.
        inspected: frames that the detector was shown.
        still: skipped, because nothing had changed; some of them were not even decoded.
        late: skipped, because the camera was behind its time, or frames came faster than is asked for.
        detections: in the frames inspected.
        paused: skipped, because the camera's switch was off.
        outside: those of them that lie in no zone.
        shots: that came of them.
        gaps: how often the camera was gone.
        dark_s: seconds for which it was gone, in all.

    What the gate refused is counted in the gate.
    """

    frames: int = 0
    inspected: int = 0
    still: int = 0
    late: int = 0
    paused: int = 0
    detections: int = 0
    outside: int = 0
    shots: int = 0
    gaps: int = 0
    dark_s: float = 0.0


class Seen(NamedTuple):
    """One frame, what was made of each face in it, what is sent of it, and the visits that ended with it."""

    frame: Frame
    looks: list[Look]
    shots: list[Shot]
    inspected: bool
    ended: Sequence[int] = ()


@dataclass(kw_only=True)
class Eyes:
    """What looks at one camera's frames.

    Attributes:
        search: finds faces.
        tracker: joins them to visits.
        policy: chooses what is sent.
        zones: where faces count, and what is never looked at.
        motion: tells what need not be looked at; None looks at all.
        lull: is told when nothing moves, so that less is decoded.
        max_fps: frames looked at in a second, at most; 0 for all.
        observe: is told of each frame.
        paused: while it is set no frame is looked at, and whoever was seen before has left.
        counters: count.
    """

    search: Search
    tracker: Tracker
    policy: Policy
    zones: Zones = field(default_factory=Zones)
    motion: Motion | None = None
    lull: Lull = field(default_factory=Lull)
    max_fps: float = 0.0
    observe: Callable[[Seen], None] | None = None
    paused: threading.Event = field(default_factory=threading.Event)
    counters: Counters = field(default_factory=Counters)

    _left_out: int = 0
    _dark_since: float | None = None
    _next_index: int = 0
    _next_pts: float = 0.0
    _last: Frame | None = None
    _size: tuple[int, int] | None = None

    def watch(self, frames: Iterable[Frame]) -> Iterator[Shot]:
        """Yield the faces worth sending, as they are due, and at the end of the frames what is left.

        Raises:
            CameraError: what ended the frames; what was left is yielded before, as with any other failure.
        """
        failure: Exception | None = None
        counters = self.counters
        try:
            for frame in frames:
                yield from self._see(frame)
        except Exception as error:  # noqa: BLE001 - raised below, once nobody who was seen is lost
            failure = error
            # The frame that failed was looked at, if not to its end.
            counters.inspected = counters.frames - counters.still - counters.late - counters.paused
        yield from self._finish()
        if failure is not None:
            raise failure

    def _finish(self) -> list[Shot]:
        ended = self.tracker.finish()
        shots = self.policy.finish(ended)
        self.counters.shots += len(shots)
        if shots and self.observe is not None and self._last is not None:
            self.observe(Seen(self._last, [], shots, inspected=False, ended=ended))
        return shots

    def _pass(self, frame: Frame) -> list[Shot]:
        """Take a frame that nobody may look at."""
        self._note(frame, paused=True)
        self._last = replace(frame, raster=None)
        self.lull.on = True
        ended = self.tracker.finish()
        shots = self.policy.finish(ended)
        self.counters.shots += len(shots)
        if ended and self.observe is not None:
            self.observe(Seen(self._last, [], shots, inspected=False, ended=ended))
        return shots

    def _see(self, frame: Frame) -> list[Shot]:
        if self.paused.is_set():
            return self._pass(frame)
        if frame.raster is not None:
            frame = replace(frame, raster=self.zones.masked(frame.raster))
        if not frame.blank and frame.pts < self._next_pts:
            frame = replace(frame, late=True)
        self._note(frame)
        self._last = replace(frame, raster=None)
        update, inspected = self._look(frame)
        shots, looks = self.policy.update(frame, update)
        self.counters.shots += len(shots)
        if self.observe is not None:
            self.observe(Seen(frame, looks, shots, inspected, update.ended))
        return shots

    def _note(self, frame: Frame, *, paused: bool = False) -> None:
        """Count a frame, those that were dropped before it, and how long the camera was gone."""
        counters = self.counters
        if frame.dark and self._dark_since is None:
            counters.gaps += 1
            self._dark_since = frame.pts
        if self._dark_since is not None:
            counters.dark_s += frame.pts - self._dark_since
            self._dark_since = frame.pts if frame.dark else None
        if not frame.blank:
            dropped = max(0, frame.index - self._next_index)
            self._next_index = frame.index + 1
            counters.frames += 1 + dropped
            still = min(dropped, self.lull.left_out - self._left_out) if self.lull.on else 0
            self._left_out = self.lull.left_out
            if paused:
                counters.paused += 1 + dropped
                return
            counters.still += still
            counters.late += dropped - still

    def _look(self, frame: Frame) -> tuple[Update, bool]:
        """Return a frame's detections with their tracks, if it is worth a look, and whether it was."""
        if frame.raster is None:
            return self.tracker.miss(frame.pts), False
        if frame.late:
            self.counters.late += 1
            return Update([], []), False
        moving = None if frame.still else self.motion
        change = Change.SOME if moving is None else moving.see(frame.raster, frame.pts)
        if self._size not in (None, frame.raster.size):
            change = Change.CUT
        self._size = frame.raster.size
        self.lull.on = moving is not None and frame.pts - moving.moved_at >= _LULL_S
        if change is Change.NONE and not self.tracker.coasting:
            self.counters.still += 1
            self.tracker.rest(frame.pts)
            return Update([], []), False
        if self.max_fps:
            step = 1 / self.max_fps
            self._next_pts = max(self._next_pts, frame.pts - step) + step
        found = self._detect(frame.raster)
        ended = self.tracker.finish() if change is Change.CUT else []
        seen, gone = self.tracker.update(
            frame.pts,
            found,
            frame.raster,
            doubt=change is Change.JUMP or frame.still,
            still=frame.still,
        )
        return Update(seen, ended + gone), True

    def _detect(self, raster: Raster) -> list[Detection]:
        """Return the faces in a picture that lie where they count."""
        found = self.search.find(raster)
        counted = [each for each in found if self.zones.hold(each, raster.size)]
        self.counters.inspected += 1
        self.counters.detections += len(found)
        self.counters.outside += len(found) - len(counted)
        return counted
