"""One camera's thread: frames in, faces into the outbox."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Final

from facerelay import face
from facerelay.config import Camera, Config
from facerelay.edge import reading
from facerelay.edge.cameras.camera import CameraError, open_camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.posted import Mailbox
from facerelay.edge.cameras.raster import Image
from facerelay.edge.clock import clock_state
from facerelay.edge.eyes.best import BestShot, EveryNth, Policy, Shot
from facerelay.edge.eyes.crop import align, room_to_turn
from facerelay.edge.eyes.detect import Detection, Detector
from facerelay.edge.eyes.freeze import Seal, encode_face
from facerelay.edge.eyes.motion import Motion
from facerelay.edge.eyes.quality import Gate
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.eyes.watch import Eyes, Seen
from facerelay.edge.eyes.zones import Zones
from facerelay.edge.home.witness import Witness
from facerelay.edge.outbox import Outbox
from facerelay.edge.schema import OutboxError
from facerelay.edge.thrift import Thrift
from facerelay.seldom import Seldom
from facerelay.tracing import OFF, Tracer, born

log = logging.getLogger(__name__)
_disk = Seldom(log, every_s=60.0)

_COUNT_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0


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
        observe: is told of each frame, in this thread.
        mailbox: where its pictures come by MQTT; None opens the camera's source.
        witness: is told of frames and faces, and may have the camera paused.
        thrift: knows how small pictures are to be on a thin line; None leaves them as they are.
        trace: is told of each face that is captured.
        seal: encrypts pictures before they are kept; None leaves them open.

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
        observe: Callable[[Seen], None] | None = None,
        mailbox: Mailbox | None = None,
        witness: Witness | None = None,
        thrift: Thrift | None = None,
        trace: Tracer = OFF,
        seal: Seal | None = None,
    ) -> None:
        super().__init__(name=f"camera {camera.name}", daemon=True)
        self._camera = camera
        self._config = config
        self._detector = detector
        self._outbox = outbox
        self._stop_event = stop
        self._turn = turn or nullcontext()
        self._loop = loop
        self._mailbox = mailbox
        self._witness = witness
        self._thrift = thrift or Thrift()
        self._trace = trace
        self._seal = seal
        self._gate = Gate(min_eyes=config.visits.min_eyes, min_sharpness=config.visits.min_sharpness)
        visits, detect = config.visits, config.detect
        self._eyes = Eyes(
            search=Search(detector, tiles=detect.tiles),
            tracker=Tracker(gap_s=visits.gap_s, rest_s=visits.rest_s),
            policy=self._policy(),
            zones=Zones(zones=camera.zones, masks=camera.masks),
            motion=Motion() if detect.motion else None,
            max_fps=detect.max_fps,
            observe=_both(observe, None if witness is None else witness.observe),
            paused=threading.Event() if witness is None else witness.paused,
        )
        self._counted: dict[str, int] = {}
        self._dark = False
        self._now = self._next_count = 0.0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Watch; a failure is logged, kept, and ends this camera alone."""
        try:
            with self._turn:
                self._watch()
            if not self._stop_event.is_set():
                log.info("camera %s: ended after %d frames", self._camera.name, self._eyes.counters.frames)
        except (CameraError, OutboxError, OSError) as error:
            self.failure = error
            self._note_dark(datetime.now(UTC))
            log.error("camera %s: %s", self._camera.name, error)  # noqa: TRY400 - the message is for a user
        except Exception as error:
            self.failure = error
            self._note_dark(datetime.now(UTC))
            log.exception("camera %s ended by a fault of ours", self._camera.name)
        finally:
            self._count()

    def _watch(self) -> None:
        for shot in self._eyes.watch(self._frames()):
            self._keep(shot)
        if self._witness is not None:
            self._witness.finish()

    def _policy(self) -> Policy:
        visits, picture = self._config.visits, self._config.picture
        margin = room_to_turn(picture.margin) if picture.align else picture.margin
        if visits.policy == "every":
            return EveryNth(every=visits.every, margin=margin)
        return BestShot(
            gate=self._gate, wait_s=visits.wait_s, margin=margin,
            first=visits.policy == "first-and-best", again=visits.again,
        )  # fmt: skip

    def _frames(self) -> Iterator[Frame]:
        try:
            for frame in self._opened():
                self._now = frame.time.timestamp()
                self._note_dark(frame.time if frame.dark else None)
                yield frame
                if time.monotonic() >= self._next_count:
                    self._next_count = time.monotonic() + _COUNT_EVERY_S
                    self._count()
                    self._count_refused()
            self._note_dark(None)
        finally:
            self._count_refused()

    def _note_dark(self, at: datetime | None) -> None:
        """Write down that the camera is gone, seen at a time, or that it is not."""
        if (at is not None) != self._dark:
            self._dark = at is not None
            name = f"{reading.DARK}{self._config.site}/{self._camera.name}"
            self._outbox.note(name, "" if at is None else f"{at.timestamp():.0f}")

    def _opened(self) -> Iterator[Frame]:
        if self._mailbox is not None:
            return self._mailbox.frames(self._stop_event)
        camera = self._camera
        return open_camera(
            camera.source, pace=camera.pace, stop=self._stop_event, loop=self._loop,
            fps=camera.fps, transport=camera.transport, freeze_s=camera.freeze_s, lull=self._eyes.lull,
        )  # fmt: skip

    def _count_refused(self) -> None:
        """Write down which pictures that came by MQTT were not taken."""
        refused = self._mailbox.refused() if self._mailbox is not None else {}
        if refused:
            named = {f"posted:posted-{reason}": n for reason, n in refused.items()}
            self._outbox.count(self._config.site, self._camera.name, **named)

    def _count(self) -> None:
        """Write down how far the counters have come since the last time."""
        seen = self._eyes.counters
        now = {
            "frames": seen.frames, "inspected": seen.inspected,
            "skipped": seen.still + seen.late + seen.paused, "skipped:still": seen.still,
            "skipped:late": seen.late, "skipped:paused": seen.paused, "detections": seen.detections,
            "gaps": seen.gaps, "dark_s": int(seen.dark_s), "gate:outside": seen.outside,
        }  # fmt: skip
        now |= {f"gate:{reason}": n for reason, n in self._gate.refused.items()}
        more = {name: n - self._counted.get(name, 0) for name, n in now.items()}
        self._counted = now
        if any(more.values()):
            self._outbox.count(self._config.site, self._camera.name, **more)

    def _keep(self, shot: Shot) -> None:
        """Capture a face: it is in the outbox, on disk, when this returns; a full disk is waited for."""
        image = self._cut(shot)
        form, thinned = self._thrift.encoding(self._config.picture, max(image.shape[:2]))
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
            thinned=thinned,
        )
        frozen = encode_face(known, image, form=form, most=self._outbox.max_message, seal=self._seal)
        chosen, pause = self._now, _FIRST_PAUSE_S
        while True:
            try:
                self._outbox.put(frozen, chosen=chosen).result()
                break
            except sqlite3.OperationalError as error:
                words = "the outbox does not take a face: %s: see that its disk has room"
                _disk.say(logging.ERROR, "disk", words, error)
                if self._stop_event.wait(pause):
                    raise OutboxError(f"{self._outbox.path}: {error}") from error
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        if self._trace.takes(known.id):
            self._trace.span(
                known.id, "capture", start=born(known.id), end=time.time(), site=known.site,
                camera=known.camera, bytes=len(frozen.data), quality=known.quality,
            )  # fmt: skip
        if self._witness is not None:
            self._witness.captured(frozen)
        if thinned is not None:
            self._outbox.count(known.site, known.camera, **{"picture:thinned": 1})

    def _cut(self, shot: Shot) -> Image:
        """Return the face as it is to be encoded: upright, if that is asked for."""
        if not self._config.picture.align:
            return shot.crop
        (x, y, w, h), (left, top, _, _) = shot.detection.box, shot.crop_box
        landmarks = tuple((px - left, py - top) for px, py in shot.detection.landmarks)
        placed = Detection((x - left, y - top, w, h), shot.detection.score, landmarks)
        return align(shot.crop, placed, margin=self._config.picture.margin, look=self._detector.detect)


def _both(
    one: Callable[[Seen], None] | None, other: Callable[[Seen], None] | None
) -> Callable[[Seen], None] | None:
    """Return what tells two of each frame, if there are two."""
    if one is None or other is None:
        return one or other

    def tell(seen: Seen) -> None:
        one(seen)
        other(seen)

    return tell


def _whole(box: tuple[float, float, float, float], frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box in whole pixels, cut off where it leaves the frame."""
    left, top = (min(max(0, round(at)), side) for at, side in zip(box[:2], frame, strict=True))
    right = min(max(left, round(box[0] + box[2])), frame[0])
    bottom = min(max(top, round(box[1] + box[3])), frame[1])
    return left, top, right - left, bottom - top
