"""Recall and precision on labelled pictures, and what a look costs."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import cv2

from bench.eyes.loops import FaceDetectorYN, Haar
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.eyes.detect import Detection, make_detector
from facerelay.edge.eyes.search import Search

Box: TypeAlias = Sequence[float]
Look: TypeAlias = Callable[[Image], list[Detection]]

THRESHOLD: Final = 0.7
_HIGH, _SMALL = 30, 10
_IOUS: Final = 0.5, 0.3
_SETS: Final = "wider", "dlib"
_BOTH: Final = "wider and dlib"


@dataclass(slots=True)
class Score:
    """Hits, misses and errors over a set of pictures."""

    wanted: int = 0
    hits: int = 0
    errors: int = 0

    def add(
        self, found: Sequence[Detection], boxes: Sequence[Box], heights: tuple[float, float], iou: float
    ) -> None:
        """Count one picture: faces from `heights[0]` to below `heights[1]` pixels high are wanted.

        The surest first, each detection takes the wanted face that it covers best and that is still free.
        One that takes none, but covers another labelled face, is neither a hit nor an error.
        """
        wanted = [box for box in boxes if heights[0] <= box[3] < heights[1]]
        others = [box for box in boxes if not heights[0] <= box[3] < heights[1]]
        free = list(wanted)
        self.wanted += len(wanted)
        for each in sorted(found, key=lambda each: -each.score):
            best = max(free, key=lambda box: overlap(each.box, box), default=None)
            if best is not None and overlap(each.box, best) >= iou:
                free.remove(best)
                self.hits += 1
            elif not any(overlap(each.box, box) >= iou for box in others):
                self.errors += 1

    @property
    def recall(self) -> float:
        """Hits among the faces wanted."""
        return self.hits / max(1, self.wanted)

    @property
    def precision(self) -> float:
        """Hits among hits and errors."""
        return self.hits / max(1, self.hits + self.errors)


@dataclass(slots=True)
class _Row:
    name: str
    look: Look
    scores: dict[tuple[str, str], Score] = field(default_factory=dict)
    ms: dict[str, list[float]] = field(default_factory=dict)

    def score(self, set_: str, kind: str) -> Score:
        return self.scores.setdefault((set_, kind), Score())


def run(media: Path, *, repeats: int) -> dict[str, Any]:
    """Show all detectors all labelled pictures, in turn, so often."""
    rows = _rows()
    for set_ in _SETS:
        labels = json.loads((media / "labelled" / f"{set_}.json").read_text(encoding="utf-8"))
        for name, label in labels.items():
            image = cv2.imread(str(media / "labelled" / set_ / name))
            assert image is not None, name
            _picture(rows, (set_, _BOTH), cast("Image", image), label["boxes"], repeats)
    haar = rows[-1]
    return {
        "threshold": THRESHOLD, "repeats": repeats,
        "rows": {row.name: {set_: _summary(row, haar, set_) for set_ in (*_SETS, _BOTH)} for row in rows},
    }  # fmt: skip


def _rows() -> list[_Row]:
    detector = make_detector("yunet", threshold=THRESHOLD)
    tiled = {f"ours, tiles = {n}": _search(Search(detector, tiles=n)) for n in (1, 2, 3)}
    default = FaceDetectorYN()
    looks: dict[str, Look] = tiled | {
        f"FaceDetectorYN {default.threshold:.1f}": default.detect,
        f"FaceDetectorYN {THRESHOLD:.1f}": FaceDetectorYN(THRESHOLD).detect,
        "Haar 1.3/5": Haar().detect,
    }
    return [_Row(name, look) for name, look in looks.items()]


def _search(search: Search) -> Look:
    return lambda image: search.find(Pixels(image))


def _picture(
    rows: Sequence[_Row], sets: Sequence[str], image: Image, boxes: Sequence[Box], repeats: int
) -> None:
    times: dict[str, list[float]] = {row.name: [] for row in rows}
    for turn in range(repeats):
        for row in rows:
            begin = time.process_time()
            found = row.look(image)
            times[row.name].append(1000 * (time.process_time() - begin))
            if turn:
                continue
            for set_ in sets:
                for iou in _IOUS:
                    row.score(set_, f"iou{iou}").add(found, boxes, (_HIGH, math.inf), iou)
                row.score(set_, "small").add(found, boxes, (_SMALL, _HIGH), _IOUS[0])
    for row in rows:
        for set_ in sets:
            row.ms.setdefault(set_, []).append(statistics.median(times[row.name]))


def _summary(row: _Row, haar: _Row, set_: str) -> dict[str, Any]:
    strict, loose, small = (row.score(set_, kind) for kind in ("iou0.5", "iou0.3", "small"))
    reference = haar.score(set_, "iou0.5")
    return {
        "faces": strict.wanted,
        "missed": strict.wanted - strict.hits,
        "errors": strict.errors,
        "recall": round(strict.recall, 4),
        "precision": round(strict.precision, 4),
        "recall_against_haar": round(strict.recall / reference.recall, 3) if reference.hits else None,
        "precision_minus_haar": round(strict.precision - reference.precision, 4),
        "recall_at_iou_0.3": round(loose.recall, 4),
        "precision_at_iou_0.3": round(loose.precision, 4),
        "small_faces": small.wanted,
        "recall_small": round(small.recall, 4) if small.wanted else None,
        "ms": round(statistics.fmean(row.ms[set_]), 2),
        "ms_median": round(statistics.median(row.ms[set_]), 2),
    }


def overlap(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, across) * max(0.0, down)
    return shared / max(1e-9, one[2] * one[3] + other[2] * other[3] - shared)
