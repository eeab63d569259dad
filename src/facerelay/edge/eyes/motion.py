"""What changed between a camera's pictures: nothing worth a look, something, or all of it."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, cast

import cv2
import numpy as np

from facerelay.edge.cameras.raster import Image, Raster

_ACROSS: Final = 160
_AROUND: Final = (3, 3)
"""Cells that are averaged, so that noise weighs less than what moves."""

_LEAST_STEP, _MOST_STEP = 8.0, 40.0
_NOISES: Final = 5.0
"""A cell has changed when it differs so many times more than half of them do; at least and most so much."""

_LEAST_CELLS: Final = 3
_AGAIN_S: Final = 2.0
"""However still it is, a picture is looked at so often."""

_CUT_SHARE: Final = 0.2
_CUT_LIKENESS: Final = 0.6
"""A cut changes more than so many of the cells, and leaves less likeness: in footage of people who walk and
sign, pictures a tenth of a second apart keep .9 of it, and a third of a second apart .78."""

_FLAT: Final = 1.0
_JUMP, _LEAST_JUMP = 2.5, 4.0
"""So many times more than in any of the last five steps, and more than so many of 255 on average: nineteen of
twenty cuts between takes of one camera are such, and a moment or two of a minute in which people walk."""

_STEPS: Final = 5
_CALM: Final = 0.5


class Change(Enum):
    """What a picture is to the one that was looked at last."""

    NONE = "none"
    SOME = "some"
    JUMP = "jump"
    """Much at once, as when another scene of the same place begins, or somebody passes close by."""
    CUT = "cut"


class Motion:
    """Compares thumbnails of a camera's pictures.

    Whether something moved is told against the last picture that was looked at, not the last one that came,
    so that what changes slowly is seen in the end; a cut is told against the last one that came.

    Attributes:
        moved_at: when something moved last, in seconds on the stream's clock.
    """

    def __init__(self) -> None:
        self._before: Image | None = None
        self._steps: deque[float] = deque(maxlen=_STEPS)
        self._looked: Image | None = None
        self._looked_at = self.moved_at = 0.0

    def see(self, raster: Raster, pts: float) -> Change:
        """Compare a picture; all but `Change.NONE` is taken to be looked at.

        Args:
            raster: the picture.
            pts: its time on the stream's clock, in seconds.
        """
        thumb = thumbnail(raster)
        change = self._compare(thumb, pts)
        self._before = thumb
        if change is not Change.NONE:
            self._looked, self._looked_at = thumb, pts
        return change

    def _compare(self, thumb: Image, pts: float) -> Change:
        if self._looked is None or self._before is None:
            self.moved_at = pts
            return Change.SOME
        if self._looked.shape != thumb.shape:
            return Change.CUT
        jump = self._jumps(self._before, thumb)
        share = _changed(self._looked, thumb)
        if share > _CUT_SHARE and _is_cut(self._before, thumb):
            return Change.CUT
        if share * thumb.size >= _LEAST_CELLS:
            self.moved_at = pts
            return Change.JUMP if jump else Change.SOME
        return Change.SOME if pts - self._looked_at >= _AGAIN_S else Change.NONE

    def _jumps(self, before: Image, now: Image) -> bool:
        step = cv2.mean(cv2.absdiff(before, now))[0]
        usual = max(self._steps, default=step)
        self._steps.append(step)
        return step > max(_JUMP * max(usual, _CALM), _LEAST_JUMP)


def thumbnail(raster: Raster) -> Image:
    """Return about 160 pixels across of the brightness: single pixels, averaged with neighbours."""
    luma = raster.luma()
    step = max(1, luma.shape[1] // _ACROSS)
    down = min(step, luma.shape[0])
    cells = np.ascontiguousarray(luma[down // 2 :: down, step // 2 :: step])
    return cast("Image", cv2.blur(cells, _AROUND))


def _changed(before: Image, now: Image) -> float:
    """Return the share of cells that changed by more than noise."""
    steps = cv2.absdiff(before, now)
    counts = cv2.calcHist([steps], [0], None, [256], [0, 256]).ravel()
    usual = int(np.searchsorted(counts.cumsum(), steps.size / 2))
    least = min(_MOST_STEP, max(_LEAST_STEP, _NOISES * usual))
    return float(counts[int(least) + 1 :].sum()) / steps.size


def _is_cut(before: Image, now: Image) -> bool:
    return _changed(before, now) > _CUT_SHARE and _likeness(before, now) < _CUT_LIKENESS


def _likeness(one: Image, other: Image) -> float:
    """Return the correlation of two thumbnails, which a change of light alone leaves near 1; -1 to 1."""
    first, second = (each.astype(np.float32) - float(each.mean()) for each in (one, other))
    spread = float(np.sqrt((first**2).mean() * (second**2).mean()))
    return float((first * second).mean()) / spread if spread > _FLAT else 1.0
