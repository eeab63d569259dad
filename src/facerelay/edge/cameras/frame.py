"""What a camera gives: a picture with its place in time, or word that none came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from facerelay.edge.cameras.raster import NO_IMAGE, Image, Raster


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture of a camera, or word that none came.

    Attributes:
        raster: the picture; None in a blank frame.
        index: its number in the stream, from 0; numbers left out are frames that were dropped.
        pts: seconds on the stream's clock, which never goes back.
        time: when it arrived here, in UTC.
        still: whether it stands alone (a photograph), so that no other frame shows the same moment.
        late: whether the camera is behind its time, so that the frame is better passed over.
        dark: of a blank frame: whether the camera is taken to be gone, not only slow.
    """

    raster: Raster | None
    index: int
    pts: float
    time: datetime
    still: bool = False
    late: bool = False
    dark: bool = False

    @property
    def blank(self) -> bool:
        """Whether no picture came: it says only that time has passed."""
        return self.raster is None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; 0, 0 of a blank frame."""
        return (0, 0) if self.raster is None else self.raster.size

    @property
    def image(self) -> Image:
        """The whole picture, height x width x 3, BGR, made anew at each call; 0 x 0 x 3 of a blank frame."""
        return NO_IMAGE if self.raster is None else self.raster.cut((0, 0, *self.raster.size))
