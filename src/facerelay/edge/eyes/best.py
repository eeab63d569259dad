"""Which pictures of a visit are sent: the best one, the first and the best, or each n-th as it comes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.raster import Box, Image, Raster
from facerelay.edge.eyes.crop import crop_box
from facerelay.edge.eyes.detect import Detection
from facerelay.edge.eyes.quality import Gate, Quality, measure, promise
from facerelay.edge.eyes.track import Sighting, Update

_BETTER_THAN_FIRST: Final = 1.05
_BETTER_AGAIN: Final = 1.15
"""How much better than what was sent a further picture of the same visit has to be."""

_SECOND_LOOK_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A picture of a face that is to be sent.

    Attributes:
        track: the visit's number, unique in the tracker that gave it.
        detection: box and landmarks in pixels of the frame.
        crop: the face with its margin, height x width x 3, BGR; a copy.
        crop_box: x, y, width, height of the crop in the frame, in whole pixels.
        frame_size: width and height of the frame.
        pts: the frame's time on the stream's clock, in seconds.
        time: when the frame arrived, in UTC.
        quality: 0 to 1.
        parts: what the quality is made of, each 0 to 1.
    """

    track: int
    detection: Detection
    crop: Image = field(repr=False)
    crop_box: Box
    frame_size: tuple[int, int]
    pts: float
    time: datetime
    quality: float
    parts: dict[str, float]


class Look(NamedTuple):
    """What was made of one face in one frame.

    Attributes:
        track: its visit.
        detection: where it is.
        quality: how good a picture of it this is; None where it was not measured, since it could not be the
            best, or no more are looked for.
        verdict: `best` so far, `kept` (seen, but no better), `sent` (this very picture is on its way, or its
            visit's is and no other is looked for), or the gate's reason to refuse it.
    """

    track: int
    detection: Detection
    quality: Quality | None
    verdict: str


class Decision(NamedTuple):
    """The pictures that are due, and what was made of each face of the frame."""

    shots: list[Shot]
    looks: list[Look]


class Policy(Protocol):
    """Decides which pictures are sent."""

    def update(self, frame: Frame, tracked: Update) -> Decision:
        """Take a frame with its tracks, and return the pictures that are due."""

    def finish(self, ended: Sequence[int]) -> list[Shot]:
        """Take the tracks that the stream's end ended, and return what is due of them."""


@dataclass(slots=True)
class _Visit:
    """What is known of a visit.

    Attributes:
        best: the best picture that was not sent yet.
        due: when it is to be sent; None while there is none to wait for.
        sent: how good the best one was that was sent; 0 while there is none.
        over: whether no more of them are looked for.
        certain: whether it is a face for sure.
        good: when its last good picture came.
    """

    best: Shot | None = None
    due: float | None = None
    sent: float = 0.0
    over: bool = False
    certain: bool = False
    good: float = -math.inf

    @property
    def bar(self) -> float:
        """How good a picture must be to be worth keeping."""
        if self.best is not None:
            return self.best.quality
        return self.sent * (_BETTER_AGAIN if self.due is None else _BETTER_THAN_FIRST)

    def take(self) -> list[Shot]:
        """Return the picture that is to be sent, if there is one."""
        shot, self.best = self.best, None
        if shot is None:
            return []
        self.sent = max(self.sent, shot.quality)
        return [shot]


class BestShot:
    """One picture per visit: the best, at the visit's end or `wait_s` after its first good picture.

    A face with a score below `sure` must be seen twice within three seconds: a print on a shirt or a shadow
    looks like a face for one frame. It is counted in `gate.refused` as `fleeting` otherwise. A still picture
    has no second look. Of a visit only the crop of the best picture so far is kept.

    Args:
        gate: says what is no usable face, and counts it.
        wait_s: how long after the first good picture the best one is sent.
        margin: around the face, as a share of its size.
        sure: the score from which one look is enough.
        first: send the first good picture at once, and the best one when it is due if it is better by a
            twentieth.
        again: go on looking after that: a picture that is better by 15 % than what was sent is sent as well,
            `wait_s` after the first that was.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        wait_s: float = 2.0,
        margin: float = 0.3,
        sure: float = 0.85,
        first: bool = False,
        again: bool = False,
    ) -> None:
        self._gate, self._wait_s, self._margin, self._sure = gate, wait_s, margin, sure
        self._first, self._again = first, again
        self._visits: dict[int, _Visit] = {}

    def update(self, frame: Frame, tracked: Update) -> Decision:
        """Take a frame with its tracks, and return the pictures that are due."""
        shots, looks = self.finish(tracked.ended), []
        if frame.raster is not None:
            looks = [self._offer(frame, frame.raster, each) for each in tracked.seen]
        for visit in self._visits.values():
            shots += self._due(visit, frame.pts)
        now = {shot.track for shot in shots if shot.pts == frame.pts}
        looks = [each._replace(verdict="sent") if each.track in now else each for each in looks]
        return Decision(shots, looks)

    def finish(self, ended: Sequence[int]) -> list[Shot]:
        """Return the pictures of visits that ended before theirs were due."""
        shots: list[Shot] = []
        for visit in [self._visits.pop(track) for track in ended if track in self._visits]:
            if visit.certain:
                shots += visit.take()
            elif visit.best is not None:
                self._gate.refused["fleeting"] += 1
        return shots

    def _offer(self, frame: Frame, raster: Raster, seen: Sighting) -> Look:
        track, detection, screen, returned = seen
        if returned:
            self._gate.refused["returned"] += 1
        if screen:
            self._gate.refused["screen"] += 1
            return Look(track, detection, None, "screen")
        visit = self._visits.setdefault(track, _Visit())
        if visit.over:
            return Look(track, detection, None, "sent")
        reason = self._gate.refuse(detection, raster.size)
        if reason is not None:
            return Look(track, detection, None, reason)
        vain = visit.certain and promise(detection, raster.size) <= visit.bar
        quality = None if vain else measure(raster, detection)
        reason = self._gate.refuse_smear(quality) if quality is not None else None
        if quality is None or reason is not None:
            return Look(track, detection, quality, reason or "kept")
        twice = frame.pts - visit.good <= _SECOND_LOOK_S
        visit.certain |= frame.still or twice or detection.score >= self._sure
        visit.good = frame.pts
        if quality.total <= visit.bar:
            return Look(track, detection, quality, "kept")
        visit.best = _shoot(frame, raster, self._margin, seen, quality)
        visit.due = frame.pts + self._wait_s if visit.due is None else visit.due
        return Look(track, detection, quality, "best")

    def _due(self, visit: _Visit, pts: float) -> list[Shot]:
        """Return a visit's picture if it is time for it."""
        if visit.due is None or not visit.certain:
            return []
        if pts >= visit.due:
            visit.due, visit.over = None, not self._again
            return visit.take()
        return visit.take() if self._first and not visit.sent else []


class EveryNth:
    """Each `every`-th detection as it comes, good or bad: what a plain detector loop sends."""

    def __init__(self, *, every: int = 1, margin: float = 0.3) -> None:
        self._every, self._margin = every, margin
        self._count = 0

    def update(self, frame: Frame, tracked: Update) -> Decision:
        """Take a frame with its tracks, and return the pictures that are due."""
        shots: list[Shot] = []
        looks: list[Look] = []
        if frame.raster is None:
            return Decision(shots, looks)
        for seen in tracked.seen:
            due, quality = self._count % self._every == 0, measure(frame.raster, seen.detection)
            if due:
                shots.append(_shoot(frame, frame.raster, self._margin, seen, quality))
            looks.append(Look(seen.track, seen.detection, quality, "sent" if due else "kept"))
            self._count += 1
        return Decision(shots, looks)

    def finish(self, ended: Sequence[int]) -> list[Shot]:  # noqa: ARG002 - the protocol's argument
        """Return nothing: nothing is kept."""
        return []


def _shoot(frame: Frame, raster: Raster, margin: float, seen: Sighting, quality: Quality) -> Shot:
    box = crop_box(seen.detection.box, raster.size, margin)
    return Shot(
        track=seen.track, detection=seen.detection, crop=raster.cut(box), crop_box=box,
        frame_size=raster.size, pts=frame.pts, time=frame.time, quality=quality.total, parts=quality.parts,
    )  # fmt: skip
