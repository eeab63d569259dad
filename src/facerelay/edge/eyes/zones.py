"""Where faces count, and what of a picture nobody may see."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from facerelay.edge.cameras.raster import Box, Image, Pixels, Raster
from facerelay.edge.eyes.detect import Detection

Polygon: TypeAlias = Sequence[tuple[float, float]]
"""Corners, as shares of a frame's width and height."""

_GROWN: Final = 3
"""Pixels by which a mask is wider than it was drawn: so far a picture made smaller, and the colours of 4:2:0
video, carry what lies at its edge."""

_SUBPIXEL_BITS: Final = 8
_SIZES: Final = 8
"""Sizes of pictures whose masks are remembered: a stream may change its own."""


class Zones:
    """A camera's zones and privacy masks; a polygon whose sides cross is a mask without holes.

    Args:
        zones: a face counts if its centre lies in one of them, or if there are none.
        masks: parts of the picture that are black for all that looks at it.
    """

    def __init__(self, *, zones: Sequence[Polygon] = (), masks: Sequence[Polygon] = ()) -> None:
        self._zones = [np.asarray(zone, np.float32) for zone in zones]
        self._cover = Cover(masks) if masks else None

    def masked(self, raster: Raster) -> Raster:
        """Return the picture with its masks blackened: the very same where there are none."""
        if self._cover is None:
            return raster
        if isinstance(raster, Pixels):
            # All of it at once: to copy one colour of three takes longer than to copy them all.
            return Pixels(self._cover.blacken(raster.cut((0, 0, *raster.size)), raster.size))
        return Masked(raster, self._cover)

    def hold(self, detection: Detection, size: tuple[int, int]) -> bool:
        """Tell whether a face lies where faces count.

        Args:
            detection: in pixels; a centre beyond the frame's edge is taken to be on it.
            size: width and height of the frame.
        """
        if not self._zones:
            return True
        x, y, w, h = detection.box
        at = min(1.0, max(0.0, (x + w / 2) / size[0])), min(1.0, max(0.0, (y + h / 2) / size[1]))
        return any(cv2.pointPolygonTest(zone, at, measureDist=False) >= 0 for zone in self._zones)


class Cover:
    """What the masks cover, in pixels of a picture of any size.

    Args:
        masks: see `Zones`.
    """

    def __init__(self, masks: Sequence[Polygon]) -> None:
        self._masks = [np.asarray(mask, np.float64) for mask in masks]
        self._outlines = lru_cache(_SIZES)(self._outlined)

    def blacken(self, image: Image, size: tuple[int, int], at: tuple[int, int] = (0, 0)) -> Image:
        """Blacken what is covered, in place, and return the same picture.

        Args:
            image: a part of the picture, or all of it.
            size: width and height of the whole picture.
            at: where in it the part's left upper corner lies.
        """
        for outline in self._outlines(size):
            cv2.fillPoly(image, [outline], (0, 0, 0), offset=(-at[0], -at[1]))
        return image

    def _outlined(self, size: tuple[int, int]) -> list[NDArray[np.int32]]:
        """Return the outermost covered pixels of each mask, as closed lines."""
        found: list[NDArray[np.int32]] = []
        around = np.ones((2 * _GROWN + 1, 2 * _GROWN + 1), np.uint8)
        for mask in self._masks:
            # With room around it, so that what is drawn at the frame's edge is grown like the rest.
            covered = np.zeros((size[1] + 2 * _GROWN, size[0] + 2 * _GROWN), np.uint8)
            corners = np.round((mask * size + _GROWN - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
            cv2.fillPoly(covered, [corners], 255, shift=_SUBPIXEL_BITS)
            covered = cast("NDArray[np.uint8]", cv2.dilate(covered, around))
            outlines, _ = cv2.findContours(
                covered, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(-_GROWN, -_GROWN)
            )
            found += cast("list[NDArray[np.int32]]", list(outlines))
        return found


class Masked:
    """A picture that never gives out what its masks cover.

    Args:
        raster: the picture; it is left as it is.
        cover: its masks.
    """

    def __init__(self, raster: Raster, cover: Cover) -> None:
        self._raster, self._cover = raster, cover
        self._luma: Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self._raster.size

    def small(self, side: int) -> Image:
        """Return it with its long side at most `side` pixels."""
        image = self._raster.small(side)
        size = image.shape[1], image.shape[0]
        # In its own size a raster may give out its own pixels.
        return self._cover.blacken(image.copy() if size == self.size else image, size)

    def cut(self, box: Box) -> Image:
        """Return a copy of a part of it."""
        return self._cover.blacken(self._raster.cut(box), self.size, box[:2])

    def luma(self) -> Image:
        """Return its brightness; copied at the first call."""
        if self._luma is None:
            self._luma = self._cover.blacken(self._raster.luma().copy(), self.size)
        return self._luma
