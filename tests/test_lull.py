from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from facerelay.edge.cameras.camera import open_camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.lull import Lull
from facerelay.edge.cameras.raster import Image
from facerelay.edge.cameras.scene import Scene
from facerelay.edge.eyes.best import BestShot
from facerelay.edge.eyes.detect import make_detector
from facerelay.edge.eyes.motion import Motion
from facerelay.edge.eyes.quality import Gate
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.eyes.watch import Eyes

RATE = 15


def write(path: Path, images: Iterator[Image], *, between: int) -> Path:
    """Write H.264 with `between` frames between two that others refer to."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"preset": "ultrafast", "bf": str(between), "b_strategy": "0", "b-pyramid": "none"}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody for ten seconds, then the scene's first visit."""
    scene = Scene()
    empty = scene.render(scene.frames - 1)

    def images() -> Iterator[Image]:
        yield from (empty for _ in range(10 * RATE))
        yield from (scene.render(n) for n in range(3 * RATE))

    return write(tmp_path_factory.mktemp("lull") / "scene.mp4", images(), between=2)


def frames(path: Path, lull: Lull) -> Iterator[Frame]:
    return open_camera(str(path), pace=False, stop=threading.Event(), lull=lull)


def test_what_is_left_out_harms_no_other_frame(clip: Path) -> None:
    whole = {frame.index: frame for frame in frames(clip, Lull())}
    assert list(whole) == list(range(13 * RATE))
    lull = Lull()
    given = 0
    for frame in frames(clip, lull):
        lull.on = 20 <= frame.index < 170
        same = whole[frame.index]
        assert np.array_equal(frame.image, same.image), frame.index
        assert frame.pts == pytest.approx(same.pts, abs=0.001)
        given += 1
    assert lull.left_out > 80
    assert given + lull.left_out == 13 * RATE


def test_a_still_scene_is_not_even_decoded_and_who_enters_it_is_seen(clip: Path) -> None:
    eyes = Eyes(
        search=Search(make_detector("auto")), tracker=Tracker(), policy=BestShot(gate=Gate()), motion=Motion()
    )
    shots = list(eyes.watch(frames(clip, eyes.lull)))
    counters = eyes.counters
    assert len(shots) == 1
    assert eyes.lull.left_out > 50
    assert not eyes.lull.on
    assert counters.frames == counters.inspected + counters.still == 13 * RATE
    assert counters.late == 0


def test_a_stream_without_such_frames_is_decoded_in_full(tmp_path: Path) -> None:
    empty = Scene().render(0)
    path = write(tmp_path / "plain.mp4", (empty for _ in range(2 * RATE)), between=0)
    lull = Lull(on=True)
    assert len(list(frames(path, lull))) == 2 * RATE
    assert lull.left_out == 0


def test_a_recording_far_behind_its_time_leaves_out_more_and_more() -> None:
    assert [Lull(late_s=late).skips for late in (0.0, 0.9, 1.1, 3.1)] == [
        "DEFAULT", "DEFAULT", "NONREF", "NONKEY",
    ]  # fmt: skip


def test_a_paced_recording_that_nobody_keeps_up_with_catches_up(clip: Path) -> None:
    lull, began = Lull(), time.monotonic()
    for frame in open_camera(str(clip), pace=True, stop=threading.Event(), lull=lull):
        late = time.monotonic() - began - frame.pts
        if frame.index < 15:
            time.sleep(0.2)  # three seconds of work on one of film
        elif late < 0.05:
            break
    assert late < 0.05
    assert lull.left_out > 0
