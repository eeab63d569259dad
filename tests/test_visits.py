"""One visit is one face: people who cross, and posters and screens that never leave."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

import footage
from facerelay.edge.cameras import portrait
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.eyes.best import BestShot
from facerelay.edge.eyes.detect import Detection, Detector, make_detector
from facerelay.edge.eyes.motion import Motion
from facerelay.edge.eyes.quality import Gate
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Tracker
from facerelay.edge.eyes.watch import Eyes

MINUTES = 600.0
FPS = 2.0


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector("auto")


def eyes(detector: Detector, *, gate: Gate | None = None, motion: bool = False) -> Eyes:
    policy = BestShot(gate=gate or Gate())
    return Eyes(
        search=Search(detector), tracker=Tracker(), policy=policy, motion=Motion() if motion else None
    )


@pytest.mark.media
@pytest.mark.parametrize(("left", "right"), [("book", "eat"), ("again", "brother"), ("want", "bird")])
def test_two_clips_side_by_side_give_a_face_for_each_person(
    detector: Detector, media: Path, left: str, right: str
) -> None:
    frames = footage.side_by_side(footage.clip(media, left), footage.clip(media, right), fps=15)
    shots = list(eyes(detector).watch(frames))
    assert sorted(shot.detection.box[0] // 640 for shot in shots) == [0, 1]


@pytest.mark.media
def test_a_signer_beside_three_people_makes_four(detector: Detector, media: Path) -> None:
    three = str(media / "clips/intel_preview_face-demographics-walking-and-pause.gif")
    frames = footage.side_by_side(footage.clip(media, "walk"), three, fps=12.5)
    shots = list(eyes(detector, motion=True).watch(frames))
    assert sorted(shot.detection.box[0] >= 640 for shot in shots) == [False, True, True, True]


@pytest.mark.media
@pytest.mark.parametrize(
    ("kind", "fps", "seed"),
    [
        ("pass", 5, 90), ("pass", 10, 16), ("stand", 10, 4), ("pause", 5, 6), ("pause", 10, 7),
        ("back", 5, 69), ("back", 10, 70), ("three", 5, 27), ("three", 10, 28), ("run", 5, 105),
    ],
)  # fmt: skip
def test_people_who_cross_give_one_face_each(
    detector: Detector, media: Path, kind: footage.Kind, fps: float, seed: int
) -> None:
    scene = footage.crossing(media, detector, seed=seed, kind=kind, fps=fps)
    shots = list(eyes(detector).watch(scene.frames()))
    assert sorted(scene.who(shot) for shot in shots) == list(range(len(scene.walkers)))


class Flickers:
    """A detector that sees each face of a list with a chance, and never quite in the same place."""

    size = 0

    def __init__(self, chance: float) -> None:
        self._draw = random.Random(3)  # noqa: S311 - a chance, no secret
        self._chance = chance
        self.shown: list[Detection] = []

    def detect(self, image: Image) -> list[Detection]:
        assert image.size
        draw = self._draw
        return [self._moved(each) for each in self.shown if draw.random() < self._chance]

    def _moved(self, face: Detection) -> Detection:
        dx, dy = self._draw.gauss(0, 1), self._draw.gauss(0, 1)
        x, y, w, h = face.box
        points = tuple((px + dx, py + dy) for px, py in face.landmarks)
        return Detection((x + dx, y + dy, w, h), self._draw.uniform(0.7, 0.8), points)


@pytest.fixture(scope="module")
def poster() -> tuple[Image, Detection]:
    """A wall with a portrait on it, and where its face is."""
    image = portrait._read(portrait.COLLINS)[:400, :500]
    wall = np.full((480, 640, 3), 120, np.uint8)
    wall[40 : 40 + image.shape[0], 60 : 60 + image.shape[1]] = image
    return cast("Image", wall), make_detector("auto").detect(wall)[0]


def film(image: Image, until: float) -> Iterator[Frame]:
    for n in range(round(until * FPS)):
        yield Frame(raster=Pixels(image), index=n, pts=n / FPS, time=datetime.now(UTC))


@pytest.mark.parametrize("chance", [0.1, 0.4, 0.9])
def test_a_poster_that_is_seen_now_and_then_is_one_visit(
    poster: tuple[Image, Detection], chance: float
) -> None:
    wall, face = poster
    flickers = Flickers(chance)
    flickers.shown = [face]
    gate = Gate()
    assert 1 <= len(list(eyes(flickers, gate=gate).watch(film(wall, MINUTES)))) <= 3
    assert gate.refused["returned"] > 0 or chance > 0.5


def test_a_poster_is_a_visit_each_time_where_no_place_is_remembered(poster: tuple[Image, Detection]) -> None:
    wall, face = poster
    flickers = Flickers(0.4)
    flickers.shown = [face]
    subject = eyes(flickers)
    subject.tracker = Tracker(rest_s=0.0)
    assert len(list(subject.watch(film(wall, MINUTES)))) > 3


def programme(pictures: Iterable[Image], shown: Flickers, face: Detection) -> Iterator[Frame]:
    """Show a face in one place for three seconds, then none for three, and so on with each picture."""
    steps = ((picture, step < 6) for picture in pictures for step in range(12))
    for index, (picture, there) in enumerate(steps):
        shown.shown = [face] if there else []
        yield Frame(raster=Pixels(picture), index=index, pts=index / FPS, time=datetime.now(UTC))


def test_a_screen_sends_no_face_for_each_one_it_shows(poster: tuple[Image, Detection]) -> None:
    wall, face = poster
    tints = [np.array(each) for each in ((1, 1, 1), (0.3, 1, 1), (1, 1, 0.3), (1, 0.4, 1), (0.3, 0.3, 1))]
    pictures = [np.clip(wall * tint, 0, 255).astype(np.uint8) for tint in tints]
    gate, television = Gate(), Flickers(1.0)
    shots = list(eyes(television, gate=gate).watch(programme(pictures * 8, television, face)))
    assert 5 <= len(shots) <= 3 * len(pictures)
    assert shots[-1].pts < 3 * 6 * len(pictures)
    assert gate.refused["returned"] >= 5 * len(pictures)


def test_a_still_portrait_is_one_visit_however_long_it_is_filmed(
    detector: Detector, poster: tuple[Image, Detection]
) -> None:
    wall, _ = poster
    grain = np.random.default_rng(1).integers(0, 12, (8, *wall.shape), dtype=np.uint8)
    noisy = [cast("Image", cv2.add(wall, each)) for each in grain]
    frames = footage.shown((noisy[n % 8] for n in range(100)), 2.0)
    assert len(list(eyes(detector, motion=True).watch(frames))) == 1
