"""From frames to the faces worth sending: detector, tracker and policy in a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from facerelay.edge.best import Policy, Shot
from facerelay.edge.camera import CameraError, Frame
from facerelay.edge.detect import Detector
from facerelay.edge.track import Tracker, Update


@dataclass(slots=True)
class Counters:
    """What a camera has seen so far: `frames` looked at, `detections` in them, `shots` that came of them.

    What the gate refused is counted in the gate.
    """

    frames: int = 0
    detections: int = 0
    shots: int = 0


def watch(
    frames: Iterable[Frame], *, detector: Detector, tracker: Tracker, policy: Policy, counters: Counters
) -> Iterator[Shot]:
    """Yield the faces worth sending, as they are due, and at the end of the frames what is left.

    Raises:
        CameraError: what ended the frames; what was left is yielded before.
    """
    failure: CameraError | None = None
    try:
        for frame in frames:
            shots = policy.update(frame, _look(frame, detector, tracker, counters))
            counters.shots += len(shots)
            yield from shots
    except CameraError as error:
        failure = error
    shots = policy.finish(tracker.finish())
    counters.shots += len(shots)
    yield from shots
    if failure is not None:
        raise failure


def _look(frame: Frame, detector: Detector, tracker: Tracker, counters: Counters) -> Update:
    """Return a frame's detections with their tracks; of a blank frame only the tracks that ended."""
    if frame.blank:
        return tracker.update(frame.pts, [])
    detections = detector.detect(frame.image)
    counters.frames += 1
    counters.detections += len(detections)
    size = frame.image.shape[1], frame.image.shape[0]
    return tracker.update(frame.pts, detections, size)
