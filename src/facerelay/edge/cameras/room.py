"""The room of the built-in scene: one perspective drawing, seen across a counter at eye level."""

from __future__ import annotations

from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge.cameras.raster import Image

WIDTH, HEIGHT = 1280, 720
EYE_LEVEL: Final = 250
"""The horizon: whoever is as tall as the camera is high has the face there, near or far."""

_VANISH: Final = (WIDTH // 2, EYE_LEVEL)
_WALL: Final = (330, 110, 950, 440)
_COUNTER: Final = 520
_PLANKS: Final = 18

Colour = tuple[int, int, int]
_CEILING: Final[Colour] = (226, 230, 232)
_BACK: Final[Colour] = (188, 203, 210)
_SIDE: Final[Colour] = (168, 184, 193)
_FLOOR: Final[Colour] = (96, 128, 156)
_WOOD: Final[Colour] = (62, 92, 128)
_DOOR: Final[Colour] = (104, 120, 112)
_WHITE: Final[Colour] = (240, 243, 244)


def counter_top() -> int:
    """Return the row from which on the counter hides all that is behind it."""
    return _COUNTER


def paint(seed: int) -> Image:
    """Return the empty room, 720 x 1280 x 3, uint8, BGR."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    _shell(image)
    _planks(image)
    _lamps(image)
    _door(image)
    _pictures(image)
    _window(image)
    lit = image.astype(np.float32) * _light()[..., None]
    lit += np.random.default_rng(seed).normal(0, 1.6, lit.shape).astype(np.float32)
    room: Image = np.clip(lit, 0, 255).astype(np.uint8)
    _counter(room)
    return room


def _fill(image: Image, corners: list[tuple[float, float]], colour: Colour) -> None:
    cv2.fillPoly(image, [np.array(corners).round().astype(np.int32)], colour, cv2.LINE_AA)


def _shell(image: Image) -> None:
    left, top, right, bottom = _WALL
    near = [_far_to_near(x, y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]
    far: list[tuple[float, float]] = [(left, top), (right, top), (right, bottom), (left, bottom)]
    _fill(image, [near[0], near[1], far[1], far[0]], _CEILING)
    _fill(image, [near[1], near[2], far[2], far[1]], _SIDE)
    _fill(image, [near[2], near[3], far[3], far[2]], _FLOOR)
    _fill(image, [near[3], near[0], far[0], far[3]], _SIDE)
    _fill(image, far, _BACK)
    for a, b in zip(far, near, strict=True):
        cv2.line(image, _px(a), _px(b), (140, 156, 165), 2, cv2.LINE_AA)
    cv2.rectangle(image, (left, bottom - 12), (right, bottom), _WHITE, -1)
    _fill(image, [(left, bottom - 12), (left, bottom), near[3], _far_to_near(left, bottom - 12)], _WHITE)
    _fill(image, [(right, bottom - 12), (right, bottom), near[2], _far_to_near(right, bottom - 12)], _WHITE)


def _far_to_near(x: float, y: float, times: float = 3.4) -> tuple[float, float]:
    """Return where a point of the back wall comes to lie when it moves towards the camera."""
    return _VANISH[0] + (x - _VANISH[0]) * times, _VANISH[1] + (y - _VANISH[1]) * times


def _px(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _planks(image: Image) -> None:
    left, _, right, bottom = _WALL
    for number in range(_PLANKS + 1):
        x = left + (right - left) * number / _PLANKS
        cv2.line(image, _px((x, bottom)), _px(_far_to_near(x, bottom)), (82, 110, 136), 1, cv2.LINE_AA)


def _lamps(image: Image) -> None:
    for centre in (500, 780):
        for times, depth in ((1.15, 0.25), (1.75, 0.5)):
            ends = [(centre - 48, _WALL[1]), (centre + 48, _WALL[1])]
            far = [_far_to_near(x, y, times) for x, y in ends]
            near = [_far_to_near(x, y, times + depth) for x, y in reversed(ends)]
            _fill(image, [*far, *near], (255, 255, 255))


def _door(image: Image) -> None:
    _, _, right, bottom = _WALL
    x, y, w = right - 190, 168, 120
    cv2.rectangle(image, (x - 9, y - 9), (x + w + 9, bottom), _WHITE, -1)
    cv2.rectangle(image, (x, y), (x + w, bottom), _DOOR, -1)
    for top, end in ((y + 18, y + 118), (y + 140, bottom - 22)):
        cv2.rectangle(image, (x + 18, top), (x + w - 18, end), (90, 104, 97), 2, cv2.LINE_AA)
    cv2.circle(image, (x + 14, y + 140), 5, (70, 190, 215), -1, cv2.LINE_AA)


def _pictures(image: Image) -> None:
    for x, colour in ((400, (150, 120, 70)), (520, (80, 130, 170))):
        cv2.rectangle(image, (x, 190), (x + 84, 300), (60, 70, 80), -1)
        cv2.rectangle(image, (x + 6, 196), (x + 78, 294), _WHITE, -1)
        cv2.rectangle(image, (x + 16, 206), (x + 68, 284), colour, -1)
        low = [(x + 16, 284), (x + 16, 262), (x + 36, 244), (x + 54, 266), (x + 68, 252), (x + 68, 284)]
        _fill(image, [(float(a), float(b)) for a, b in low], (90, 100, 90))


def _window(image: Image) -> None:
    """A window in the left wall, in its perspective."""
    x = _WALL[0]
    for y0, y1 in ((165, 245), (250, 330)):
        for t0, t1 in ((1.25, 1.6), (1.64, 2.1)):
            corners = [(y0, t0), (y0, t1), (y1, t1), (y1, t0)]
            _fill(image, [_far_to_near(x, y, t) for y, t in corners], (250, 240, 222))


def _light() -> NDArray[np.float32]:
    """Return the light in the room, 720 x 1280: brighter near the window, darker in the corners."""
    across = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None]
    return cast("NDArray[np.float32]", 1.02 - 0.16 * (across**2 + down**2) / 2 - 0.05 * across)


def _counter(image: Image) -> None:
    rows = np.linspace(1.1, 0.62, HEIGHT - _COUNTER)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 1, (1, WIDTH))
    grain = cv2.GaussianBlur(noise, (0, 0), 14).reshape(1, WIDTH, 1) * 30
    image[_COUNTER:] = np.clip(rows * np.array(_WOOD) + grain, 0, 255).astype(np.uint8)
    cv2.rectangle(image, (0, _COUNTER), (WIDTH, _COUNTER + 14), (108, 142, 178), -1)
    cv2.line(image, (0, _COUNTER + 15), (WIDTH, _COUNTER + 15), (36, 56, 80), 2)
