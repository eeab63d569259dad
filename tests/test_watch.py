from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from facerelay.edge.cameras.camera import CameraError, open_camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.raster import Image, Pixels, Raster
from facerelay.edge.cameras.scene import Scene
from facerelay.edge.eyes.best import BestShot, Shot
from facerelay.edge.eyes.detect import Detection, Detector, make_detector
from facerelay.edge.eyes.motion import Motion
from facerelay.edge.eyes.quality import Gate
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.eyes.watch import Eyes, Seen
from facerelay.edge.eyes.zones import Zones

FPS = 15
SOMEBODY = 30
"""Two seconds into the scene its first visitor looks into the camera."""


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("auto")


@pytest.fixture(scope="module")
def visitor() -> Image:
    return Scene().render(SOMEBODY)


def eyes(detector: Detector, **more: object) -> Eyes:
    parts: dict[str, object] = {
        "search": Search(detector), "tracker": Tracker(), "policy": BestShot(gate=Gate()), "motion": Motion(),
    }  # fmt: skip
    return Eyes(**(parts | more))  # type: ignore[arg-type]


def shown(image: Image | None, pts: Iterable[float], **more: bool) -> Iterator[Frame]:
    raster = None if image is None else Pixels(image)
    for at in pts:
        yield Frame(raster=raster, index=round(at * FPS), pts=at, time=datetime.now(UTC), **more)


def times(begin: float, end: float) -> list[float]:
    return [n / FPS for n in range(round(begin * FPS), round(end * FPS))]


def watched(subject: Eyes, frames: Iterable[Frame]) -> list[Shot]:
    return list(subject.watch(frames))


def test_a_still_scene_is_hardly_looked_at_and_its_visit_goes_on(detector: Detector, visitor: Image) -> None:
    subject = eyes(detector)
    shots = watched(subject, shown(visitor, times(0, 20)))
    counters = subject.counters
    assert len(shots) == 1
    assert counters.frames == 300 == counters.inspected + counters.still
    assert counters.inspected < 15


def test_without_the_gate_every_frame_is_looked_at(detector: Detector, visitor: Image) -> None:
    subject = eyes(detector, motion=None)
    watched(subject, shown(visitor, times(0, 1)))
    assert subject.counters.inspected == FPS


def test_no_more_frames_are_looked_at_than_asked_for(detector: Detector) -> None:
    subject = eyes(detector, motion=None, max_fps=5.0)
    frames = open_camera("scene", pace=False, stop=threading.Event())
    assert len(watched(subject, frames)) == Scene().visits
    counters = subject.counters
    assert counters.inspected == pytest.approx(Scene().frames / FPS * 5, abs=2)
    assert counters.frames == counters.inspected + counters.late == Scene().frames


def test_frames_that_come_too_late_and_those_dropped_before_are_counted_as_skipped(
    detector: Detector, visitor: Image
) -> None:
    subject = eyes(detector, motion=None)
    watched(subject, [*shown(visitor, [0.0, 1.0]), *shown(visitor, [1.0 + 1 / FPS], late=True)])
    counters = subject.counters
    assert (counters.frames, counters.inspected, counters.late) == (FPS + 2, 2, FPS)


def test_a_scene_cut_ends_the_visit(detector: Detector, visitor: Image) -> None:
    mirrored = np.ascontiguousarray(visitor[::-1, ::-1] // 2)
    subject = eyes(detector)
    back = [*shown(visitor, times(0, 1)), *shown(mirrored, times(1, 1.2)), *shown(visitor, times(1.2, 2.2))]
    assert [shot.track for shot in watched(subject, back)] == [1, 2]


def test_the_time_for_which_a_camera_is_gone_is_counted(detector: Detector, visitor: Image) -> None:
    subject = eyes(detector)
    frames = [
        *shown(visitor, times(0, 1)), *shown(None, [1.5]), *shown(None, [2.0, 3.0, 4.0], dark=True),
        *shown(visitor, times(5, 6)), *shown(None, [8.0], dark=True),
    ]  # fmt: skip
    shots = watched(subject, frames)
    assert len(shots) == 2
    assert subject.counters.gaps == 2
    assert subject.counters.dark_s == pytest.approx(3.0)


def test_who_lies_outside_the_zones_is_counted_and_not_kept(detector: Detector, visitor: Image) -> None:
    (shot,) = watched(eyes(detector), shown(visitor, times(0, 1)))
    x, y, w, h = shot.detection.box
    across, down = (x + w / 2) / visitor.shape[1], (y + h / 2) / visitor.shape[0]
    there = [(across - 0.1, down - 0.1), (across + 0.1, down - 0.1), (across, down + 0.2)]
    elsewhere = [(1 - px, py) for px, py in there]
    assert len(watched(eyes(detector, zones=Zones(zones=[there])), shown(visitor, times(0, 1)))) == 1
    subject = eyes(detector, zones=Zones(zones=[elsewhere]))
    assert watched(subject, shown(visitor, times(0, 1))) == []
    assert subject.counters.outside == subject.counters.detections > 0


def test_nothing_under_a_mask_is_seen_by_anybody(detector: Detector, visitor: Image) -> None:
    seen: list[Seen] = []
    everything = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    subject = eyes(detector, zones=Zones(masks=[everything]), observe=seen.append)
    assert watched(subject, shown(visitor, times(0, 1))) == []
    assert subject.counters.detections == 0
    assert all(each.frame.image.max() <= 16 for each in seen)


def test_who_watches_the_watcher_is_told_of_each_frame(detector: Detector, visitor: Image) -> None:
    seen: list[Seen] = []
    (shot,) = watched(eyes(detector, observe=seen.append), shown(visitor, times(0, 3)))
    assert len(seen) == 3 * FPS
    first = seen[0].looks[0]
    assert (first.track, first.verdict, seen[0].inspected) == (shot.track, "best", True)
    assert first.quality is not None
    assert [each for look in seen for each in look.shots] == [shot]


def test_a_camera_that_fails_loses_nobody_who_was_seen(detector: Detector, visitor: Image) -> None:
    def failing() -> Iterator[Frame]:
        yield from shown(visitor, times(0, 1))
        raise CameraError("door", "unplugged")

    subject = eyes(detector)
    shots: list[Shot] = []
    with pytest.raises(CameraError, match="unplugged"):
        shots.extend(subject.watch(failing()))
    assert len(shots) == 1


def test_whatever_fails_loses_nobody_who_was_seen_and_no_frame_from_the_books(
    detector: Detector, visitor: Image
) -> None:
    class Broken(Search):
        def find(self, raster: Raster) -> list[Detection]:
            if raster.size == (64, 48):
                raise ValueError("broken")
            return super().find(raster)

    subject = eyes(detector, search=Broken(detector))
    odd = np.zeros((48, 64, 3), np.uint8)
    shots: list[Shot] = []
    with pytest.raises(ValueError, match="broken"):
        shots.extend(subject.watch([*shown(visitor, times(0, 1)), *shown(odd, [1.0])]))
    counters = subject.counters
    assert len(shots) == 1
    assert counters.frames == counters.inspected + counters.still + counters.late == FPS + 1


def test_one_odd_frame_does_not_end_a_camera(detector: Detector, visitor: Image) -> None:
    odd = np.zeros((2, 1280, 3), np.uint8)
    frames = [*shown(visitor, times(0, 1)), *shown(odd, [1.0]), *shown(visitor, times(1.1, 2))]
    assert [shot.track for shot in watched(eyes(detector), frames)] == [1, 2]


@pytest.mark.parametrize("motion", [Motion(), None])
def test_another_size_ends_the_visit_even_if_it_looks_the_same(
    detector: Detector, visitor: Image, motion: Motion | None
) -> None:
    wider = np.ascontiguousarray(np.pad(visitor, ((0, 0), (0, 2), (0, 0)), mode="edge"))
    frames = [*shown(visitor, times(0, 1)), *shown(wider, times(1, 2))]
    assert [shot.track for shot in watched(eyes(detector, motion=motion), frames)] == [1, 2]


def test_pictures_that_stand_alone_are_all_looked_at(detector: Detector, visitor: Image) -> None:
    subject = eyes(detector)
    frames = [replace(each, still=True) for each in shown(visitor, [0.0, 3.0, 6.0])]
    assert len(watched(subject, frames)) == subject.counters.inspected == 3


def test_a_picture_that_stands_alone_never_belongs_to_a_visit_that_is_over(
    detector: Detector, visitor: Image
) -> None:
    for still, visits in ((True, [1, 2]), (False, [1])):
        subject = eyes(detector, motion=None, tracker=Tracker(gap_s=5))
        frames = [replace(each, still=still) for each in shown(visitor, [*range(0, 31, 2), 60.0])]
        assert [shot.track for shot in watched(subject, frames)] == visits
