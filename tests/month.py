"""A bucket with a month of faces: people of the built-in scene, in the light of several cameras."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

import cv2
import numpy as np

from facerelay import config, face, messages
from facerelay.cloud import history
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.history import marks
from facerelay.edge.cameras.scene import RIGHT, Scene

CAMERAS = (("home", "door"), ("home", "yard"), ("shop", "till"))
DAYS, QUIET = 28, (9, 10)
_TINT = {"door": (1.0, 1.0, 1.0), "yard": (1.08, 0.98, 0.9), "till": (0.9, 0.97, 1.05)}
_SEEDS, _ROOM, _LIFT = 2, 1.55, 0.05


def fill(url: str, count: int, *, seed: int = 1) -> list[face.Frozen]:
    """Put faces into a bucket, and return them, newest first; two days of the month have none."""
    faces = sorted(_faces(count, random.Random(seed)), key=lambda one: one.face.time, reverse=True)  # noqa: S311

    async def put() -> None:
        bucket = open_bucket(config.Bucket(url=url))
        for key, data in _history(reversed(faces)):
            await bucket.put(key, data)
        for at in range(0, len(faces), 64):
            await asyncio.gather(*(bucket.put_new(one.key, one.data) for one in faces[at : at + 64]))

    asyncio.run(put())
    return faces


def _history(faces: Iterable[face.Frozen]) -> Iterator[tuple[str, bytes]]:
    """Yield what a store would have noted of faces that come oldest first: keys and objects."""
    stored: Counter[str] = Counter()
    days: dict[tuple[date, str], dict[str, dict[int, marks.Mark]]] = {}
    for one in faces:
        taken, name = one.face.time, f"{one.face.site}/{one.face.camera}"
        stored[name] += 1
        told = messages.Account(frames=200 * stored[name], captured=stored[name], stored=stored[name])
        day = days.setdefault((taken.date(), one.face.site), {})
        day.setdefault(name, {})[taken.hour] = marks.Mark.of(told)
    for (day_of, site), cameras in days.items():
        heard = marks.bits(marks.between(0, marks.MINUTES - 1))
        kept = {name: marks.Camera(hours=hours) for name, hours in cameras.items()}
        yield (
            history.outbox_key(day_of, site, "7c" * 16),
            marks.DayMarks(cameras=kept, heard=heard).to_bytes(),
        )


def _faces(count: int, draw: random.Random) -> Iterator[face.Frozen]:
    people = [one for number in range(1, 1 + _SEEDS) for one in _people(number)]
    now = datetime.now(UTC)
    for number in range(count):
        site, camera = draw.choice(CAMERAS)
        crop, box = draw.choice(people)
        parts = {
            name: round(draw.betavariate(8, 3), 3) for name in ("size", "sharpness", "frontality", "exposure")
        }
        known = face.Face(
            id=face.new_id(), outbox="7c" * 16, run="0a1b2c3d", seq=number + 1, site=site, camera=camera,
            time=_time(now, draw), box=box, frame=(1280, 720), score=round(draw.uniform(0.8, 0.97), 3),
            quality=round(draw.betavariate(7, 4), 3), parts=parts, track=number, clock="synchronised",
        )  # fmt: skip
        gain = np.array(_TINT[camera]) * draw.uniform(0.8, 1.1)
        yield face.freeze(
            known, cv2.imencode(".jpg", np.clip(crop * gain, 0, 255).astype(np.uint8))[1].tobytes()
        )


def _time(now: datetime, draw: random.Random) -> datetime:
    """Return a time in the last days, most of them about noon."""
    while True:
        day = draw.randrange(DAYS)
        clock = timedelta(
            hours=min(23.99, max(0.0, draw.gauss(13, 4))), microseconds=draw.randrange(1_000_000)
        )
        taken = datetime.combine(now.date() - timedelta(days=day), time(), UTC) + clock
        if taken < now - timedelta(minutes=1) and day not in QUIET:
            return taken


def _people(seed: int) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Yield each walker of the scene, cut out about halfway, and where the face was in the frame."""
    scene = Scene(seed=seed)
    for walker in scene._walkers:
        place = walker.place(walker.part.start + walker.part.seconds * 0.45)
        assert place is not None
        frame = scene.render(round((walker.part.start + walker.part.seconds * 0.45) * scene.fps))
        (x, y), side = place, walker.part.face * _ROOM
        left = int(max(0, x - side * (0.45 if walker.part.way == RIGHT else 0.5)))
        top = int(max(0, y - side * (0.5 + _LIFT)))
        cut = frame[top : top + int(side), left : left + int(side * 0.95)]
        size = int(walker.part.face)
        yield cut, (int(x - size * 0.4), int(y - size / 2), int(size * 0.8), size)
