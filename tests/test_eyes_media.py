from __future__ import annotations

import threading
from pathlib import Path

import pytest

from facerelay.edge.cameras.camera import expand, open_camera
from facerelay.edge.eyes.best import BestShot, EveryNth
from facerelay.edge.eyes.detect import Detector, make_detector
from facerelay.edge.eyes.motion import Motion
from facerelay.edge.eyes.quality import Gate
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.eyes.watch import Eyes

pytestmark = pytest.mark.media


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("auto")


def faces(
    detector: Detector, source: str, *, max_fps: float = 0.0, motion: bool = True
) -> tuple[int, Eyes, Gate]:
    gate = Gate()
    eyes = Eyes(
        search=Search(detector), tracker=Tracker(), policy=BestShot(gate=gate),
        motion=Motion() if motion else None, max_fps=max_fps,
    )  # fmt: skip
    shots = list(eyes.watch(open_camera(source, pace=False, stop=threading.Event())))
    return len(shots), eyes, gate


@pytest.mark.parametrize(("max_fps", "motion"), [(0.0, False), (10.0, True)])
def test_each_signer_gives_one_face(detector: Detector, media: Path, max_fps: float, *, motion: bool) -> None:
    cameras = [each for each in expand(str(media / "clips")) if each[0].startswith("intel_asl_")]
    assert len(cameras) == 20
    found = {name: faces(detector, source, max_fps=max_fps, motion=motion)[0] for name, source in cameras}
    assert sum(found.values()) == 20
    assert set(found.values()) == {1}


@pytest.mark.parametrize("max_fps", [0.0, 10.0])
@pytest.mark.parametrize(
    ("clip", "count"),
    [
        ("intel_preview_face-demographics-walking-and-pause.gif", 3),
        ("intel_preview_classroom.gif", 4),
        ("no-faces_nasa_world.mp4", 0),
    ],
)
def test_a_clip_gives_a_face_per_person(
    detector: Detector, media: Path, clip: str, count: int, max_fps: float
) -> None:
    assert faces(detector, str(media / "clips" / clip), max_fps=max_fps)[0] == count


def test_where_nobody_looks_at_the_camera_no_face_is_sent(detector: Detector, media: Path) -> None:
    count, eyes, gate = faces(detector, str(media / "clips/intel_one-by-one-person-detection.mp4"))
    assert count == 0
    assert eyes.counters.detections > 20
    assert gate.refused["averted"] > 10


def test_every_detection_can_be_sent_instead(detector: Detector, media: Path) -> None:
    eyes = Eyes(search=Search(detector), tracker=Tracker(), policy=EveryNth(every=1))
    source = str(media / "clips/intel_preview_classroom.gif")
    shots = list(eyes.watch(open_camera(source, pace=False, stop=threading.Event())))
    assert len(shots) == eyes.counters.detections > 100
