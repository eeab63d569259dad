"""What is shown of one camera: its newest picture, its counts, and where its faces went."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from facerelay.config import Camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.eyes.best import Look, Shot
from facerelay.edge.eyes.crop import crop_box, encode
from facerelay.edge.eyes.watch import Seen
from facerelay.edge.preview import paint
from facerelay.edge.preview.reel import KEPT, Reel, of_shot, of_visits, shrink
from facerelay.edge.preview.visits import Visit, Visits

STEP_S: Final = 0.1
"""A picture is drawn at most once in so long."""

_MOST_NOTES: Final = 2048
_QUALITY: Final = 80
_MARGIN: Final = 0.3
_LARGER: Final = 1.3

Kind = Literal["inspected", "still", "late", "blank"]


class _Note(NamedTuple):
    """What is told of a frame, without its picture."""

    kind: Kind
    order: int
    pts: float
    time: datetime
    dark: bool
    looks: Sequence[Look]
    sent: tuple[int, ...]


class _View(NamedTuple):
    """The newest frame with a picture, and the faces of the newest one that was looked at."""

    number: int
    frame: Frame
    kind: Kind
    looks: Sequence[Look]
    came: float


class Picture(NamedTuple):
    """A drawn frame as JPEG; two of one `number` are the same."""

    number: int
    jpeg: bytes


@dataclass(slots=True)
class Counts:
    """How many frames came, and what was done with them; see `Counters` of the eyes."""

    frames: int = 0
    inspected: int = 0
    still: int = 0
    late: int = 0
    gaps: int = 0
    faces: int = 0
    without: int = 0


class Panel:
    """One camera's part of the preview.

    `put` is called in the camera's thread and only stores references; all else is called in the
    preview's thread.

    Args:
        camera: whose.
        gap_s: a visit ends when its face was not seen for so long, in seconds.
        faces: takes the faces that are sent.
        visits: takes the visits that end without a face.

    Attributes:
        counts: what has come so far.
        drawn: how many pictures were drawn.
    """

    def __init__(self, camera: Camera, *, gap_s: float, faces: Reel, visits: Reel) -> None:
        self._camera = camera
        self._faces, self._without = faces, visits
        self._visits = Visits(gap_s=gap_s)
        self._notes: deque[_Note] = deque(maxlen=_MOST_NOTES)
        self._shots: deque[Shot] = deque(maxlen=KEPT)
        self._thread: threading.Thread | None = None
        self._view: _View | None = None
        self._looks: Sequence[Look] = ()
        self._number = self._next_index = 0
        self._dark = self._ended = False
        self._picture: Picture | None = None
        self._shown: tuple[int, str] | None = None
        self._drawn_at = 0.0
        self.counts = Counts()
        self.drawn = 0

    def put(self, seen: Seen) -> None:
        """Take what is known of a frame."""
        if self._thread is None:
            self._thread = threading.current_thread()
        frame, kind = seen.frame, _kind(seen)
        self._shots.extend(seen.shots)
        sent = tuple(shot.track for shot in seen.shots)
        self._notes.append(_Note(kind, frame.index, frame.pts, frame.time, frame.dark, seen.looks, sent))
        if kind == "inspected":
            self._looks = seen.looks
        if kind != "blank":
            self._number += 1
            self._view = _View(self._number, frame, kind, self._looks, time.monotonic())

    def follow(self) -> None:
        """Take up what has come since the last time, which is to be called several times a second."""
        ended = self._thread is not None and not self._thread.is_alive()
        view = self._view
        while self._notes:
            self._take(self._notes.popleft())
        if view is not None and view.kind == "inspected":
            self._portray(view)
        while self._shots:
            shot = self._shots.popleft()
            self._faces.add(of_shot(self._camera.name, shot), shrink(shot.crop))
        if ended and not self._ended:
            self._ended = True
            self._close(self._visits.finish())

    def picture(self) -> Picture:
        """Return the newest picture with all that is drawn over it; drawn anew only if it is due."""
        view, words = self._view, self._words()
        shown = (0 if view is None else view.number, words)
        now = time.monotonic()
        if self._picture is not None and (shown == self._shown or now - self._drawn_at < STEP_S):
            return self._picture
        image = paint.blank()
        if view is not None and view.frame.raster is not None:
            passed_over = "" if words or view.kind == "inspected" else view.kind
            image = paint.paint(
                view.frame.raster, view.looks, zones=self._camera.zones, masks=self._camera.masks,
                passed_over=passed_over,
            )  # fmt: skip
        if words:
            image = paint.veil(image, words)
        self.drawn += 1
        self._shown, self._drawn_at = shown, now
        self._picture = Picture(self.drawn, encode(image, quality=_QUALITY, max_side=paint.SIDE))
        return self._picture

    def state(self) -> dict[str, Any]:
        """Return what the page says of the camera, for JSON."""
        counts, view = self.counts, self._view
        return {
            "name": self._camera.name, "state": self._state(), "words": self._words(),
            "size": [0, 0] if view is None else list(view.frame.size),
            "frames": counts.frames, "inspected": counts.inspected, "still": counts.still,
            "late": counts.late, "gaps": counts.gaps, "faces": counts.faces, "without": counts.without,
        }  # fmt: skip

    def _state(self) -> str:
        if self._ended:
            return "ended"
        if self._view is None:
            return "waiting"
        return "dark" if self._dark else "live"

    def _words(self) -> str:
        """Return what is wrong, if something is."""
        state = self._state()
        if state == "dark" and self._view is not None:
            return f"no picture since {time.monotonic() - self._view.came:.0f} s"
        return {"ended": "the camera has ended", "waiting": "no picture yet"}.get(state, "")

    def _take(self, note: _Note) -> None:
        counts = self.counts
        counts.gaps += note.dark and not self._dark
        self._dark = note.dark
        counts.faces += len(note.sent)
        self._visits.send(note.sent)
        if note.kind == "blank":
            self._close(self._visits.miss(note.pts))
            return
        dropped = max(0, note.order - self._next_index)
        self._next_index = note.order + 1
        counts.frames += 1 + dropped
        counts.late += dropped + (note.kind == "late")
        counts.still += note.kind == "still"
        if note.kind == "inspected":
            counts.inspected += 1
            self._close(self._visits.look(note.pts, note.time, note.looks))
        elif note.kind == "still":
            self._visits.rest(note.pts)

    def _close(self, visits: list[Visit]) -> None:
        self.counts.without += len(visits)
        for known, picture in of_visits(self._camera.name, visits):
            self._without.add(known, picture)

    def _portray(self, view: _View) -> None:
        """Keep a small picture of each visit of which none was sent yet: it may end without a face."""
        raster = view.frame.raster
        if raster is None:
            return
        for look in view.looks:
            visit, box = self._visits.get(look.track), look.detection.box
            if visit is not None and not visit.sent and box[2] * box[3] > _LARGER * visit.area:
                visit.picture = shrink(raster.cut(crop_box(box, raster.size, _MARGIN)))
                visit.area = box[2] * box[3]


def _kind(seen: Seen) -> Kind:
    if seen.frame.blank:
        return "blank"
    if seen.inspected:
        return "inspected"
    return "late" if seen.frame.late else "still"
