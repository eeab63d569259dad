from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import pytest

from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.cameras.scene import Scene
from facerelay.edge.eyes.motion import Change, Motion

NOISE = 4


@pytest.fixture(scope="module")
def room() -> Image:
    return Scene().render(0)


def noisy(image: Image, seed: int) -> Pixels:
    """As a camera's sensor gives it: each pixel a little off, otherwise each time."""
    noise = np.random.default_rng(seed).normal(0, NOISE, image.shape)
    return Pixels(cast("Image", np.clip(image + noise, 0, 255).astype(np.uint8)))


def with_patch(image: Image, x: int, side: int, more: int = 60) -> Image:
    changed = image.copy()
    part = changed[300 : 300 + side, x : x + side]
    part[:] = np.where(part < 128, part + more, part - more)
    return changed


def test_noise_is_no_motion(room: Image) -> None:
    motion = Motion()
    seen = [motion.see(noisy(room, n), n / 20) for n in range(30)]
    assert seen[0] is Change.SOME
    assert set(seen[1:]) == {Change.NONE}


def test_a_small_face_that_comes_is_motion_even_through_noise(room: Image) -> None:
    motion = Motion()
    motion.see(noisy(room, 0), 0.0)
    assert motion.see(noisy(with_patch(room, 500, 24), 1), 0.1) is Change.SOME
    assert motion.see(noisy(with_patch(room, 500, 24), 2), 0.2) is Change.NONE
    assert motion.see(noisy(with_patch(room, 530, 24), 3), 0.3) is Change.SOME


def test_what_changes_too_slowly_for_two_pictures_to_show_it_is_seen_in_the_end(room: Image) -> None:
    motion = Motion()
    steps = [motion.see(Pixels(with_patch(room, 500, 60, more=n)), n / 100) for n in range(60)]
    assert Change.SOME in steps[1:]
    assert steps.count(Change.NONE) > 30


def test_the_stillest_picture_is_looked_at_once_in_a_while(room: Image) -> None:
    motion = Motion()
    seen = [motion.see(Pixels(room), n / 10) for n in range(101)]
    assert 4 <= seen.count(Change.SOME) <= 6


def test_another_scene_is_a_cut_and_a_change_of_light_is_none(room: Image) -> None:
    motion = Motion()
    motion.see(Pixels(room), 0.0)
    dimmed = cast("Image", (room * 0.5).astype(np.uint8))
    assert motion.see(Pixels(dimmed), 0.1) is Change.SOME
    other = cast("Image", cv2.rotate(255 - room, cv2.ROTATE_180))
    assert motion.see(Pixels(other), 0.2) is Change.CUT


def test_another_size_is_a_cut(room: Image) -> None:
    motion = Motion()
    motion.see(Pixels(room), 0.0)
    assert motion.see(Pixels(cast("Image", cv2.resize(room, (640, 480)))), 0.1) is Change.CUT


@pytest.mark.parametrize("size", [(1280, 2), (16384, 48), (1280, 1), (1, 1280)])
def test_pictures_of_any_shape_are_compared(size: tuple[int, int]) -> None:
    motion = Motion()
    shown = Pixels(np.zeros((size[1], size[0], 3), np.uint8))
    assert [motion.see(shown, pts) for pts in (0.0, 0.1)] == [Change.SOME, Change.NONE]


def test_tiny_and_flat_pictures_are_compared_too() -> None:
    motion = Motion()
    for value, pts in ((10, 0.0), (10, 0.1), (200, 0.2)):
        motion.see(Pixels(np.full((2, 3, 3), value, np.uint8)), pts)
