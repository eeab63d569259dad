"""Which pictures of a visit are sent: the best one, or each n-th as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from facerelay.edge.camera import Frame
from facerelay.edge.crop import Box, crop_box, cut
from facerelay.edge.detect import Detection, Image
from facerelay.edge.quality import Gate, Quality, measure
from facerelay.edge.track import Update


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


class Policy(Protocol):
    """Decides which pictures are sent."""

    def update(self, frame: Frame, tracked: Update) -> list[Shot]:
        """Take a frame with its tracks, and return the pictures that are due."""

    def finish(self, ended: Sequence[int]) -> list[Shot]:
        """Take the tracks that the stream's end ended, and return what is due of them."""


@dataclass(slots=True)
class _Visit:
    since: float | None = None
    best: Shot | None = None
    good: int = 0
    certain: bool = False
    sent: bool = False


class BestShot:
    """One picture per visit: the best, at the visit's end or `wait_s` after its first good picture.

    A face with a score below `sure` must be seen twice: a print on a shirt or a shadow looks like a face
    for one frame. It is counted in `gate.refused` as `fleeting` otherwise. A still picture has no
    second look. Of a visit only the crop of the best picture so far is kept.
    """

    def __init__(self, *, gate: Gate, wait_s: float = 2.0, margin: float = 0.3, sure: float = 0.85) -> None:
        self._gate, self._wait_s, self._margin, self._sure = gate, wait_s, margin, sure
        self._visits: dict[int, _Visit] = {}

    def update(self, frame: Frame, tracked: Update) -> list[Shot]:
        """Take a frame with its tracks, and return the pictures that are due."""
        shots = self.finish(tracked.ended)
        for track, detection in tracked.seen:
            self._offer(frame, track, detection)
        for visit in self._visits.values():
            if visit.since is not None and frame.pts - visit.since >= self._wait_s:
                shots += _send(visit)
        return shots

    def finish(self, ended: Sequence[int]) -> list[Shot]:
        """Return the pictures of visits that ended before theirs were due."""
        shots: list[Shot] = []
        for track in ended:
            visit = self._visits.pop(track)
            if visit.best is not None and not visit.certain:
                self._gate.refused["fleeting"] += 1
            shots += _send(visit)
        return shots

    def _offer(self, frame: Frame, track: int, detection: Detection) -> None:
        visit = self._visits.setdefault(track, _Visit())
        size = frame.image.shape[1], frame.image.shape[0]
        if visit.sent or not self._gate.passes(detection, size):
            return
        if visit.since is None:
            visit.since = frame.pts
        visit.good += 1
        visit.certain |= frame.still or visit.good > 1 or detection.score >= self._sure
        quality = measure(frame.image, detection)
        if visit.best is None or quality.total > visit.best.quality:
            visit.best = _shoot(frame, track, detection, quality, self._margin)


class EveryNth:
    """Each `every`-th detection as it comes, good or bad: what a plain detector loop sends."""

    def __init__(self, *, every: int = 1, margin: float = 0.3) -> None:
        self._every, self._margin = every, margin
        self._count = 0

    def update(self, frame: Frame, tracked: Update) -> list[Shot]:
        """Take a frame with its tracks, and return the pictures that are due."""
        shots = []
        for track, detection in tracked.seen:
            if self._count % self._every == 0:
                quality = measure(frame.image, detection)
                shots.append(_shoot(frame, track, detection, quality, self._margin))
            self._count += 1
        return shots

    def finish(self, ended: Sequence[int]) -> list[Shot]:  # noqa: ARG002 - the protocol's argument
        """Return nothing: nothing is kept."""
        return []


def _send(visit: _Visit) -> list[Shot]:
    if visit.sent or visit.best is None or not visit.certain:
        return []
    shot, visit.best, visit.sent = visit.best, None, True
    return [shot]


def _shoot(frame: Frame, track: int, detection: Detection, quality: Quality, margin: float) -> Shot:
    size = frame.image.shape[1], frame.image.shape[0]
    box = crop_box(detection.box, size, margin)
    return Shot(
        track=track, detection=detection, crop=cut(frame.image, box), crop_box=box, frame_size=size,
        pts=frame.pts, time=frame.time, quality=quality.total, parts=quality.parts,
    )  # fmt: skip
