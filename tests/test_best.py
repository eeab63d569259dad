from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import cv2
import numpy as np
import pytest

from facerelay.edge import portrait
from facerelay.edge.best import BestShot, EveryNth, Shot
from facerelay.edge.camera import CameraError, Frame
from facerelay.edge.crop import Format, crop_box, cut, encode
from facerelay.edge.detect import Detection, Image, Point
from facerelay.edge.eyes import Counters, watch
from facerelay.edge.quality import Gate, Geometry, measure
from facerelay.edge.track import Tracker, Update

WIDTH, HEIGHT = 640, 480


def face(
    x: float = 200, y: float = 150, width: float = 100, *, turn: float = 0.0, score: float = 0.95
) -> Detection:
    """A face whose head is turned by `turn`: -1 to 1 for a profile on either side."""
    middle, spread = x + width / 2, 0.23 * width * (1 - abs(turn))
    nose = middle + 0.28 * width * turn
    points: tuple[Point, ...] = (
        (middle - spread, y + 0.45 * width), (middle + spread, y + 0.45 * width), (nose, y + 0.72 * width),
        (middle - 0.9 * spread, y + 0.95 * width), (middle + 0.9 * spread, y + 0.95 * width),
    )  # fmt: skip
    return Detection((x, y, width, 1.3 * width), score, points)


@pytest.fixture(scope="module")
def photograph() -> Image:
    """640x480 with a real face at face(200, 150, 100)."""
    image = portrait._read(portrait.COLLINS)
    image = cast("Image", cv2.resize(image, None, fx=100 / 90, fy=100 / 90))
    canvas = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    part = image[0:400, 0:500]
    canvas[80 : 80 + part.shape[0], 2 : 2 + part.shape[1]] = part
    return cast("Image", canvas)


def frame(image: Image, pts: float, *, still: bool = False) -> Frame:
    return Frame(image, round(pts * 10), pts, datetime.now(UTC), still)


def feed(policy: BestShot | EveryNth, image: Image, faces: list[tuple[float, Detection]]) -> list[Shot]:
    shots = []
    for pts, detection in faces:
        shots += policy.update(frame(image, pts), Update([(1, detection)], []))
    return shots


def test_the_best_is_sent_once_when_the_wait_is_over(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=2.0)
    turned = [(n / 10, face(turn=0.25 if n != 7 else 0.0)) for n in range(60)]
    shots = feed(policy, photograph, turned)
    assert [shot.pts for shot in shots] == [0.7]
    assert policy.finish([1]) == []


def test_a_visit_that_ends_early_is_sent_at_its_end(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=2.0)
    assert feed(policy, photograph, [(0.0, face()), (0.1, face(turn=0.2))]) == []
    (shot,) = policy.update(frame(photograph, 0.9), Update([], [1]))
    assert (shot.track, shot.pts, shot.frame_size) == (1, 0.0, (WIDTH, HEIGHT))
    assert shot.crop.base is None
    assert shot.crop.shape[:2] == (shot.crop_box[3], shot.crop_box[2])
    assert 0 < shot.quality <= 1
    assert set(shot.parts) == {"size", "sharpness", "frontality", "exposure", "edge", "score"}
    assert all(0 <= value <= 1 for value in shot.parts.values())


def test_the_wait_is_kept_while_the_face_is_hidden(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=1.0)
    feed(policy, photograph, [(0.0, face()), (0.1, face())])
    assert policy.update(frame(photograph, 0.9), Update([], [])) == []
    assert len(policy.update(frame(photograph, 1.0), Update([], []))) == 1


def test_a_head_that_never_looks_is_refused_and_counted(photograph: Image) -> None:
    gate = Gate()
    policy = BestShot(gate=gate)
    assert feed(policy, photograph, [(n / 10, face(turn=0.8)) for n in range(40)]) == []
    assert policy.finish([1]) == []
    assert gate.refused == {"averted": 40}


def test_the_wait_begins_with_the_first_good_picture(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=1.0)
    averted = [(n / 10, face(turn=0.9)) for n in range(30)]
    good = [(3 + n / 10, face()) for n in range(9)]
    assert feed(policy, photograph, averted + good) == []
    assert len(feed(policy, photograph, [(4.0, face())])) == 1


def test_an_unsure_face_must_be_seen_twice(photograph: Image) -> None:
    gate = Gate()
    policy = BestShot(gate=gate)
    feed(policy, photograph, [(0.0, face(score=0.75))])
    assert policy.finish([1]) == []
    assert gate.refused == {"fleeting": 1}
    feed(policy, photograph, [(1.0, face(score=0.75)), (1.1, face(score=0.75))])
    assert len(policy.finish([1])) == 1
    feed(policy, photograph, [(2.0, face(score=0.9))])
    assert len(policy.finish([1])) == 1
    policy.update(frame(photograph, 3.0, still=True), Update([(1, face(score=0.75))], []))
    assert len(policy.finish([1])) == 1


def test_every_nth_sends_without_a_gate(photograph: Image) -> None:
    policy = EveryNth(every=3)
    shots = feed(policy, photograph, [(n / 10, face(turn=0.9)) for n in range(10)])
    assert [shot.pts for shot in shots] == [0.0, 0.3, 0.6, 0.9]
    assert policy.finish([1]) == []


@pytest.mark.parametrize(
    ("detection", "reason"),
    [
        (face(), None),
        (face(turn=0.2), None),
        (face(turn=-0.2), None),
        (face(turn=0.6), "averted"),
        (face(turn=-0.6), "averted"),
        (face(width=6), "small"),
        (face(x=-50), "cut-off"),
        (face(y=420), "cut-off"),
        (Detection((10, 10, 60, 60), 1.0), None),
        (Detection((10, 10, 5, 5), 1.0), "small"),
    ],
)
def test_what_the_gate_refuses(detection: Detection, reason: str | None) -> None:
    assert Gate().reason(detection, (WIDTH, HEIGHT)) == reason


def test_geometry_knows_neither_size_nor_tilt() -> None:
    straight = face()
    angle = np.radians(30)
    turned = np.array(straight.landmarks) @ np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    tilted = Detection(straight.box, 1.0, tuple((float(x) * 2, float(y) * 2) for x, y in turned))
    one, other = Geometry.of(straight), Geometry.of(tilted)
    assert one is not None
    assert other is not None
    assert other.spread == pytest.approx(one.spread)
    assert other.nose_down == pytest.approx(one.nose_down)
    assert other.nose_across == pytest.approx(one.nose_across, abs=1e-9)
    assert other.roll == pytest.approx(30)


def test_quality_falls_with_each_fault(photograph: Image) -> None:
    good = measure(photograph, face()).total
    blurred = cast("Image", cv2.GaussianBlur(photograph, (0, 0), 4))
    dark = cast("Image", cv2.convertScaleAbs(photograph, alpha=0.1))
    assert measure(blurred, face()).total < good
    assert measure(dark, face()).total < good
    assert measure(photograph, face(turn=0.3)).total < good
    assert measure(photograph, face(width=40)).total < good
    assert measure(photograph, face(x=0)).parts["edge"] == 0
    assert measure(photograph, face(score=0.5)).total < good
    assert 0 <= measure(photograph, face(x=WIDTH + 50)).total <= 1


def test_a_crop_stays_in_the_frame_and_leaves_it_free(photograph: Image) -> None:
    assert crop_box((10, 10, 100, 100), (640, 480), 0.3) == (0, 0, 140, 140)
    assert crop_box((600, 440, 100, 100), (640, 480), 0.3) == (570, 410, 70, 70)
    x, y, w, h = crop_box((5000, -5000, 1, 1), (640, 480), 0.3)
    assert 0 <= x < 640
    assert 0 <= y < 480
    assert w >= 1
    assert h >= 1
    assert cut(photograph, (0, 0, 50, 60)).shape == (60, 50, 3)


@pytest.mark.parametrize(
    ("form", "magic"), [("jpeg", b"\xff\xd8\xff"), ("png", b"\x89PNG"), ("webp", b"RIFF")]
)
@pytest.mark.parametrize("grey", [False, True])
def test_pictures_are_encoded(photograph: Image, form: Format, magic: bytes, *, grey: bool) -> None:
    data = encode(photograph, format=form, quality=80, grey=grey, max_side=320)
    assert data.startswith(magic)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert decoded.shape[:2] == (240, 320)
    if grey and form != "webp":
        assert decoded.ndim == 2
    if grey:
        assert np.ptp(cv2.cvtColor(decoded, cv2.COLOR_BGR2HSV)[..., 1]) < 20 if decoded.ndim == 3 else True
    else:
        assert decoded.ndim == 3


def test_an_impossible_picture_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="cannot encode"):
        encode(np.zeros((0, 5, 3), np.uint8))


class OneFace:
    """A detector that finds the same face in each frame."""

    def detect(self, image: Image) -> list[Detection]:
        assert image.size
        return [face()]


def test_a_face_does_not_wait_for_a_camera_that_has_fallen_silent(photograph: Image) -> None:
    taken: list[float] = []

    def frames() -> Iterator[Frame]:
        for n in range(40):
            taken.append(n / 10)
            yield frame(photograph if n < 5 else np.empty((0, 0, 3), np.uint8), n / 10)

    counters = Counters()
    policy = BestShot(gate=Gate(), wait_s=2.0)
    shots = watch(frames(), detector=OneFace(), tracker=Tracker(gap_s=1.5), policy=policy, counters=counters)
    assert next(shots).pts < 0.5
    assert taken[-1] == pytest.approx(2.0)
    assert list(shots) == []
    assert counters == Counters(frames=5, detections=5, shots=1)


def test_a_face_is_not_lost_with_the_camera(photograph: Image) -> None:
    def frames() -> Iterator[Frame]:
        for n in range(5):
            yield frame(photograph, n / 10)
        raise CameraError("a.mp4", "its pictures are damaged")

    policy = BestShot(gate=Gate())
    shots = watch(frames(), detector=OneFace(), tracker=Tracker(), policy=policy, counters=Counters())
    assert next(shots).pts < 0.5
    with pytest.raises(CameraError, match="damaged"):
        next(shots)
