"""Frames that need not be decoded: while nothing moves, or while there is no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

_LATE_S: Final = 1.0
_TOO_LATE_S: Final = 3.0


@dataclass(slots=True)
class Lull:
    """Who looks at a camera's frames says whether it wants them; who decodes them counts what it left out.

    Video has frames that no other refers to (most B-frames): leaving them out harms no other, and in a still
    scene they show nothing new. Streams that have none are decoded in full.

    Attributes:
        on: nothing has moved for a while.
        late_s: a recording that plays in real time is so many seconds behind.
        left_out: frames not decoded, so far.
    """

    on: bool = False
    late_s: float = 0.0
    left_out: int = 0

    @property
    def skips(self) -> Literal["DEFAULT", "NONREF", "NONKEY"]:
        """Which frames are left out, in FFmpeg's words; far behind, all between two key frames."""
        if self.late_s > _TOO_LATE_S:
            return "NONKEY"
        return "NONREF" if self.on or self.late_s > _LATE_S else "DEFAULT"
