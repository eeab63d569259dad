"""The loops that are compared: a video file in, faces out."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.eyes import footage
from bench.processes import BenchError
from facerelay.config import Camera, Config
from facerelay.edge.cameras.camera import open_camera
from facerelay.edge.cameras.raster import Image
from facerelay.edge.capture import open_outbox
from facerelay.edge.eyes import yunet
from facerelay.edge.eyes.detect import Detection, Detector
from facerelay.edge.eyes.search import Search
from facerelay.edge.watcher import Watcher
from facerelay.messages import Account

SITE, CAMERA = "bench", "clip"
_LONG_SIDE: Final = 640


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a file: frames read and looked at, faces found, messages and their bytes."""

    frames: int
    inspected: int
    faces: int
    messages: int
    bytes: int


class Ours:
    """The pipeline as it is shipped: camera, motion gate, search, tracks, choice, encoding, outbox.

    Args:
        detector: made once, as the capture role does.
        detect: settings of the section `detect` that differ from the default.
    """

    def __init__(self, detector: Detector, **detect: object) -> None:
        self._detector = detector
        self._detect = detect

    def __call__(self, clip: Path | str) -> Outcome:
        """Play a source as fast as it goes, into an outbox of its own on the disk."""
        with tempfile.TemporaryDirectory(prefix="facerelay-bench-") as folder:
            return self.into(Path(folder) / "outbox.db", clip)

    def into(self, path: Path, clip: Path | str) -> Outcome:
        """Play a source into an outbox, and return once all is on the disk."""
        config = Config.model_validate(
            {
                "site": SITE,
                "camera": [Camera(name=CAMERA, source=str(clip), pace=False)],
                "detect": self._detect,
                "outbox": {"path": path},
            }
        )
        with open_outbox(config) as outbox:
            watcher = Watcher(
                config.camera[0], config=config, detector=self._detector, outbox=outbox,
                stop=threading.Event(),
            )  # fmt: skip
            watcher.run()
            if watcher.failure is not None:
                raise BenchError(f"{clip}: {watcher.failure}")
            account = outbox.ledger().result().cameras.get(f"{SITE}/{CAMERA}", Account())
            sizes = [len(each.data) for each in outbox.backlog(0, 100_000).result()]
        assert len(sizes) == account.captured
        return Outcome(account.frames, account.inspected, account.detections, len(sizes), sum(sizes))


class Finder(Protocol):
    """What finds faces in a BGR picture."""

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces, in the picture's pixels."""


class BareCv2:
    """The limit: OpenCV's decoder gives BGR, a detector looks at it, and nothing is made of what it finds."""

    def __init__(self, detector: Finder) -> None:
        self._detector = detector

    def __call__(self, clip: Path) -> Outcome:
        """Look at each frame."""
        found = [len(self._detector.detect(image)) for image in _read(clip)]
        return Outcome(len(found), len(found), sum(found), 0, 0)


class BareAv(BareCv2):
    """The same behind PyAV's decoder."""

    def __call__(self, clip: Path) -> Outcome:
        """Look at each frame."""
        found = [len(self._detector.detect(image)) for image in footage.images(clip)]
        return Outcome(len(found), len(found), sum(found), 0, 0)


class Lean:
    """Our reader and search alone, without motion gate, tracks and choice."""

    def __init__(self, detector: Detector) -> None:
        self._search = Search(detector)

    def __call__(self, clip: Path) -> Outcome:
        """Look at each frame."""
        frames = open_camera(str(clip), pace=False, stop=threading.Event())
        found = [len(self._search.find(frame.raster)) for frame in frames if frame.raster is not None]
        return Outcome(len(found), len(found), sum(found), 0, 0)


class Seeds:
    """What the student systems run: Haar 1.3/5 on the whole grey frame, a grey PNG for each face found."""

    def __init__(self, cascade: Haar) -> None:
        self._cascade = cascade

    def __call__(self, clip: Path) -> Outcome:
        """Look at each frame; the messages go nowhere."""
        frames, sizes = 0, []
        for image in _read(clip):
            frames += 1
            grey = cast("Image", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
            for x, y, w, h in self._cascade.boxes(grey):
                sizes.append(len(cv2.imencode(".png", grey[y : y + h, x : x + w])[1]))
        return Outcome(frames, frames, len(sizes), len(sizes), sum(sizes))


class Haar:
    """OpenCV's frontal face cascade: scale factor 1.3, 5 neighbours."""

    def __init__(self) -> None:
        folder = Path(cast("Any", cv2).data.haarcascades)
        self._cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
        assert not self._cascade.empty()

    def boxes(self, grey: Image) -> list[tuple[int, int, int, int]]:
        """Return x, y, width, height of each face in a grey picture."""
        return [
            (int(x), int(y), int(w), int(h)) for x, y, w, h in self._cascade.detectMultiScale(grey, 1.3, 5)
        ]

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a BGR picture."""
        grey = cast("Image", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        return [Detection((x, y, w, h), 1.0) for x, y, w, h in self.boxes(grey)]


class FaceDetectorYN:
    """OpenCV's own class for the same weights, larger pictures made smaller to 640 on the long side.

    Args:
        threshold: None leaves OpenCV's default, .9.
    """

    def __init__(self, threshold: float | None = None) -> None:
        path = str(yunet.weights_path())
        self._net = cv2.FaceDetectorYN.create(path, "", (_LONG_SIDE, _LONG_SIDE))
        self.threshold = self._net.getScoreThreshold()
        if threshold is not None:
            self._net.setScoreThreshold(threshold)

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a BGR picture, in its pixels."""
        height, width = image.shape[:2]
        scale = max(1.0, max(height, width) / _LONG_SIDE)
        if scale > 1:
            image = cast("Image", cv2.resize(image, (round(width / scale), round(height / scale))))
        self._net.setInputSize((image.shape[1], image.shape[0]))
        rows = cast("NDArray[np.float32] | None", self._net.detect(image)[1])
        if rows is None:
            return []
        return [
            Detection((x * scale, y * scale, w * scale, h * scale), score)
            for x, y, w, h, *_, score in rows.tolist()
        ]


def _read(clip: Path) -> Iterator[Image]:
    """Yield a file's frames as OpenCV gives them, decoded by one thread as ours are."""
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        while True:
            done, image = capture.read()
            if not done:
                return
            yield cast("Image", image)
    finally:
        capture.release()
