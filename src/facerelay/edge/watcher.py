"""One camera's thread: frames in, faces into the outbox."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from facerelay import face
from facerelay.config import Camera, Config
from facerelay.edge.best import BestShot, EveryNth, Policy, Shot
from facerelay.edge.camera import CameraError, Frame, open_camera
from facerelay.edge.clock import clock_state
from facerelay.edge.crop import encode
from facerelay.edge.detect import Detector, Image
from facerelay.edge.eyes import Counters, watch
from facerelay.edge.outbox import Outbox
from facerelay.edge.quality import Gate
from facerelay.edge.schema import OutboxError
from facerelay.edge.track import Tracker
from facerelay.sections import PictureFormat

log = logging.getLogger(__name__)

_COUNT_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_SHRINK: Final = 0.75
_LEAST_SIDE: Final = 16


class Watcher(threading.Thread):
    """Watches one camera until its end, or until `stop` is set; keeps its faces in the outbox.

    Args:
        camera: which.
        config: how to look, what to keep.
        detector: shared by all cameras.
        outbox: where faces are captured.
        stop: set it to end.
        turn: held while frames are taken: limits how many recordings play at once.
        loop: play the built-in scene again and again.

    Attributes:
        failure: why the camera could not be opened, or its faces not be kept; None if all went well.
    """

    def __init__(
        self,
        camera: Camera,
        *,
        config: Config,
        detector: Detector,
        outbox: Outbox,
        stop: threading.Event,
        turn: AbstractContextManager[object] | None = None,
        loop: bool = False,
    ) -> None:
        super().__init__(name=f"camera {camera.name}", daemon=True)
        self._camera = camera
        self._config = config
        self._detector = detector
        self._outbox = outbox
        self._stop_event = stop
        self._turn = turn or nullcontext()
        self._loop = loop
        self._gate = Gate(min_eyes=config.visits.min_eyes)
        self._counters = Counters()
        self._counted: dict[str, int] = {}
        self._now = self._next_count = 0.0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Watch; a failure is logged, kept, and ends this camera alone."""
        try:
            with self._turn:
                self._watch()
            if not self._stop_event.is_set():
                log.info("camera %s: ended after %d frames", self._camera.name, self._counters.frames)
        except (CameraError, OutboxError, OSError) as error:
            self.failure = error
            log.error("camera %s: %s", self._camera.name, error)  # noqa: TRY400 - the message is for a user
        except Exception as error:
            self.failure = error
            log.exception("camera %s ended by a fault of ours", self._camera.name)
        finally:
            self._count()

    def _watch(self) -> None:
        shots = watch(
            self._frames(),
            detector=self._detector,
            tracker=Tracker(gap_s=self._config.visits.gap_s),
            policy=self._policy(),
            counters=self._counters,
        )
        for shot in shots:
            self._keep(shot)

    def _policy(self) -> Policy:
        visits, margin = self._config.visits, self._config.picture.margin
        if visits.policy == "every":
            return EveryNth(every=visits.every, margin=margin)
        return BestShot(gate=self._gate, wait_s=visits.wait_s, margin=margin)

    def _frames(self) -> Iterator[Frame]:
        camera = self._camera
        for frame in open_camera(camera.source, pace=camera.pace, stop=self._stop_event, loop=self._loop):
            self._now = frame.time.timestamp()
            yield frame
            if time.monotonic() >= self._next_count:
                self._next_count = time.monotonic() + _COUNT_EVERY_S
                self._count()

    def _count(self) -> None:
        """Write down how far the counters have come since the last time."""
        now = {"frames": self._counters.frames, "detections": self._counters.detections}
        now |= {f"gate:{reason}": n for reason, n in self._gate.refused.items()}
        more = {name: n - self._counted.get(name, 0) for name, n in now.items()}
        self._counted = now
        if any(more.values()):
            self._outbox.count(self._config.site, self._camera.name, **more)

    def _keep(self, shot: Shot) -> None:
        """Capture a face: it is in the outbox, on disk, when this returns; a full disk is waited for."""
        known = face.Face(
            id=face.new_id(),
            outbox=self._outbox.id,
            run=self._outbox.run,
            seq=self._outbox.number(),
            site=self._config.site,
            camera=self._camera.name,
            time=shot.time,
            box=_whole(shot.detection.box, shot.frame_size),
            frame=shot.frame_size,
            score=min(1.0, max(0.0, shot.detection.score)),
            quality=shot.quality,
            parts=shot.parts,
            track=shot.track,
            clock=clock_state(),
        )
        form, most = self._config.picture, self._outbox.max_message
        sealed = encode_face(known, shot.crop, form=form, most=most)
        chosen, pause = self._now, _FIRST_PAUSE_S
        while True:
            try:
                return self._outbox.put(sealed, chosen=chosen).result()
            except sqlite3.OperationalError as error:
                log.error("the outbox does not take a face: %s: see that its disk has room", error)  # noqa: TRY400 - the message is for a user
                if self._stop_event.wait(pause):
                    raise OutboxError(f"{self._outbox.path}: {error}") from error
                pause = min(2 * pause, _LONGEST_PAUSE_S)


def encode_face(known: face.Face, image: Image, *, form: PictureFormat, most: int) -> face.Sealed:
    """Encode a crop as the settings say, smaller if it must be, and freeze it in at most `most` bytes."""
    side = form.max_side
    while True:
        encoded = encode(image, format=form.format, quality=form.quality, grey=form.grey, max_side=side)
        sealed = face.seal(known, encoded)
        if len(sealed.data) <= most or side < _LEAST_SIDE:
            return sealed
        side = int(min(side, max(image.shape[:2])) * _SHRINK)


def _whole(box: tuple[float, float, float, float], frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box in whole pixels, cut off where it leaves the frame."""
    left, top = (min(max(0, round(at)), side) for at, side in zip(box[:2], frame, strict=True))
    right = min(max(left, round(box[0] + box[2])), frame[0])
    bottom = min(max(top, round(box[1] + box[3])), frame[1])
    return left, top, right - left, bottom - top
