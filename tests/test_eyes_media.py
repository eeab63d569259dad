from __future__ import annotations

import threading
from pathlib import Path

import pytest

from facerelay.edge.best import BestShot, EveryNth
from facerelay.edge.camera import expand, open_camera
from facerelay.edge.detect import Detector, make_detector
from facerelay.edge.eyes import Counters, watch
from facerelay.edge.quality import Gate
from facerelay.edge.track import Tracker

pytestmark = pytest.mark.media


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("auto")


def faces(detector: Detector, source: str) -> tuple[int, Counters, Gate]:
    counters, gate = Counters(), Gate()
    frames = open_camera(source, pace=False, stop=threading.Event())
    shots = watch(frames, detector=detector, tracker=Tracker(), policy=BestShot(gate=gate), counters=counters)
    return len(list(shots)), counters, gate


def test_each_signer_gives_one_face(detector: Detector, media: Path) -> None:
    cameras = [each for each in expand(str(media / "clips")) if each[0].startswith("intel_asl_")]
    assert len(cameras) == 20
    found = {name: faces(detector, source)[0] for name, source in cameras}
    assert sum(found.values()) == 20
    assert set(found.values()) == {1}


@pytest.mark.parametrize(
    ("clip", "count"),
    [
        ("intel_preview_face-demographics-walking-and-pause.gif", 3),
        ("intel_preview_classroom.gif", 4),
        ("no-faces_nasa_world.mp4", 0),
    ],
)
def test_a_clip_gives_a_face_per_person(detector: Detector, media: Path, clip: str, count: int) -> None:
    assert faces(detector, str(media / "clips" / clip))[0] == count


def test_where_nobody_looks_at_the_camera_hardly_a_face_is_sent(detector: Detector, media: Path) -> None:
    count, counters, gate = faces(detector, str(media / "clips/intel_one-by-one-person-detection.mp4"))
    assert count <= 1
    assert counters.detections > 20
    assert gate.refused["averted"] > 10


def test_every_detection_can_be_sent_instead(detector: Detector, media: Path) -> None:
    counters = Counters()
    source = str(media / "clips/intel_preview_classroom.gif")
    frames = open_camera(source, pace=False, stop=threading.Event())
    shots = watch(frames, detector=detector, tracker=Tracker(), policy=EveryNth(every=1), counters=counters)
    assert len(list(shots)) == counters.detections > 100
