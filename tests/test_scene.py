from __future__ import annotations

import importlib.util
import itertools
import threading

import numpy as np
import pytest

from facerelay.edge.cameras.camera import CameraError, open_camera
from facerelay.edge.cameras.scene import Scene
from facerelay.edge.eyes.best import BestShot
from facerelay.edge.eyes.detect import make_detector
from facerelay.edge.eyes.motion import Motion
from facerelay.edge.eyes.quality import Gate
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.eyes.watch import Eyes


@pytest.mark.parametrize("motion", [None, Motion()], ids=["all frames", "motion gate"])
def test_a_round_gives_one_face_per_visit(motion: Motion | None) -> None:
    eyes = Eyes(
        search=Search(make_detector("auto")),
        tracker=Tracker(),
        policy=BestShot(gate=Gate()),
        motion=motion,
    )
    shots = list(eyes.watch(open_camera("scene", pace=False, stop=threading.Event())))
    scene, counters = Scene(), eyes.counters
    assert len(shots) == scene.visits == counters.shots
    assert counters.frames == scene.frames == counters.inspected + counters.still
    assert counters.detections > 20 * scene.visits


def test_the_scene_is_the_same_each_time_and_other_with_another_seed() -> None:
    one, same, other = Scene(seed=3), Scene(seed=3), Scene(seed=4)
    assert one.frames == same.frames
    assert np.array_equal(one.render(40), same.render(40))
    assert not np.array_equal(one.render(40), other.render(40))
    assert one.render(0).shape == (720, 1280, 3)
    assert one.render(0).dtype == np.uint8
    assert 28 * one.fps < one.frames < 42 * one.fps


def test_nobody_is_there_between_rounds() -> None:
    scene = Scene()
    assert np.array_equal(scene.render(scene.frames - 1), scene.render(scene.frames - 30))


def test_the_scene_goes_on_if_asked() -> None:
    stop = threading.Event()
    frames = open_camera("scene", pace=False, stop=stop, loop=True)
    scene = Scene()
    times = [frame.pts for frame in itertools.islice(frames, scene.frames + 3)]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx((scene.frames + 2) / scene.fps)


def test_missing_portraits_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CameraError, match=r"facerelay\[scene\]"):
        next(open_camera("scene", pace=False, stop=threading.Event()))
