"""A camera's picture, in whatever form it came: BGR is made only of what is wanted of it."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""Height x width x 3, BGR; or height x width, grey."""

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, width, height in whole pixels, inside the picture."""

NO_IMAGE: Final[Image] = np.empty((0, 0, 3), np.uint8)

_LEVELS: Final = np.arange(256)
_LIMITED_Y: Final = np.rint(16 + _LEVELS * 219 / 255).astype(np.uint8)
_LIMITED_UV: Final = np.rint(128 + (_LEVELS - 128) * 224 / 255).astype(np.uint8)
"""Full range put into the limited one, which is what OpenCV converts (ITU-T T.871 against BT.601)."""


class Raster(Protocol):
    """One picture at full resolution."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""

    def small(self, side: int) -> Image:
        """Return it with its long side at most `side` pixels, height x width x 3, BGR."""

    def cut(self, box: Box) -> Image:
        """Return a copy of a part of it, height x width x 3, BGR."""

    def luma(self) -> Image:
        """Return its brightness, height x width, full size: a view, not to be written to."""


class Pixels:
    """A picture that came as BGR, height x width x 3."""

    def __init__(self, image: Image) -> None:
        self._image = image

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self._image.shape[1], self._image.shape[0]

    def small(self, side: int) -> Image:
        """Return it with its long side at most `side` pixels."""
        to = _shrunk(self.size, side)
        if to == self.size:
            return self._image
        return cast("Image", cv2.resize(self._image, to, interpolation=cv2.INTER_LINEAR))

    def cut(self, box: Box) -> Image:
        """Return a copy of a part of it."""
        x, y, w, h = box
        return self._image[y : y + h, x : x + w].copy()

    def luma(self) -> Image:
        """Return the green channel, which is most of an eye's brightness and costs nothing."""
        return self._image[:, :, 1]


class Planes:
    """A picture that came as planar YUV (BT.601), 4:2:0 or 4:2:2, as video decoders give it.

    What the detector sees is made small before it is made BGR, and a face is cut before it is: of a 720p
    frame that saves more than half the work of turning all of it into BGR.

    Args:
        y: height x width; both even.
        u: half as wide, and as high or half as high.
        v: as `u`.
        full: of full range (0 to 255), as JPEG and many webcams have it, else of limited range (16 to 235).
    """

    def __init__(self, y: Image, u: Image, v: Image, *, full: bool = False) -> None:
        self._y, self._u, self._v, self._full = y, u, v, full
        self._rows = y.shape[0] // u.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self._y.shape[1], self._y.shape[0]

    def small(self, side: int) -> Image:
        """Return it with its long side at most `side` pixels."""
        to = _shrunk(self.size, side)
        if to == self.size:
            return self._bgr(self._y, self._u, self._v)
        width, height = _even(to[0]), _even(to[1])
        y = cv2.resize(self._y, (width, height), interpolation=cv2.INTER_LINEAR)
        half = width // 2, height // 2
        u, v = (cv2.resize(plane, half, interpolation=cv2.INTER_LINEAR) for plane in (self._u, self._v))
        return self._bgr(cast("Image", y), cast("Image", u), cast("Image", v))

    def cut(self, box: Box) -> Image:
        """Return a copy of a part of it."""
        x, y, w, h = box
        left, top = x // 2, y // 2
        right, bottom = (x + w + 1) // 2, (y + h + 1) // 2
        chroma = slice(top * 2 // self._rows, bottom * 2 // self._rows), slice(left, right)
        luma = self._y[2 * top : 2 * bottom, 2 * left : 2 * right]
        image = self._bgr(luma, self._u[chroma], self._v[chroma])
        return image[y - 2 * top :, x - 2 * left :][:h, :w].copy()

    def luma(self) -> Image:
        """Return the Y plane."""
        return self._y

    def _bgr(self, y: Image, u: Image, v: Image) -> Image:
        """Convert planes of even sides to BGR."""
        height, width = y.shape
        planes = np.empty((height * 3 // 2, width), np.uint8)
        planes[:height] = y
        chroma = planes[height:].reshape(2, height // 2, width // 2)
        for to, plane in zip(chroma, (u, v), strict=True):
            # OpenCV converts 4:2:0 alone; an eye sees no difference.
            fits = plane.shape == to.shape
            to[:] = plane if fits else cv2.resize(plane, to.shape[::-1], interpolation=cv2.INTER_AREA)
        if self._full:
            cv2.LUT(planes[:height], _LIMITED_Y, planes[:height])
            cv2.LUT(planes[height:], _LIMITED_UV, planes[height:])
        return cast("Image", cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420))


def _shrunk(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = max(size) / side
    if scale <= 1:
        return size
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def _even(side: int) -> int:
    return max(2, 2 * round(side / 2))
