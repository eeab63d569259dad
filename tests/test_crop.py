from __future__ import annotations

import io
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerelay import face
from facerelay.config import Camera, Config
from facerelay.edge.cameras import portrait
from facerelay.edge.cameras.camera import open_camera
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.eyes import crop
from facerelay.edge.eyes.best import BestShot, Shot
from facerelay.edge.eyes.crop import Format, align, crop_box, encode, room_to_turn
from facerelay.edge.eyes.detect import Detection, Detector, make_detector
from facerelay.edge.eyes.freeze import encode_face
from facerelay.edge.eyes.quality import Gate
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.eyes.watch import Eyes
from facerelay.edge.outbox import Outbox
from facerelay.edge.watcher import Watcher
from facerelay.sections import PictureFormat

FORMATS: tuple[Format, ...] = ("jpeg", "png", "webp")
Make = Callable[..., face.Frozen]
Corners = tuple[tuple[float, float], ...]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("auto")


@pytest.fixture(scope="module")
def photograph() -> Image:
    return portrait._read(portrait.COLLINS)


@pytest.fixture(scope="module")
def noise() -> Image:
    return np.random.default_rng(1).integers(0, 256, (480, 400, 3), dtype=np.uint8)


def decoded(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return cast("Image", image)


def tilted(image: Image, degrees: float) -> Image:
    """Return a picture turned clockwise about its middle."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    return cast("Image", cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))


def found(detector: Detector, image: Image) -> Detection:
    (detection,) = Search(detector).find(Pixels(image))
    return detection


def test_a_crop_has_its_margin_and_stays_in_the_frame() -> None:
    assert crop_box((100, 100, 100, 100), (640, 480), 0.3) == (70, 70, 160, 160)
    assert crop_box((10, 10, 100, 100), (640, 480), 0.3) == (0, 0, 140, 140)
    assert crop_box((600, 440, 100, 100), (640, 480), 0.3) == (570, 410, 70, 70)


sides = st.integers(1, 2000)
places = st.floats(-3000, 3000)


@given(
    box=st.tuples(places, places, st.floats(0, 3000), st.floats(0, 3000)),
    size=st.tuples(sides, sides),
    margin=st.floats(0, 2),
)
def test_a_crop_of_any_box_has_a_pixel_and_lies_in_the_frame(
    box: tuple[float, float, float, float], size: tuple[int, int], margin: float
) -> None:
    x, y, w, h = crop_box(box, size, margin)
    assert 0 <= x < x + w <= size[0]
    assert 0 <= y < y + h <= size[1]


def part_of(image: Image, detection: Detection, margin: float) -> tuple[Image, Detection]:
    """Return a face with room to turn, and where it is in that."""
    size = image.shape[1], image.shape[0]
    left, top, width, height = crop_box(detection.box, size, room_to_turn(margin))
    x, y, w, h = detection.box
    landmarks = tuple((px - left, py - top) for px, py in detection.landmarks)
    part = image[top : top + height, left : left + width]
    return part, Detection((x - left, y - top, w, h), detection.score, landmarks)


def blind(image: Image) -> list[Detection]:
    assert image.size
    return []


def face_at(x: float, y: float, turn: float) -> Detection:
    """A face of 100 pixels about a point, tilted clockwise by so many radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    upright = (-20, -15), (20, -15), (0, 5), (-15, 25), (15, 25)
    landmarks = tuple((x + cos * px - sin * py, y + sin * px + cos * py) for px, py in upright)
    return Detection((x - 50, y - 50, 100, 100), 0.9, landmarks)


@pytest.mark.parametrize("degrees", [-30, -20, 20, 30])
@pytest.mark.parametrize("who", [portrait.COLLINS, portrait.HOPPER], ids=["Collins", "Hopper"])
def test_a_tilted_face_is_set_upright(detector: Detector, who: portrait.Source, degrees: float) -> None:
    image = tilted(portrait._read(who), degrees)
    detection = found(detector, image)
    part, placed = part_of(image, detection, 0.3)
    upright = align(part, placed, margin=0.3, look=detector.detect)
    _, _, w, h = crop_box(detection.box, (image.shape[1], image.shape[0]), 0.3)
    assert upright.shape == (h, w, 3)
    straight = tilted(image, -degrees)
    middle = found(detector, straight).box
    x, y = round(middle[0] + middle[2] / 2 - w / 2), round(middle[1] + middle[3] / 2 - h / 2)
    wanted = straight[y : y + h, x : x + w]
    left = max((likeness(wanted, tilted(upright, turn)), turn) for turn in range(-30, 31, 3))[1]
    assert abs(left) < 0.5 * abs(degrees)


def likeness(one: Image, other: Image) -> float:
    """Return the best correlation of the middle of one picture with any place of the other."""
    height, width = one.shape[:2]
    middle = one[height // 4 : -height // 4, width // 4 : -width // 4]
    return float(cv2.matchTemplate(other, middle, cv2.TM_CCOEFF_NORMED).max())


def test_an_aligned_crop_shows_the_frame_in_its_corners_and_the_edge_beyond() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[10:-10, 10:-10] = 255

    def corner(at: float) -> Image:
        part, placed = part_of(image, face_at(at, at, 0.6), 0.3)
        return align(part, placed, margin=0.3, look=blind)

    assert corner(200).min() == 255
    assert corner(60).shape == (140, 140, 3)
    assert not corner(60)[:5, 20:40].any()


@pytest.mark.parametrize("degrees", [-50, -10, 3, 30, 50])
def test_what_is_right_of_a_tilted_face_is_right_of_the_upright_one(degrees: float) -> None:
    turn = math.radians(degrees)
    image = np.zeros((300, 300, 3), np.uint8)
    at = 150 + 40 * math.cos(turn), 150 + 40 * math.sin(turn)
    cv2.circle(image, (round(at[0] * 16 - 8), round(at[1] * 16 - 8)), 4 * 16, (255, 255, 255), -1, shift=4)
    part, placed = part_of(image, face_at(150, 150, turn), 0.2)
    where = cv2.moments(align(part, placed, margin=0.2, look=blind)[:, :, 1])
    assert where["m10"] / where["m00"] == pytest.approx(70 + 40 - 0.5, abs=0.25)
    assert where["m01"] / where["m00"] == pytest.approx(70 - 0.5, abs=0.25)


def test_a_face_is_turned_on_while_the_detector_still_sees_a_tilt(photograph: Image) -> None:
    seen: list[Image] = []

    def look(image: Image) -> list[Detection]:
        seen.append(image)
        beside = face_at(-30, 20, 1.0)
        return [beside, face_at(80, 80, 0.1 if len(seen) < 3 else 0.0)]

    part, placed = part_of(photograph, face_at(215, 120, 0.2), 0.3)
    result = align(part, placed, margin=0.3, look=look)
    assert len(seen) == 3
    part, placed = part_of(photograph, face_at(215, 120, 0.4), 0.3)
    assert np.array_equal(result, align(part, placed, margin=0.3, look=blind))


@pytest.mark.parametrize("landmarks", [(), face_at(215, 120, 0).landmarks, ((math.nan, 1.0),) * 5])
def test_a_face_that_needs_no_turn_is_as_it_is(
    photograph: Image, landmarks: tuple[tuple[float, float], ...]
) -> None:
    part, placed = part_of(photograph, Detection((165, 70, 100, 100), 0.9, landmarks), 0.3)
    image = align(part, placed, margin=0.3, look=blind)
    assert np.array_equal(image, photograph[40:200, 135:295])
    assert image.base is None


@given(
    at=st.tuples(st.floats(-40, 160), st.floats(-40, 130)),
    turn=st.floats(-math.pi, math.pi),
    margin=st.floats(0, 2),
)
def test_a_turned_crop_has_the_size_of_the_plain_one(
    at: tuple[float, float], turn: float, margin: float
) -> None:
    image = np.full((90, 120, 3), 77, np.uint8)
    detection = face_at(*at, turn)
    part, placed = part_of(image, detection, margin)
    upright = align(part, placed, margin=margin, look=blind)
    _, _, w, h = crop_box(detection.box, (120, 90), margin)
    assert upright.shape == (h, w, 3)
    assert (upright == 77).all()


@pytest.mark.parametrize(
    ("form", "magic"), [("jpeg", b"\xff\xd8\xff"), ("png", b"\x89PNG"), ("webp", b"RIFF")]
)
@pytest.mark.parametrize("grey", [False, True])
def test_pictures_are_encoded(photograph: Image, form: Format, magic: bytes, *, grey: bool) -> None:
    data = encode(photograph, format=form, quality=80, grey=grey, max_side=320)
    assert data.startswith(magic)
    image = decoded(data)
    assert image.shape[:2] == (320, 320)
    if form == "webp":
        assert image.shape[2:] == (3,)
    else:
        assert image.ndim == (2 if grey else 3)
    if grey and image.ndim == 3:
        assert np.ptp(image.astype(int), axis=2).max() < 12


def test_a_small_picture_is_never_made_larger(photograph: Image) -> None:
    assert decoded(encode(photograph[:30, :20], max_side=640)).shape == (30, 20, 3)
    assert decoded(encode(photograph[:9, :5], format="png", max_bytes=1)).shape == (9, 5, 3)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("most", [1_000, 3_000, 8_000, 30_000, 100_000])
def test_a_picture_keeps_to_its_bytes_and_uses_them(
    photograph: Image, noise: Image, form: Format, most: int, *, grey: bool
) -> None:
    for image in (photograph, noise):
        free = encode(image, format=form, grey=grey)
        data = encode(image, format=form, grey=grey, max_bytes=most)
        assert len(data) <= most
        assert data == encode(image, format=form, grey=grey, max_bytes=most)
        assert data == free or len(data) > 0.75 * most
        assert max(decoded(data).shape) <= max(image.shape)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_quality_goes_before_size(photograph: Image, form: Format) -> None:
    free, least = encode(photograph, format=form), encode(photograph, format=form, quality=40)
    between = (len(free) + len(least)) // 2
    middle = encode(photograph, format=form, max_bytes=between)
    assert decoded(middle).shape == photograph.shape
    assert len(least) < len(middle) <= between
    assert decoded(encode(photograph, format=form, max_bytes=len(least))).shape == photograph.shape
    assert max(decoded(encode(photograph, format=form, max_bytes=len(least) - 1)).shape[:2]) < 512


@pytest.mark.parametrize("form", FORMATS)
def test_it_takes_eight_encodings_at_most(
    monkeypatch: pytest.MonkeyPatch, photograph: Image, noise: Image, form: Format
) -> None:
    made: list[int] = []
    real = crop._encoded

    def counted(image: Image, form: Format, quality: int) -> bytes:
        made.append(quality)
        return real(image, form, quality)

    monkeypatch.setattr(crop, "_encoded", counted)
    for image in (photograph, noise, noise[:17], noise[:, :1]):
        for most in (1, 300, 700, 1_500, 5_000, 20_000, 60_000, 150_000):
            made.clear()
            encode(image, format=form, quality=95, max_bytes=most)
            assert 1 <= len(made) <= 8


def test_an_impossible_picture_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="cannot encode"):
        encode(np.zeros((0, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="as tiff"):
        encode(np.zeros((5, 5, 3), np.uint8), format=cast("Format", "tiff"))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_a_sealed_face_keeps_to_the_target_with_all_that_is_known_of_it(
    make_face: Make, noise: Image, form: Format, *, grey: bool
) -> None:
    known = make_face(site="s" * 63, camera="c" * 63, parts=dict.fromkeys("abcdefghi", 0.1234)).face
    for wanted, most in ((2_000, 10**6), (9_000, 10**6), (None, 10_000), (50_000, 10_000)):
        settings = PictureFormat(format=form, grey=grey, max_bytes=wanted)
        frozen = encode_face(known, noise, form=settings, most=most)
        assert len(frozen.data) <= min(wanted or most, most)
        read = face.parse(frozen.data, face.Limits())
        assert read.face.id == known.id
        with PIL.Image.open(io.BytesIO(frozen.data)) as image:
            image.load()


def test_a_face_that_cannot_be_so_small_is_made_all_the_same_and_logged(
    make_face: Make, noise: Image, caplog: pytest.LogCaptureFixture
) -> None:
    known = make_face().face
    with caplog.at_level(logging.WARNING):
        frozen = encode_face(known, noise, form=PictureFormat(), most=500)
    assert max(decoded(frozen.data).shape) == 16
    (record,) = caplog.records
    said = f"camera door: a face has {len(frozen.data)} bytes, over limits.message_bytes = 500"
    assert record.message.startswith(said)


def kept(
    folder: Path,
    detector: Detector,
    source: Path,
    *,
    form: PictureFormat | None = None,
    zones: tuple[Corners, ...] = (),
    masks: tuple[Corners, ...] = (),
) -> list[face.Frozen]:
    """Return the faces that a camera puts into an outbox, with these settings."""
    camera = Camera(name="door", source=str(source), zones=zones, masks=masks)
    config = Config(camera=(camera,), picture=form or PictureFormat())
    with Outbox(folder / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        stop = threading.Event()
        watcher = Watcher(camera, config=config, detector=detector, outbox=outbox, stop=stop)
        watcher.run()
        assert watcher.failure is None
        return [face.parse(each.data, face.Limits()) for each in outbox.backlog(0, 10**8).result()]


@pytest.fixture
def tilted_portrait(tmp_path: Path) -> Path:
    path = tmp_path / "portrait.png"
    cv2.imwrite(str(path), tilted(portrait._read(portrait.HOPPER), 20))
    return path


def test_a_camera_s_faces_are_upright_and_of_their_size_if_so_set(
    tmp_path: Path, detector: Detector, tilted_portrait: Path
) -> None:
    (plain,) = kept(tmp_path / "a", detector, tilted_portrait)
    form = PictureFormat(align=True, format="webp", grey=True, max_side=100, max_bytes=2500)
    (upright,) = kept(tmp_path / "b", detector, tilted_portrait, form=form)
    assert upright.extension == "webp"
    assert len(upright.data) <= 2500
    assert max(decoded(upright.data).shape) <= 100
    assert upright.face.box == plain.face.box
    assert upright.face.frame == plain.face.frame
    image = cv2.cvtColor(decoded(upright.data), cv2.COLOR_BGR2GRAY)
    crooked = cv2.cvtColor(decoded(plain.data), cv2.COLOR_BGR2GRAY)
    crooked = cv2.resize(crooked, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)
    straight = tilted(cast("Image", crooked), -20)
    assert likeness(straight, cast("Image", image)) > likeness(cast("Image", crooked), cast("Image", image))
    assert likeness(straight, cast("Image", image)) > 0.7


def test_a_camera_keeps_no_face_beyond_its_zones_and_none_behind_its_masks(
    tmp_path: Path, detector: Detector, tilted_portrait: Path
) -> None:
    (found,) = kept(tmp_path / "a", detector, tilted_portrait)
    (x, y, w, h), (width, height) = found.face.box, found.face.frame
    left, right, top, bottom = x / width, (x + w) / width, y / height, (y + h) / height
    over = (left, top), (right, top), (right, bottom), (left, bottom)
    beside = (0.0, 0.9), (0.1, 0.9), (0.1, 1.0), (0.0, 1.0)
    assert len(kept(tmp_path / "b", detector, tilted_portrait, zones=(over,))) == 1
    assert kept(tmp_path / "c", detector, tilted_portrait, zones=(beside,)) == []
    assert len(kept(tmp_path / "d", detector, tilted_portrait, masks=(beside,))) == 1
    assert kept(tmp_path / "e", detector, tilted_portrait, masks=(over,)) == []


@pytest.fixture(scope="module")
def shots(media: Path, detector: Detector) -> list[Shot]:
    """Return the faces of two clips, with a wide margin."""
    taken: list[Shot] = []
    for clip in ("again.mkv", "walk.mkv"):
        path = str(media / "clips" / f"intel_asl_{clip}")
        frames = open_camera(path, pace=False, stop=threading.Event())
        policy = BestShot(gate=Gate(), margin=0.6)
        taken += Eyes(search=Search(detector), tracker=Tracker(), policy=policy).watch(frames)
    return taken


@pytest.mark.media
@pytest.mark.parametrize("form", FORMATS)
def test_a_real_face_keeps_to_its_bytes_and_stays_a_face(
    shots: list[Shot], detector: Detector, form: Format
) -> None:
    assert len(shots) == 2
    for shot in shots:
        for most in (3_000, 6_000, 12_000) if form != "png" else (24_000, 48_000):
            data = encode(shot.crop, format=form, max_bytes=most)
            assert 0 < len(data) <= most
            image = decoded(data)
            assert len(detector.detect(image)) == 1
