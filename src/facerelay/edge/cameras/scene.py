"""The built-in scene: people walk through a room, drawn by code, with a known number of visits.

For a machine without a camera, and for tests that must know what there was to see.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge.cameras import portrait
from facerelay.edge.cameras.portrait import SceneError, Sprite
from facerelay.edge.cameras.raster import Image
from facerelay.edge.cameras.room import EYE_LEVEL, HEIGHT, WIDTH, counter_top, paint

__all__ = ["Scene", "SceneError"]

RIGHT, LEFT = 1, -1
_FPS: Final = 15.0
_BOB_PX_PER_FACE: Final = 0.05
_STEPS_PER_S: Final = 1.9
_REST_S: Final = 2.5
"""Nobody is in the room for so long at the end of a round, so that no visit goes on into the next."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One person's visit as it is cast: who, when, for how long, how near (height of the face), which way."""

    who: int
    start: float
    seconds: float
    face: float
    way: int
    mirrored: bool = False
    pause_s: float = 0.0


# Near people hide those behind them for a moment; whoever leaves at a side meets nobody who enters there.
_CAST: Final = (
    _Part(0, 0.0, 5.0, 124, RIGHT),
    _Part(1, 3.6, 4.6, 104, RIGHT, pause_s=1.2),
    _Part(1, 8.0, 5.2, 82, LEFT, mirrored=True),
    _Part(0, 9.8, 4.4, 138, RIGHT, mirrored=True),
    _Part(0, 14.6, 5.4, 90, LEFT, pause_s=1.5),
    _Part(1, 16.4, 4.2, 126, LEFT),
    _Part(1, 22.0, 5.0, 112, RIGHT, mirrored=True),
    _Part(0, 23.8, 5.6, 80, LEFT, mirrored=True, pause_s=1.0),
    _Part(1, 28.2, 4.4, 150, RIGHT, pause_s=0.8),
    _Part(0, 30.8, 4.8, 100, RIGHT),
)


@dataclass(frozen=True, slots=True)
class _Walker:
    sprite: Sprite
    part: _Part
    level: float

    @property
    def end(self) -> float:
        return self.part.start + self.part.seconds + self.part.pause_s

    def place(self, at: float) -> tuple[float, float] | None:
        """Return x and y of the face's centre; None when out of the room."""
        part, gone = self.part, at - self.part.start
        if not 0 <= gone < part.seconds + part.pause_s:
            return None
        half = part.seconds / 2
        walked = gone if gone < half else max(half, gone - part.pause_s)
        width = self.sprite.alpha.shape[1]
        x = -width / 2 + (WIDTH + width) * walked / part.seconds
        bob = _BOB_PX_PER_FACE * part.face * abs(np.sin(np.pi * _STEPS_PER_S * walked))
        return (x if part.way == RIGHT else WIDTH - x), EYE_LEVEL + self.level * part.face - float(bob)


class Scene:
    """One round of the scene.

    Attributes:
        visits: how many people come and go in it.
        frames: how many frames it has, of 1280x720 pixels, at `fps` a second.
    """

    fps: Final = _FPS

    def __init__(self, *, seed: int = 1) -> None:
        """Cast and dress it.

        Args:
            seed: varies pace, height, light and distance; the same seed gives the same pictures.

        Raises:
            portrait.SceneError: the portraits are not installed.
        """
        people = [portrait.load(each) for each in (portrait.HOPPER, portrait.COLLINS)]
        draw = random.Random(seed)  # noqa: S311 - chooses heights, guards nothing
        walkers = [_walker(part, people, draw) for part in _CAST]
        self._walkers = sorted(walkers, key=lambda each: each.part.face)
        self._room = paint(seed)
        self.visits = len(walkers)
        self.frames = round((max(each.end for each in walkers) + _REST_S) * _FPS)

    def render(self, number: int) -> Image:
        """Return a frame of the round, 720 x 1280 x 3, uint8, BGR; `number` from 0 to `frames` - 1."""
        image = self._room.copy()
        for walker in self._walkers:
            place = walker.place(number / _FPS)
            if place is not None:
                _put(image, walker.sprite, place)
        image[counter_top() :] = self._room[counter_top() :]
        return image


def _walker(part: _Part, people: list[Sprite], draw: random.Random) -> _Walker:
    sprite = people[part.who].mirrored() if part.mirrored else people[part.who]
    sprite = sprite.lit(draw.uniform(0.86, 1.05)).scaled(part.face * draw.uniform(0.95, 1.05))
    return _Walker(sprite, part, draw.uniform(-0.15, 0.25))


def _put(image: Image, sprite: Sprite, place: tuple[float, float]) -> None:
    """Lay a sprite over the picture, its face's centre at `place`, between pixels where need be."""
    dx, dy = place[0] - sprite.face[0], place[1] - sprite.face[1]
    left, top = int(np.floor(dx)), int(np.floor(dy))
    height, width = sprite.alpha.shape
    shift = np.array([[1, 0, dx - left], [0, 1, dy - top]], np.float32)
    x0, x1 = max(0, left), min(WIDTH, left + width)
    y0, y1 = max(0, top), min(counter_top(), HEIGHT, top + height)
    if x0 >= x1 or y0 >= y1:
        return
    size = (width, y1 - top)
    over = cv2.warpAffine(sprite.bgr, shift, size)[y0 - top :, x0 - left : x1 - left]
    alpha = cv2.warpAffine(sprite.alpha, shift, size)[y0 - top :, x0 - left : x1 - left]
    behind = image[y0:y1, x0:x1]
    clear = cast("NDArray[np.uint8]", cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2BGR))
    image[y0:y1, x0:x1] = cv2.add(cv2.multiply(behind, clear, scale=1 / 255), over)
