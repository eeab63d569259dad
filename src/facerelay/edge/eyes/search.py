"""Faces in a camera's picture: what the detector is shown of it, and its answers put back in place."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, cast

import cv2
import numpy as np

from facerelay.edge.cameras.raster import Box, Image, Raster
from facerelay.edge.eyes.detect import Detection, Detector, sound

_ENLARGE: Final = 2.0
_OVERLAP: Final = 0.2
_LEAST_FACE: Final = 20
"""Pixels of a face, in the picture that the detector is shown, from which it finds it well."""

_EDGE: Final = 0.02
"""A face so near an inner edge of a tile, as a share of the tile, is taken to be cut off by it."""

_SAME_IOU: Final = 0.3
_SAME_INSIDE: Final = 0.6
_MOST_FACES: Final = 5000

log = logging.getLogger(__name__)


class Search:
    """Looks for faces in pictures of any size.

    A picture that is smaller than what the detector wants is shown enlarged, up to twice: small faces are
    found there that it misses otherwise.

    Args:
        detector: shared by all cameras.
        tiles: looks at `tiles` x `tiles` overlapping parts of the picture as well, for small faces.
    """

    def __init__(self, detector: Detector, *, tiles: int = 1) -> None:
        self._detector = detector
        self._tiles = tiles
        self._warned = False

    def find(self, raster: Raster) -> list[Detection]:
        """Return the faces, in pixels of the picture, the surest first."""
        size = raster.size
        whole = self._look(raster.small(self._detector.size or max(size)), (0, 0, *size))
        if self._tiles == 1:
            return whole
        views = [whole]
        for tile in tile_boxes(size, self._tiles, self._detector.size):
            found = self._look(raster.cut(tile), tile)
            views.append([each for each in found if not _cut_off(each, tile, size)])
        return merged(views)

    def _look(self, image: Image, box: Box) -> list[Detection]:
        """Return the faces in a picture of a part of the whole, in pixels of the whole."""
        shown = fitted(image, self._detector.size)
        height, width = shown.shape[:2]
        scale = box[2] / width, box[3] / height
        found = []
        for each in islice(self._detector.detect(shown), _MOST_FACES):
            face = sound(each, (width, height))
            if face is not None:
                found.append(placed(face, (box[0], box[1]), scale))
            elif not self._warned:
                self._warned = True
                name = type(self._detector).__name__
                log.warning("detector %s gave what is no face: %.200r; such are left out", name, each)
        return found


def fitted(image: Image, size: int) -> Image:
    """Return a picture with its long side at `size` pixels, but enlarged to twice at most; 0: as it is."""
    height, width = image.shape[:2]
    scale = min(_ENLARGE, size / max(height, width))
    if not size or scale == 1:
        return image
    to = max(1, round(width * scale)), max(1, round(height * scale))
    return cast("Image", cv2.resize(image, to, interpolation=cv2.INTER_LINEAR))


@lru_cache(maxsize=64)
def tile_boxes(size: tuple[int, int], tiles: int, shown: int) -> tuple[Box, ...]:
    """Return `tiles` x `tiles` parts of equal size that cover a picture, row by row.

    Neighbours share a fifth of a tile, or as much as the smallest face that is found well in the whole, so
    that a face which one of them cuts off lies whole in another, or is found without them.

    Args:
        size: width and height of the picture.
        tiles: how many across, and as many down.
        shown: long side of the pictures that the detector is shown; 0: as they come.
    """
    least = _LEAST_FACE * max(1.0, max(size) / shown if shown else 1.0)
    columns, rows = (_spans(side, tiles, least) for side in size)
    return tuple((x, y, width, height) for y, height in rows for x, width in columns)


def _spans(side: int, tiles: int, least: float) -> list[tuple[int, int]]:
    """Return where each tile begins along one side, and how long it is."""
    shared = max(side / (tiles - _OVERLAP * (tiles - 1)), (side + (tiles - 1) * least) / tiles)
    length = min(side, math.ceil(shared))
    return [(round(at * (side - length) / max(1, tiles - 1)), length) for at in range(tiles)]


def _cut_off(face: Detection, tile: Box, size: tuple[int, int]) -> bool:
    """Whether a face touches an edge of a tile that is not one of the picture's."""
    near = _EDGE * max(tile[2], tile[3])
    for axis in (0, 1):
        begin, end = face.box[axis], face.box[axis] + face.box[axis + 2]
        low, high = tile[axis], tile[axis] + tile[axis + 2]
        if (low > 0 and begin < low + near) or (high < size[axis] and end > high - near):
            return True
    return False


def merged(views: Sequence[Sequence[Detection]]) -> list[Detection]:
    """Return the faces of several views of one picture, each once, the surest first.

    Two of different views are the same face where their boxes overlap as a detector's own may not, or
    where the one lies mostly inside the other.
    """
    ranked = [(face, view) for view, faces in enumerate(views) for face in faces]
    ranked.sort(key=lambda each: -each[0].score)
    view = np.array([view for _, view in ranked])
    left, top, width, height = np.array([face.box for face, _ in ranked]).reshape(-1, 4).T
    right, bottom, area = left + width, top + height, width * height
    rest, kept = np.arange(len(ranked)), []
    while rest.size:
        first, rest = rest[0], rest[1:]
        kept.append(ranked[first][0])
        across = np.minimum(right[first], right[rest]) - np.maximum(left[first], left[rest])
        down = np.minimum(bottom[first], bottom[rest]) - np.maximum(top[first], top[rest])
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        union, smaller = area[first] + area[rest] - shared, np.minimum(area[first], area[rest])
        same = (shared > _SAME_IOU * union) | (shared > _SAME_INSIDE * smaller)
        rest = rest[~same | (view[rest] == view[first])]
    return kept


def placed(detection: Detection, at: tuple[float, float], scale: tuple[float, float]) -> Detection:
    """Return a detection of a part of a picture in pixels of the whole.

    Args:
        detection: in pixels of the part, as the detector saw it.
        at: where in the whole the part's left upper corner lies.
        scale: pixels of the whole for each of the part's, across and down.
    """
    (x, y, w, h), (sx, sy) = detection.box, scale
    box = at[0] + x * sx, at[1] + y * sy, w * sx, h * sy
    landmarks = tuple((at[0] + px * sx, at[1] + py * sy) for px, py in detection.landmarks)
    return Detection(box, detection.score, landmarks)
