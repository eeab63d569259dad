from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import cast

import cv2
import numpy as np
import pytest

from facerelay.edge.cameras import portrait
from facerelay.edge.cameras.camera import CameraError
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.eyes.best import BestShot, EveryNth, Look, Policy, Shot
from facerelay.edge.eyes.detect import Detection, Point
from facerelay.edge.eyes.quality import Gate, Geometry, measure, sharpness
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Sighting, Tracker, Update
from facerelay.edge.eyes.watch import Eyes

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


def frame(image: Image | None, pts: float, *, still: bool = False) -> Frame:
    raster = None if image is None else Pixels(image)
    return Frame(raster=raster, index=round(pts * 10), pts=pts, time=datetime.now(UTC), still=still)


def update(policy: Policy, image: Image, pts: float, detection: Detection) -> tuple[list[Shot], Look]:
    decision = policy.update(frame(image, pts), Update([Sighting(1, detection)], []))
    return decision.shots, decision.looks[0]


def feed(policy: Policy, image: Image, faces: Iterable[tuple[float, Detection]]) -> list[Shot]:
    return [shot for pts, detection in faces for shot in update(policy, image, pts, detection)[0]]


def times(begin: float, end: float) -> list[float]:
    return [n / 10 for n in range(round(begin * 10), round(end * 10))]


def test_the_best_is_sent_once_when_the_wait_is_over(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=2.0)
    turned = [(n / 10, face(turn=0.25 if n != 7 else 0.0)) for n in range(60)]
    shots = feed(policy, photograph, turned)
    assert [shot.pts for shot in shots] == [0.7]
    assert policy.finish([1]) == []


def test_a_visit_that_ends_early_is_sent_at_its_end(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=2.0)
    assert feed(policy, photograph, [(0.0, face()), (0.1, face(turn=0.2))]) == []
    (shot,) = policy.update(frame(photograph, 0.9), Update([], [1])).shots
    assert (shot.track, shot.pts, shot.frame_size) == (1, 0.0, (WIDTH, HEIGHT))
    assert shot.crop.base is None
    assert shot.crop.shape[:2] == (shot.crop_box[3], shot.crop_box[2])
    assert 0 < shot.quality <= 1
    assert set(shot.parts) == {"size", "sharpness", "frontality", "exposure", "edge", "score"}
    assert all(0 <= value <= 1 for value in shot.parts.values())


def test_the_wait_is_kept_while_the_face_is_hidden(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=1.0)
    feed(policy, photograph, [(0.0, face()), (0.1, face())])
    assert policy.update(frame(photograph, 0.9), Update([], [])).shots == []
    assert len(policy.update(frame(photograph, 1.0), Update([], [])).shots) == 1


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
    policy.update(frame(photograph, 3.0, still=True), Update([Sighting(1, face(score=0.75))], []))
    assert len(policy.finish([1])) == 1


def test_a_second_look_a_minute_later_makes_no_face_certain(photograph: Image) -> None:
    gate = Gate()
    policy = BestShot(gate=gate)
    assert feed(policy, photograph, [(60.0 * n, face(score=0.75)) for n in range(5)]) == []
    assert policy.finish([1]) == []
    assert gate.refused == {"fleeting": 1}


def test_the_first_good_picture_is_sent_at_once_and_the_best_when_it_is_due(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=2.0, first=True)
    faces = [(at, face(turn=0.0 if at == 1.2 else 0.25)) for at in times(0, 5)]
    shots = feed(policy, photograph, faces)
    assert [(shot.pts, shot.track) for shot in shots] == [(0.0, 1), (1.2, 1)]
    assert policy.finish([1]) == []


def test_the_first_picture_is_enough_where_none_is_clearly_better(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=2.0, first=True)
    faces = [(at, face(turn=0.0 if at == 1.2 else 0.02)) for at in times(0, 5)]
    assert [shot.pts for shot in feed(policy, photograph, faces)] == [0.0]
    assert policy.finish([1]) == []


def test_the_first_picture_waits_until_it_is_certain(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), first=True)
    assert update(policy, photograph, 0.0, face(score=0.75, turn=0.2))[0] == []
    shots, look = update(policy, photograph, 0.1, face(score=0.75))
    assert [shot.pts for shot in shots] == [0.1]
    assert look.verdict == "sent"


def test_the_best_of_a_short_visit_is_sent_at_its_end_after_the_first(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), first=True)
    feed(policy, photograph, [(0.0, face(turn=0.25)), (0.5, face())])
    assert [shot.pts for shot in policy.finish([1])] == [0.5]


def test_a_clearly_better_picture_is_sent_again_if_asked(photograph: Image) -> None:
    far, nearer, near = face(turn=0.25), face(turn=0.23), face()
    faces = [(at, near if at >= 8.5 else nearer if at >= 5 else far) for at in times(0, 20)]
    assert [shot.pts for shot in feed(BestShot(gate=Gate()), photograph, faces)] == [0.0]
    policy = BestShot(gate=Gate(), again=True)
    shots = feed(policy, photograph, faces)
    assert [(shot.pts, shot.track) for shot in shots] == [(0.0, 1), (8.5, 1)]
    assert shots[1].quality > 1.15 * shots[0].quality
    assert policy.finish([1]) == []


def test_what_is_better_again_is_sent_at_the_visits_end(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), again=True)
    assert len(feed(policy, photograph, [(at, face(turn=0.25)) for at in times(0, 4)])) == 1
    assert feed(policy, photograph, [(4.0, face())]) == []
    assert [shot.pts for shot in policy.finish([1])] == [4.0]


def test_each_look_says_what_became_of_it(photograph: Image) -> None:
    policy = BestShot(gate=Gate(), wait_s=1.0)
    looks = [
        update(policy, photograph, pts, detection)[1]
        for pts, detection in (
            (0.0, face(turn=0.8)), (0.1, face(turn=0.2)), (0.2, face(turn=0.25)), (0.3, face()),
            (1.1, face(turn=0.2)), (1.2, face()),
        )
    ]  # fmt: skip
    assert [each.verdict for each in looks] == ["averted", "best", "kept", "best", "kept", "sent"]
    # What cannot be the best by its place and landmarks alone is not measured.
    assert [each.quality is None for each in looks] == [True, False, True, False, True, True]


def test_what_is_not_measured_would_not_have_been_chosen(photograph: Image) -> None:
    rng = np.random.default_rng(5)
    faces = [
        face(x=float(rng.uniform(150, 250)), turn=float(rng.uniform(-0.4, 0.4)), score=float(score))
        for score in rng.uniform(0.7, 1.0, 80)
    ]
    policy = BestShot(gate=Gate(min_sharpness=0), wait_s=60)
    looks = [update(policy, photograph, n / 10, each)[1] for n, each in enumerate(faces)]
    (shot,) = policy.finish([1])
    assert shot.quality == max(measure(Pixels(photograph), each).total for each in faces)
    assert sum(look.quality is None for look in looks) > 20


def test_a_visit_of_smears_is_refused_and_counted(photograph: Image) -> None:
    gate = Gate()
    policy = BestShot(gate=gate)
    smear = cast("Image", cv2.blur(photograph, (40, 1)))
    shots, look = update(policy, smear, 0.0, face())
    assert (shots, look.verdict) == ([], "smeared")
    assert look.quality is not None
    assert feed(policy, smear, [(at, face()) for at in times(0.1, 4)]) == []
    assert policy.finish([1]) == []
    assert gate.refused == {"smeared": 40}


def test_a_sharp_picture_among_smears_is_sent(photograph: Image) -> None:
    policy = BestShot(gate=Gate())
    smear = cast("Image", cv2.blur(photograph, (40, 1)))
    feed(policy, smear, [(at, face()) for at in times(0, 1)])
    feed(policy, photograph, [(1.0, face())])
    feed(policy, smear, [(at, face()) for at in times(1.1, 2)])
    assert [shot.pts for shot in policy.finish([1])] == [1.0]


def test_what_is_on_a_screen_is_counted_and_not_sent(photograph: Image) -> None:
    gate = Gate()
    policy = BestShot(gate=gate, wait_s=0.0)
    decision = policy.update(frame(photograph, 0.0), Update([Sighting(7, face(), screen=True)], []))
    assert decision.shots == []
    assert decision.looks == [Look(7, face(), None, "screen")]
    assert gate.refused == {"screen": 1}


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
    raster = Pixels(photograph)
    good = measure(raster, face()).total
    blurred = Pixels(cast("Image", cv2.GaussianBlur(photograph, (0, 0), 4)))
    dark = Pixels(cast("Image", cv2.convertScaleAbs(photograph, alpha=0.1)))
    assert measure(blurred, face()).total < good
    assert measure(dark, face()).total < good
    assert measure(raster, face(turn=0.3)).total < good
    assert measure(raster, face(width=40)).total < good
    assert measure(raster, face(x=0)).parts["edge"] == 0
    assert measure(raster, face(score=0.5)).total < good
    assert 0 <= measure(raster, face(x=WIDTH + 50)).total <= 1


def sharp(image: Image, detection: Detection) -> float:
    return measure(Pixels(image), detection).parts["sharpness"]


@pytest.mark.parametrize("kernel", [(15, 1), (1, 15), (11, 11)])
def test_a_smear_in_any_direction_is_seen(photograph: Image, kernel: tuple[int, int]) -> None:
    smear = cast("Image", cv2.blur(photograph, kernel))
    assert sharp(smear, face()) < 0.6 * sharp(photograph, face())


@pytest.mark.parametrize("sigma", [4, 8, 16])
def test_noise_does_not_pass_for_sharpness(photograph: Image, sigma: int) -> None:
    grain = np.random.default_rng(sigma).normal(0, sigma, photograph.shape)

    def noisy(image: Image) -> Image:
        return np.clip(image + grain, 0, 255).astype(np.uint8)

    assert sharp(noisy(photograph), face()) <= sharp(photograph, face()) + 0.05
    smear = cast("Image", cv2.blur(photograph, (25, 1)))
    assert sharp(noisy(smear), face()) < sharp(photograph, face())


def test_blocks_of_a_strong_jpeg_do_not_pass_for_sharpness(photograph: Image) -> None:
    smear = cast("Image", cv2.blur(photograph, (25, 1)))
    blocks = cv2.imdecode(cv2.imencode(".jpg", smear, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_COLOR)
    assert sharp(cast("Image", blocks), face()) < 0.6 * sharp(photograph, face())


def test_neither_light_nor_size_makes_a_face_sharper(photograph: Image) -> None:
    dim = cast("Image", cv2.convertScaleAbs(photograph, alpha=0.5))
    assert sharp(dim, face()) == pytest.approx(sharp(photograph, face()), abs=0.1)
    large = cast("Image", cv2.resize(photograph, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    twice = face(400, 300, 200)
    assert sharp(large, twice) == pytest.approx(sharp(photograph, face()), abs=0.15)


def test_a_ramp_of_grey_is_no_detail_and_noise_alone_is_none() -> None:
    ramp = np.tile(np.arange(0, 160, 4, dtype=np.uint8), (40, 1))
    assert sharpness(ramp) == pytest.approx(0.0, abs=0.02)
    grain = np.random.default_rng(1).normal(128, 8, (40, 40)).clip(0, 255).astype(np.uint8)
    assert sharpness(grain) < 0.3
    assert sharpness(np.full((16, 16), 90, np.uint8)) == 0.0


class OneFace:
    """A detector that finds the same face in each frame."""

    size = 0

    def detect(self, image: Image) -> list[Detection]:
        assert image.size
        return [face()]


def test_a_face_does_not_wait_for_a_camera_that_has_fallen_silent(photograph: Image) -> None:
    taken: list[float] = []

    def frames() -> Iterator[Frame]:
        for n in range(40):
            taken.append(n / 10)
            yield frame(photograph if n < 5 else None, n / 10)

    eyes = Eyes(
        search=Search(OneFace()), tracker=Tracker(gap_s=1.5), policy=BestShot(gate=Gate(), wait_s=2.0)
    )
    shots = eyes.watch(frames())
    assert next(shots).pts < 0.5
    assert taken[-1] == pytest.approx(2.0)
    assert list(shots) == []
    assert (eyes.counters.frames, eyes.counters.detections, eyes.counters.shots) == (5, 5, 1)


def test_a_face_is_not_lost_with_the_camera(photograph: Image) -> None:
    def frames() -> Iterator[Frame]:
        for n in range(5):
            yield frame(photograph, n / 10)
        raise CameraError("a.mp4", "its pictures are damaged")

    shots = Eyes(search=Search(OneFace()), tracker=Tracker(), policy=BestShot(gate=Gate())).watch(frames())
    assert next(shots).pts < 0.5
    with pytest.raises(CameraError, match="damaged"):
        next(shots)
