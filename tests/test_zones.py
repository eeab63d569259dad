from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facerelay.edge.cameras.raster import Box, Image, Pixels, Planes, Raster
from facerelay.edge.eyes.detect import Detection
from facerelay.edge.eyes.zones import Polygon, Zones

LEFT_HALF: Polygon = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]
TRIANGLE: Polygon = [(0.2, 0.1), (0.8, 0.3), (0.4, 0.9)]
BOW_TIE: Polygon = [(0, 0), (1, 1), (1, 0), (0, 1)]
STAR: Polygon = [(0.5, 0), (0.8, 1), (0, 0.4), (1, 0.4), (0.2, 1)]
LINE: Polygon = [(0, 0), (0.5, 0.5), (1, 1)]

share_of = st.integers(0, 999).map(lambda n: n / 999)
corner = st.tuples(share_of, share_of)
polygons = st.lists(st.lists(corner, min_size=3, max_size=6), min_size=1, max_size=3)


def at(x: float, y: float) -> Detection:
    """A face of 20 pixels whose centre is there."""
    return Detection((x - 10, y - 10, 20, 20), 0.9)


def noise(seed: int, *shape: int) -> Image:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def under(mask: Polygon, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels whose middle a polygon covers, height x width, by counting sides to the left."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    inside = np.zeros(x.shape, np.bool_)
    for (ax, ay), (bx, by) in zip(mask, [*mask[1:], mask[0]], strict=True):
        ax, bx, ay, by = ax * size[0], bx * size[0], ay * size[1], by * size[1]  # noqa: PLW2901 - in pixels
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x > ax + (y - ay) * ((bx - ax) / (by - ay)))
    return inside


def twins(kind: str, masks: list[Polygon], size: tuple[int, int]) -> tuple[Raster, Raster]:
    """Return two pictures that differ wherever a mask covers the middle of a pixel, and nowhere else."""
    covered = np.any([under(mask, size) for mask in masks], axis=0)
    width, height = size
    if kind == "pixels":
        one, other = noise(1, height, width, 3), noise(2, height, width, 3)
        return Pixels(one), Pixels(np.where(covered[..., None], other, one))
    half = covered.reshape(height // 2, 2, width // 2, 2).any(axis=(1, 3))
    ones = [noise(seed, *hidden.shape) for seed, hidden in ((1, covered), (2, half), (3, half))]
    others = [
        np.where(hidden, noise(seed, *hidden.shape), plane)
        for seed, hidden, plane in ((4, covered, ones[0]), (5, half, ones[1]), (6, half, ones[2]))
    ]
    return Planes(*ones), Planes(*others)


def test_without_masks_it_is_the_very_same_picture() -> None:
    raster = Pixels(noise(1, 40, 60, 3))
    assert Zones().masked(raster) is raster
    assert Zones(zones=[LEFT_HALF]).masked(raster) is raster


@settings(max_examples=200, deadline=None)
@given(
    masks=polygons,
    kind=st.sampled_from(["pixels", "planes"]),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    share=st.one_of(st.floats(0.7, 1.1), st.floats(0, 1)),
    data=st.data(),
)
def test_nothing_given_out_depends_on_what_is_masked(
    masks: list[Polygon], kind: str, size: tuple[int, int], share: float, data: st.DataObject
) -> None:
    size = 2 * size[0], 2 * size[1]
    one, other = (Zones(masks=masks).masked(raster) for raster in twins(kind, masks, size))
    left, top = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    box = left, top, data.draw(st.integers(1, size[0] - left)), data.draw(st.integers(1, size[1] - top))
    side = max(1, round(share * max(size)))
    assert one.size == size
    assert np.array_equal(one.small(side), other.small(side))
    assert np.array_equal(one.cut(box), other.cut(box))
    assert np.array_equal(one.luma(), other.luma())


@pytest.mark.parametrize("kind", ["pixels", "planes"])
def test_a_mask_is_black_everywhere_and_hides_no_more_than_its_edge(kind: str) -> None:
    size = 640, 360
    raster, _ = twins(kind, [TRIANGLE], size)
    masked = Zones(masks=[TRIANGLE]).masked(raster)
    whole: Box = (0, 0, *size)
    covered = under(TRIANGLE, size)
    near = cv2.dilate(covered.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
    assert not masked.cut(whole)[covered].any()
    assert not masked.luma()[covered].any()
    assert np.array_equal(masked.cut(whole)[~near], raster.cut(whole)[~near])
    assert np.array_equal(masked.luma()[~near], raster.luma()[~near])
    assert not masked.small(320)[under(TRIANGLE, (320, 180))].any()
    assert masked.small(320).any()


@pytest.mark.parametrize("kind", ["pixels", "planes"])
def test_the_camera_s_own_picture_stays_as_it_is(kind: str) -> None:
    raster, _ = twins(kind, [LEFT_HALF], (64, 48))
    whole: Box = (0, 0, 64, 48)
    before = raster.cut(whole), raster.small(64).copy(), raster.luma().copy()
    masked = Zones(masks=[LEFT_HALF]).masked(raster)
    masked.small(64), masked.small(1000), masked.cut(whole), masked.luma()
    for was, now in zip(before, (raster.cut(whole), raster.small(64), raster.luma()), strict=True):
        assert np.array_equal(was, now)


def test_masks_that_overlap_leave_no_hole() -> None:
    image = Zones(masks=[LEFT_HALF, TRIANGLE]).masked(Pixels(np.full((200, 200, 3), 255, np.uint8))).luma()
    assert not image[under(LEFT_HALF, (200, 200)) | under(TRIANGLE, (200, 200))].any()


def test_a_mask_whose_sides_cross_leaves_no_hole_and_one_without_area_does_no_harm() -> None:
    white = Pixels(np.full((200, 200, 3), 255, np.uint8))
    assert Zones(masks=[STAR]).masked(white).luma()[120, 100] == 0
    tied = Zones(masks=[BOW_TIE]).masked(white).luma()
    assert not tied[under(BOW_TIE, (200, 200))].any()
    assert tied[20, 100] == tied[180, 100] == 255
    lined = Zones(masks=[LINE, [(0.7, 0.1)] * 3]).masked(white).luma()
    assert lined[100, 100] == lined[20, 140] == 0
    assert float((lined == 0).mean()) < 0.08


def test_the_luma_of_a_masked_picture_is_made_once() -> None:
    masked = Zones(masks=[LEFT_HALF]).masked(twins("planes", [LEFT_HALF], (64, 48))[0])
    assert np.shares_memory(masked.luma(), masked.luma())


@pytest.mark.parametrize(
    ("zones", "x", "y", "held"),
    [
        ([], 900, 900, True),
        ([LEFT_HALF], 100, 50, True),
        ([LEFT_HALF], 300, 50, False),
        ([LEFT_HALF], 200, 50, True),
        ([LEFT_HALF], -5, 50, True),
        ([LEFT_HALF], 405, 50, False),
        ([LEFT_HALF, [(0.9, 0), (1, 0), (1, 1), (0.9, 1)]], 380, 50, True),
        ([TRIANGLE], 180, 90, True),
        ([TRIANGLE], 350, 180, False),
        ([BOW_TIE], 200, 20, False),
        ([BOW_TIE], 20, 100, True),
        ([LINE], 300, 20, False),
    ],
)
def test_a_face_counts_where_its_centre_lies_in_a_zone(
    zones: list[Polygon], x: float, y: float, *, held: bool
) -> None:
    assert Zones(zones=zones).hold(at(x, y), (400, 200)) is held


@given(mask=st.lists(corner, min_size=3, max_size=6), where=corner)
def test_a_zone_holds_what_its_polygon_covers(mask: Polygon, where: tuple[float, float]) -> None:
    size = 1000, 1000
    x, y = (min(999, int(share * 1000)) + 0.5 for share in where)
    contour = (np.asarray(mask, np.float32) * 1000).astype(np.float32)
    if abs(cv2.pointPolygonTest(contour, (x, y), measureDist=True)) < 1:
        return
    assert Zones(zones=[mask]).hold(at(x, y), size) == under(mask, size)[int(y), int(x)]
