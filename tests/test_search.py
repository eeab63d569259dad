from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerelay.edge.cameras import portrait
from facerelay.edge.cameras.raster import Image, Pixels, Planes
from facerelay.edge.eyes.detect import Detection, Detector, make_detector
from facerelay.edge.eyes.search import Search, fitted, merged, tile_boxes

WIDTH, HEIGHT = 1920, 1080


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("yunet")


def scene(*places: tuple[int, int, int], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image:
    """Portraits with their centre at x, y, and of a side, on grey: the face is about a sixth of the side."""
    image = np.full((size[1], size[0], 3), 127, np.uint8)
    for x, y, side in places:
        small = cv2.resize(portrait._read(portrait.COLLINS), (side, side), interpolation=cv2.INTER_AREA)
        top, left = y - side // 2, x - side // 2
        image[top : top + side, left : left + side] = small
    return cast("Image", image)


def planes(image: Image) -> Planes:
    height, width = image.shape[:2]
    flat = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    u, v = (flat[at : at + height // 4].reshape(-1, width // 2) for at in (height, height + height // 4))
    return Planes(cast("Image", flat[:height]), cast("Image", u), cast("Image", v))


def iou(one: Detection, other: Detection) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = one.box, other.box
    across, down = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    shared = max(0, across) * max(0, down)
    return shared / (aw * ah + bw * bh - shared)


def test_small_faces_are_found_in_tiles_alone_and_large_ones_once(detector: Detector) -> None:
    small = [(300, 250, 120), (1500, 300, 120), (700, 800, 120)]
    image = scene((1100, 560, 500), *small)
    assert len(Search(detector).find(Pixels(image))) == 1
    for tiles in (2, 3, 4):
        found = Search(detector, tiles=tiles).find(Pixels(image))
        assert len(found) == 4
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        for x, y, side in small:
            # The astronaut's face lies above the middle of her portrait.
            [face] = [each for each in found if abs(each.box[0] + each.box[2] / 2 - x) < side / 4]
            assert abs(face.box[1] + face.box[3] / 2 - y) < side / 2


@pytest.mark.parametrize("x", range(880, 1041, 20))
def test_a_face_on_the_edge_of_a_tile_is_found_whole_and_once(detector: Detector, x: int) -> None:
    alone = Search(make_detector("yunet", size=1920)).find(Pixels(scene((x, 540, 160))))
    found = Search(detector, tiles=2).find(Pixels(scene((x, 540, 160))))
    assert len(alone) == len(found) == 1
    assert iou(alone[0], found[0]) > 0.7


def test_planes_and_pixels_show_the_same_faces(detector: Detector) -> None:
    image = scene((1100, 560, 500), (300, 250, 120), (1500, 300, 120))
    for tiles in (1, 2):
        one, other = (Search(detector, tiles=tiles).find(each) for each in (Pixels(image), planes(image)))
        assert len(one) == len(other) == (1 if tiles == 1 else 3)
        for face in one:
            assert max(iou(face, each) for each in other) > 0.8


def test_a_small_picture_is_shown_enlarged(detector: Detector) -> None:
    image = scene((40, 60, 60), (150, 60, 40), size=(320, 180))
    assert len(Search(detector).find(Pixels(image))) > len(detector.detect(image))
    assert fitted(image, 640).shape == (360, 640, 3)
    assert fitted(image, 1280).shape == (360, 640, 3)
    assert fitted(image, 200).shape == (112, 200, 3)
    assert fitted(image, 320) is image
    assert fitted(image, 0) is image


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 900), (2000, 3)])
@pytest.mark.parametrize("name", ["yunet", "opencv", "haar"])
def test_nothing_is_found_in_slivers(name: str, size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    assert Search(make_detector(name), tiles=2).find(Pixels(image)) == []


def test_a_detector_without_a_size_sees_the_picture_as_it_is() -> None:
    seen: list[tuple[int, ...]] = []

    class Looks:
        size = 0

        def detect(self, image: Image) -> list[Detection]:
            seen.append(image.shape[:2])
            return []

    assert Search(Looks(), tiles=2).find(Pixels(scene())) == []
    assert seen[0] == (HEIGHT, WIDTH)
    assert set(seen[1:]) == {(HEIGHT * 5 // 9, math.ceil(WIDTH * 5 / 9))}


def test_one_bad_box_of_a_detector_does_not_cost_the_others(caplog: pytest.LogCaptureFixture) -> None:
    good = Detection((10, 20, 30, 40), 0.9)
    answers: list[Any] = [
        None,
        good,
        Detection((float("nan"), 0, 1, 1), 1.0),
        "face",
        Detection((1, 1, 0, 0), 1.0),
    ]

    class Careless:
        size = 640

        def detect(self, image: Image) -> list[Detection]:
            assert image.ndim == 3
            return cast("list[Detection]", answers)

    search = Search(Careless())
    for _ in range(3):
        assert search.find(Pixels(scene(size=(640, 480)))) == [good]
    assert caplog.text.count("detector Careless gave what is no face: None") == 1


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 4), st.sampled_from([0, 320, 640, 4096]))
def test_tiles_cover_the_picture_and_share_a_fifth(width: int, height: int, tiles: int, shown: int) -> None:
    boxes = tile_boxes((width, height), tiles, shown)
    assert len(boxes) == tiles**2
    assert len({box[2:] for box in boxes}) == 1
    for axis, side in enumerate((width, height)):
        spans = sorted({(box[axis], box[axis] + box[axis + 2]) for box in boxes})
        assert spans[0][0] == 0
        assert spans[-1][1] == side
        for (_, end), (begin, last) in pairwise(spans):
            assert end - begin >= 0.2 * (last - begin) - 1


def test_a_part_of_a_face_does_not_double_it_nor_beat_a_surer_one() -> None:
    face, part = Detection((100, 100, 100, 100), 0.8), Detection((110, 140, 40, 30), 0.75)
    assert merged([[face], [part]]) == [face]
    assert merged([[face], [Detection((104, 98, 98, 104), 0.9)]]) == [Detection((104, 98, 98, 104), 0.9)]


def test_what_one_view_holds_apart_stays_apart() -> None:
    crowd = [Detection((100, 100, 100, 100), 0.9), Detection((130, 130, 30, 30), 0.8)]
    assert merged([crowd, []]) == crowd
    neighbour = Detection((195, 100, 100, 100), 0.7)
    assert merged([crowd, [neighbour]]) == [*crowd, neighbour]
    assert merged([[], []]) == []
