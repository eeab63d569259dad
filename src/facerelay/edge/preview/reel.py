"""The last faces that were sent, and the last visits of which none was: small, in memory alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import cv2

from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes.best import Shot
from facerelay.edge.eyes.crop import encode
from facerelay.edge.preview.visits import Visit

KEPT: Final = 50
"""So many of each are kept."""

_SIDE: Final = 160
_QUALITY: Final = 85


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to show in a list.

    Attributes:
        number: from 1, one more for each.
        known: what is known of it, for JSON.
        picture: its face, small; None where there is none.
    """

    number: int
    known: dict[str, Any]
    picture: Image | None

    def jpeg(self) -> bytes | None:
        """Return its face, encoded anew at each call."""
        return None if self.picture is None else encode(self.picture, quality=_QUALITY, max_side=_SIDE)


class Reel:
    """The last of them, of all cameras together, the newest last."""

    def __init__(self) -> None:
        self._kept: deque[Entry] = deque(maxlen=KEPT)
        self._numbers = count(1)

    def add(self, known: dict[str, Any], picture: Image | None) -> None:
        """Take one in; the oldest goes."""
        number = next(self._numbers)
        known = {"number": number, "picture": picture is not None, **known}
        self._kept.append(Entry(number, known, picture))

    def after(self, number: int) -> list[Entry]:
        """Return those that came after the one of a number, the oldest first."""
        return [each for each in self._kept if each.number > number]

    def get(self, number: int) -> Entry | None:
        """Return the one of a number, if it is kept still."""
        return next((each for each in self._kept if each.number == number), None)


def shrink(image: Image) -> Image:
    """Return a picture with its long side at most 160 pixels, height x width x 3, BGR."""
    scale = max(image.shape[:2]) / _SIDE
    if scale <= 1:
        return image
    height, width = (max(1, round(side / scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype("uint8", copy=False)


def of_shot(camera: str, shot: Shot) -> dict[str, Any]:
    """Return what the list says of a face that was sent."""
    return {
        "camera": camera,
        "track": shot.track,
        "time": shot.time.isoformat(),
        "quality": round(shot.quality, 3),
        "parts": {name: round(value, 3) for name, value in shot.parts.items()},
        "size": [round(side) for side in shot.detection.box[2:]],
    }


def of_visits(camera: str, visits: Iterable[Visit]) -> list[tuple[dict[str, Any], Image | None]]:
    """Return what the list says of visits without a face, and their pictures."""
    return [
        (
            {
                "camera": camera,
                "track": visit.track,
                "time": visit.end.isoformat(),
                "seconds": round((visit.end - visit.begin).total_seconds(), 1),
                "reason": visit.reason,
                "looks": dict(visit.verdicts.most_common()),
                "quality": None if visit.quality is None else round(visit.quality, 3),
            },
            visit.picture,
        )
        for visit in visits
    ]
