"""Footage with a known number of people, mixed by code from clips: side by side, and crossing each other."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import Final, Literal, cast

import cv2
import numpy as np

from facerelay.edge.cameras.camera import open_camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.eyes.best import Shot
from facerelay.edge.eyes.detect import Detector

SIGNERS: Final = {
    "skull": ("again", "brother", "help", "no", "student", "yes"),
    "grey": ("bird", "milk", "please", "sorry", "thanks"),
    "orange": ("book", "learn", "school", "walk"),
    "dark": ("eat", "night", "sister"),
    "plaid": ("hungry", "want"),
}
"""Which clips show the same person, by what they wear."""

WIDTH, HEIGHT = 1280, 720
_CLIP_FPS: Final = 30.0
_LEVEL: Final = 240

Kind = Literal["pass", "stand", "pause", "back", "three", "run"]
KINDS: Final[tuple[Kind, ...]] = ("pass", "stand", "pause", "back", "three", "run")


def clip(media: Path, sign: str) -> str:
    return str(media / f"clips/intel_asl_{sign}.mkv")


def frames_of(source: str) -> list[Frame]:
    return list(open_camera(source, pace=False, stop=threading.Event()))


def shown(images: Iterable[Image], fps: float) -> Iterator[Frame]:
    """Yield pictures as a camera of a steady rate gives them."""
    for index, image in zip(count(), images):
        yield Frame(raster=Pixels(image), index=index, pts=index / fps, time=datetime.now(UTC))


def side_by_side(left: str, right: str, *, fps: float = 30.0, height: int = 480) -> Iterator[Frame]:
    """Yield two clips in one frame; the shorter one stands still at its end."""
    clips = [frames_of(left), frames_of(right)]
    steps = round(max(each[-1].pts for each in clips) * fps)
    yield from shown((np.hstack([_at(each, n / fps, height) for each in clips]) for n in range(steps)), fps)


def _at(frames: list[Frame], pts: float, height: int) -> Image:
    before = [each for each in frames if each.pts <= pts + 1e-6] or frames[:1]
    image = before[-1].image
    width = round(image.shape[1] * height / image.shape[0])
    return image if image.shape[0] == height else cast("Image", cv2.resize(image, (width, height)))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody cut out of a clip: pictures with alpha, height x width x 4, and the face in the first."""

    pictures: Sequence[Image]
    x: float
    y: float
    face: float

    def at(self, pts: float) -> Image:
        """Return the picture of a time; the clip goes forth and back without end."""
        last = len(self.pictures) - 1
        step = round(pts * _CLIP_FPS) % (2 * last)
        return self.pictures[min(step, 2 * last - step)]


_KEPT: Final[dict[tuple[str, str], Person]] = {}


def cut_out(media: Path, sign: str, detector: Detector) -> Person:
    """Return the person of a signer's clip, head and body, without the room."""
    key = str(media), sign
    if key not in _KEPT:
        images = [frame.image for frame in frames_of(clip(media, sign))]
        x, y, w, h = detector.detect(images[0])[0].box
        left, right = max(0, round(x - 1.2 * w)), round(x + 2.2 * w)
        alpha = _outline(images[0].shape[:2], (x, y, w, h))
        pictures = [np.dstack([image, alpha])[:, left:right] for image in images]
        _KEPT[key] = Person(pictures, x + w / 2 - left, y + h / 2, h)
    return _KEPT[key]


def _outline(shape: tuple[int, ...], box: tuple[float, float, float, float]) -> Image:
    x, y, w, h = box
    middle, alpha = x + w / 2, np.zeros(shape, np.uint8)
    cv2.ellipse(alpha, ((middle, y + 0.42 * h), (1.3 * w, 1.35 * h), 0), 255, -1)
    body = [
        (-0.4, 0.8),
        (0.4, 0.8),
        (1.15, 1.35),
        (1.3, 2.2),
        (1.2, 9),
        (-1.2, 9),
        (-1.3, 2.2),
        (-1.15, 1.35),
    ]
    cv2.fillPoly(alpha, [np.array([(middle + a * w, y + b * h) for a, b in body]).astype(np.int32)], 255)
    return cast("Image", cv2.GaussianBlur(alpha, (0, 0), 1.5))


@dataclass(frozen=True, slots=True)
class Walker:
    """Somebody on a way: `path` holds pairs of a time in seconds and the face's x in pixels."""

    person: Person
    face: float
    path: tuple[tuple[float, float], ...]
    level: float = _LEVEL

    def x(self, pts: float) -> float | None:
        """Return where the face's centre is; None when the way has not begun or is over."""
        for (begin, x0), (end, x1) in pairwise(self.path):
            if begin <= pts < end:
                return x0 + (x1 - x0) * (pts - begin) / (end - begin)
        return None


@dataclass(frozen=True, slots=True)
class Crossing:
    """A scene of people who cross, the nearer (larger) before the farther."""

    walkers: tuple[Walker, ...]
    fps: float
    seconds: float

    def frames(self) -> Iterator[Frame]:
        order = sorted(self.walkers, key=lambda each: each.face)
        yield from shown(
            (_render(order, n / self.fps) for n in range(round(self.seconds * self.fps))), self.fps
        )

    def who(self, shot: Shot) -> int:
        """Return whose face is on a shot, by where it should be and how large."""
        x, y, w, h = shot.detection.box

        def unlike(walker: Walker) -> float:
            at = walker.x(shot.pts)
            if at is None:
                return math.inf
            away = math.hypot(x + w / 2 - at, y + h / 2 - walker.level) / walker.face
            return away + abs(math.log(h / walker.face))

        return min(range(len(self.walkers)), key=lambda number: unlike(self.walkers[number]))


@cache
def _room() -> Image:
    rows = np.linspace(200, 120, HEIGHT)[:, None, None] * np.ones((HEIGHT, WIDTH, 3))
    noise = np.random.default_rng(5).normal(0, 4, (HEIGHT, WIDTH, 3))
    return cast("Image", np.clip(rows + noise, 0, 255).astype(np.uint8))


def _render(order: Sequence[Walker], pts: float) -> Image:
    image = _room().copy()
    for walker in order:
        x = walker.x(pts)
        if x is not None:
            _lay(image, walker, x, pts)
    return image


def _lay(image: Image, walker: Walker, x: float, pts: float) -> None:
    person = walker.person
    scale = walker.face / person.face
    sprite = cv2.resize(person.at(pts), None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    left, top = round(x - person.x * scale), round(walker.level - person.y * scale)
    x0, x1 = max(0, left), min(WIDTH, left + sprite.shape[1])
    y0, y1 = max(0, top), min(HEIGHT, top + sprite.shape[0])
    if x0 >= x1:
        return
    part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[:, :, 3:].astype(np.float32) / 255
    under = image[y0:y1, x0:x1]
    image[y0:y1, x0:x1] = (under * (1 - alpha) + part[:, :, :3] * alpha).astype(np.uint8)


def crossing(media: Path, detector: Detector, *, seed: int, kind: Kind, fps: float) -> Crossing:
    """Return a scene of two (or three) different people; the seed draws who, how near and how fast."""
    draw = random.Random(seed)  # noqa: S311 - chooses people and paces, guards nothing
    names = draw.sample(sorted(SIGNERS), 3 if kind == "three" else 2)
    people = [cut_out(media, draw.choice(SIGNERS[name]), detector) for name in names]
    far = draw.uniform(75, 110)
    near = far * draw.uniform(1.08, 1.7)
    pace = draw.uniform(500, 900) if kind == "run" else draw.uniform(220, 420)
    meet = draw.uniform(500, 780)
    walkers = _ways(kind, draw, people, sizes=(far, near), pace=pace, meet=meet)
    seconds = max(each.path[-1][0] for each in walkers) + 0.5
    return Crossing(tuple(walkers), fps, seconds)


def _ways(
    kind: Kind,
    draw: random.Random,
    people: list[Person],
    *,
    sizes: tuple[float, float],
    pace: float,
    meet: float,
) -> list[Walker]:
    far, near = sizes
    across = (WIDTH + 400) / pace
    at_meeting = (meet + 200) / pace
    level = _LEVEL + draw.uniform(-0.2, 0.2) * far
    ahead = Walker(people[1], near, ((0.0, -200.0), (across, WIDTH + 200.0)))
    stands = Walker(people[0], far, ((0.0, meet), (across + 1.5, meet)), level)
    if kind == "stand":
        return [stands, ahead]
    if kind == "pause":
        rest = draw.uniform(0.3, 0.9)
        stop = at_meeting, meet + draw.uniform(-0.3, 0.3) * far
        path = ((0.0, -200.0), stop, (stop[0] + rest, stop[1]), (across + rest, WIDTH + 200.0))
        return [stands, Walker(people[1], near, path)]
    if kind == "back":
        turn = at_meeting, meet + draw.uniform(0.0, 0.6) * far
        path = ((0.0, -200.0), turn, (turn[0] + 0.3, turn[1]), (2 * turn[0] + 0.3, -200.0))
        return [
            Walker(people[0], far, ((0.0, meet), (path[-1][0] + 1, meet)), level),
            Walker(people[1], near, path),
        ]
    other = pace * draw.uniform(0.6, 1.2)
    start = max(0.0, at_meeting - (WIDTH + 200 - meet) / other)
    behind = Walker(people[0], far, ((start, WIDTH + 200.0), (start + (WIDTH + 400) / other, -200.0)), level)
    if kind != "three":
        return [behind, ahead]
    third = Walker(people[2], far * 0.85, ((0.0, meet + 1.0), (across + 1.5, meet)), level - 0.1 * far)
    return [behind, ahead, third]
