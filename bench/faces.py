"""Ready faces of about 9 kB, when each is offered, and what was offered: the same for every chain."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from facerelay import face

SIZE = 9_000
SITE, CAMERA = "bench", "feed"
WARM = "warm"
_EXIF_BYTES = 800


@dataclass(frozen=True, slots=True)
class Phase:
    """So many faces at so many a second, of so many cameras in turn; at rate 0 as fast as they are taken."""

    name: str
    count: int
    rate: float = 0
    cameras: int = 1

    @classmethod
    def parse(cls, text: str) -> Phase:
        """Read `name:count:rate:cameras`."""
        name, count, rate, cameras = text.split(":")
        return cls(name, int(count), float(rate), int(cameras))

    def __str__(self) -> str:
        return f"{self.name}:{self.count}:{self.rate:g}:{self.cameras}"

    def due(self) -> Iterator[float]:
        """Yield the Unix time at which each face is due, beginning now; 0 is at once."""
        begin = time.time()
        for n in range(self.count):
            yield begin + n / self.rate if self.rate else 0.0


def picture() -> bytes:
    """Return a JPEG of blurred noise that makes a face of about 9 kB; grey if BENCH_GREY says so."""
    shape = (200, 200) if os.environ.get("BENCH_GREY") else (160, 160, 3)
    noise = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.2)
    candidates = (cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, q])[1] for q in range(40, 98))
    return min((c.tobytes() for c in candidates), key=lambda data: abs(len(data) + _EXIF_BYTES - SIZE))


def ready(
    count: int, *, outbox: str = "0" * 32, run: str = "0" * 8, first: int = 1, cameras: int = 1
) -> list[face.Frozen]:
    """Return so many faces, encoded and frozen, each with its own id, time and number; cameras in turn."""
    encoded, now = picture(), datetime.now(UTC)
    return [
        face.freeze(
            face.Face(
                id=face.new_id(), outbox=outbox, run=run, seq=first + n, site=SITE,
                camera=f"{CAMERA}-{n % cameras}" if n % cameras else CAMERA,
                time=now + timedelta(milliseconds=n), box=(400, 200, 120, 120), frame=(1280, 720),
                score=0.9, quality=0.5, track=n,
            ),
            encoded,
        )
        for n in range(count)
    ]  # fmt: skip


class Offered:
    """What was offered, when, in which phase; written as lines of `phase time sha256`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    def note(self, phase: str, at: float, frozen: face.Frozen) -> None:
        """Take note of a face, at the moment that it was handed over."""
        self._lines.append(f"{phase} {at:.6f} {frozen.sha256}\n")

    def write(self) -> None:
        """Write down what is new."""
        with self._path.open("a", encoding="ascii") as file:
            file.writelines(self._lines)
        self._lines.clear()


def read_offered(path: Path) -> dict[str, tuple[str, float]]:
    """Return phase and time of each face offered, by its sha256."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {sha256: (phase, float(at)) for phase, at, sha256 in lines}


def say(word: str) -> None:
    """Tell the bench where we are."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()
