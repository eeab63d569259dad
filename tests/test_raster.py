from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerelay.edge.cameras.camera import open_camera
from facerelay.edge.cameras.raster import Image, Pixels, Planes, Raster
from facerelay.edge.cameras.scene import Scene
from facerelay.edge.cameras.video import to_raster

CLIP = "intel_one-by-one-person-detection.mp4"
"""768 x 432 in planes, which signers and GIFs are not."""


def noise(seed: int, *shape: int) -> Image:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def planes(width: int, height: int) -> tuple[Image, Image, Image]:
    return noise(1, height, width), noise(2, height // 2, width // 2), noise(3, height // 2, width // 2)


def whole(y: Image, u: Image, v: Image) -> Image:
    """Return all of it as BGR, by OpenCV's own layout of one plane over the other."""
    rows = np.concatenate([y.ravel(), u.ravel(), v.ravel()]).reshape(-1, y.shape[1])
    return cast("Image", cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_I420))


def differ(one: Image, other: Image) -> int:
    assert one.shape == other.shape
    return int(cv2.absdiff(one, other).max())


boxes = st.tuples(st.integers(0, 63), st.integers(0, 47), st.integers(1, 64), st.integers(1, 48)).filter(
    lambda box: box[0] + box[2] <= 64 and box[1] + box[3] <= 48
)
sizes = st.tuples(st.integers(1, 900), st.integers(1, 900))


@given(box=boxes)
def test_a_part_of_a_picture_is_that_of_the_whole(box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    image, parts = noise(4, 48, 64, 3), planes(64, 48)
    cut = Pixels(image).cut(box)
    assert np.array_equal(cut, image[y : y + h, x : x + w])
    assert not np.shares_memory(cut, image)
    assert differ(Planes(*parts).cut(box), whole(*parts)[y : y + h, x : x + w]) <= 2


@given(size=sizes, side=st.integers(1, 1000))
def test_a_small_picture_has_its_sides_and_never_none(size: tuple[int, int], side: int) -> None:
    width, height = size
    even = 2 * width, 2 * height
    y, half = np.zeros(even[::-1], np.uint8), np.zeros(size[::-1], np.uint8)
    rasters: list[Raster] = [Pixels(np.zeros((height, width, 3), np.uint8)), Planes(y, half, half)]
    for raster in rasters:
        small = raster.small(side)
        assert small.shape[2] == 3
        assert min(small.shape) > 0
        assert max(small.shape[:2]) <= max(side + 1, 2)
        assert (
            small.shape[1] / small.shape[0]
            == pytest.approx(raster.size[0] / raster.size[1], rel=2 / min(small.shape[:2]))
            or min(small.shape[:2]) <= 2
        )


@pytest.mark.parametrize("side", [64, 100])
def test_a_picture_that_is_small_already_stays_as_it_is(side: int) -> None:
    image, parts = noise(4, 48, 64, 3), planes(64, 48)
    assert np.array_equal(Pixels(image).small(side), image)
    assert differ(Planes(*parts).small(side), whole(*parts)) <= 2


def test_the_brightness_is_a_view_of_full_size() -> None:
    image, parts = noise(4, 48, 64, 3), planes(64, 48)
    assert np.shares_memory(Pixels(image).luma(), image)
    assert np.shares_memory(Planes(*parts).luma(), parts[0])
    assert Pixels(image).luma().shape == Planes(*parts).luma().shape == (48, 64)
    assert Pixels(image).size == Planes(*parts).size == (64, 48)


def encoded(path: Path, size: tuple[int, int]) -> list[Image]:
    """Write a clip of three smooth pictures, which its frames decode to, and return them."""
    images = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for n in range(3):
            across, down = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
            image = np.stack([across, down, (across + down) / 2 + 9 * n], axis=2).astype(np.uint8)
            images.append(image)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return images


@pytest.fixture
def frames(tmp_path: Path) -> Iterator[tuple[Image, av.VideoFrame]]:
    """Give a picture, and its frame, whose lines are longer in memory than the picture is wide."""
    images = encoded(tmp_path / "clip.mp4", (90, 62))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.planes[0].line_size > 90
        yield images[0], frame


def test_lines_longer_than_the_picture_is_wide_are_cut_off(frames: tuple[Image, av.VideoFrame]) -> None:
    image, frame = frames
    raster = to_raster(frame)
    assert isinstance(raster, Planes)
    assert raster.size == (90, 62)
    assert raster.luma().shape == (62, 90)
    assert differ(raster.cut((0, 0, 90, 62)), image) < 12
    assert differ(raster.cut((45, 21, 33, 30)), image[21:51, 45:78]) < 12
    small = raster.small(45)
    wanted = cast("Image", cv2.resize(image, (small.shape[1], small.shape[0])))
    assert differ(small, wanted) < 16


def test_the_planes_of_a_decoder_cannot_be_written_to(frames: tuple[Image, av.VideoFrame]) -> None:
    luma = to_raster(frames[1]).luma()
    with pytest.raises(ValueError, match="read-only"):
        luma[0, 0] = 1


def test_a_picture_outlives_its_file(tmp_path: Path) -> None:
    images = encoded(tmp_path / "clip.mp4", (320, 240))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        rasters = [to_raster(frame) for frame in container.decode(video=0)]
    del container
    gc.collect()
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert len(list(container.decode(video=0))) == len(rasters) == 3
    for raster, image in zip(rasters, images, strict=True):
        assert differ(raster.cut((0, 0, 320, 240)), image) < 12


@pytest.mark.media
def test_planes_and_pixels_of_a_real_frame_are_the_same_picture(media: Path) -> None:
    with av.open(str(media / "clips" / CLIP)) as container:
        frame = next(container.decode(video=0))
        planes, pixels = to_raster(frame), Pixels(cast("Image", frame.to_ndarray(format="bgr24")))
    assert isinstance(planes, Planes)
    assert planes.size == pixels.size == (768, 432)
    for box in ((0, 0, 768, 432), (101, 33, 150, 201), (700, 400, 68, 32)):
        one, other = planes.cut(box).astype(int), pixels.cut(box).astype(int)
        assert np.abs(one - other).mean() < 2.5
        assert np.abs(one.mean((0, 1)) - other.mean((0, 1))).max() < 1.5
    small, wanted = planes.small(640).astype(int), pixels.small(640).astype(int)
    assert np.abs(small - wanted).mean() < 2.5


@pytest.mark.media
def test_each_frame_of_a_clip_keeps_its_own_picture(media: Path) -> None:
    opened = open_camera(str(media / "clips" / CLIP), pace=False, stop=threading.Event())
    kept = [frame for frame, _ in zip(opened, range(40), strict=False)]
    with av.open(str(media / "clips" / CLIP)) as container:
        for held, again in zip(kept, container.decode(video=0), strict=False):
            assert held.raster is not None
            assert np.array_equal(held.raster.luma(), to_raster(again).luma())


@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p"])
def test_each_planar_format_gives_the_picture_that_ffmpeg_gives(form: str) -> None:
    scene = cast("Image", cv2.GaussianBlur(Scene().render(30), (5, 5), 0))
    frame = av.VideoFrame.from_ndarray(scene, format="bgr24").reformat(format=form)
    raster = to_raster(frame)
    assert isinstance(raster, Planes)
    theirs = cast("Image", frame.to_ndarray(format="bgr24"))
    for box in ((0, 0, 1280, 720), (401, 203, 133, 97)):
        x, y, w, h = box
        step = cv2.absdiff(raster.cut(box), theirs[y : y + h, x : x + w])
        assert float(step.mean()) < 1.5
    small = cv2.resize(theirs, (640, 360), interpolation=cv2.INTER_AREA)
    assert float(cv2.absdiff(raster.small(640), cast("Image", small)).mean()) < 1.5
