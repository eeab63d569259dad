"""A contact sheet: the chosen picture of each visit against the best, first, middle and last of its track."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

import cv2
import numpy as np

from facerelay.edge.cameras.raster import Image

_SIDE: Final = 120
_LINE: Final = 18
_GAP: Final = 6
_ACROSS: Final = 3
_TITLES: Final = "chosen", "best", "first", "middle", "last"
_INK: Final = 40, 40, 40


class View(NamedTuple):
    """One picture of a face: its time in seconds, itself, and its quality where it is good enough to send."""

    pts: float
    image: Image
    quality: float | None


class Row(NamedTuple):
    """One visit."""

    name: str
    chosen: View
    best: View
    others: tuple[View, View, View]


def thumb(image: Image) -> Image:
    """Return a picture in a white square, as large as it fits."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    to = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    left, top = (_SIDE - to[0]) // 2, (_SIDE - to[1]) // 2
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    square[top : top + to[1], left : left + to[0]] = cv2.resize(image, to, interpolation=way)
    return cast("Image", square)


def write(to: Path, rows: Sequence[Row]) -> Path:
    """Write the visits, three in a line, and return where."""
    cells = [_visit(row) for row in rows]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % _ACROSS)
    lines = [np.hstack(cells[at : at + _ACROSS]) for at in range(0, len(cells), _ACROSS)]
    to.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(to.suffix, np.vstack(lines))
    assert done
    to.write_bytes(data.tobytes())
    return to


def _visit(row: Row) -> Image:
    views = (row.chosen, row.best, *row.others)
    height, width = _SIDE + 3 * _LINE, len(views) * (_SIDE + _GAP) + 2 * _GAP
    cell = np.full((height, width, 3), 255, np.uint8)
    _text(cell, row.name, (_GAP, _LINE - 5))
    for number, (title, view) in enumerate(zip(_TITLES, views, strict=True)):
        left = _GAP + number * (_SIDE + _GAP)
        cell[_LINE : _LINE + _SIDE, left : left + _SIDE] = view.image
        quality = "refused" if view.quality is None else f"{view.quality:.3f}"
        _text(cell, f"{title} {quality} {view.pts:.2f}s", (left, _LINE + _SIDE + 12))
    return cast("Image", cell)


def _text(image: Image, text: str, at: tuple[int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.32, _INK, 1, cv2.LINE_AA)
