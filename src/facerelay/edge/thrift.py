"""Smaller pictures while the line is too thin for all: more people at lower quality, not fewer at full."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from facerelay.face import Thinned
from facerelay.sections import PictureFormat

_WAIT_S: Final = 0.5
"""How long live faces may wait before pictures get smaller."""

_PER_S: Final = 0.25
"""How fast they do: from full size to the limits in four seconds, where faces wait long."""


class Thrift:
    """How much is saved on pictures, between nothing and the limits that the user set.

    Cameras' threads read it while the relay writes it.

    Args:
        min_quality: of JPEG and WebP, at most so low; None keeps the quality.
        min_side: longest side in pixels, at most so small; None keeps the size.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        min_quality: int | None = None,
        min_side: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._min_quality = min_quality
        self._min_side = min_side
        self._clock = clock
        self._looked = clock()
        self.level = 0.0

    def look(self, waiting: int, rate: float | None) -> None:
        """Follow the line: save more while live faces wait for long, less when they don't.

        Args:
            waiting: bytes of live faces that were not sent yet.
            rate: bytes per second that go; None where that is no limit.
        """
        now = self._clock()
        passed, self._looked = min(1.0, now - self._looked), now
        wait = waiting / rate if rate else 0.0
        push = min(1.0, max(-1.0, (wait - _WAIT_S) / _WAIT_S))
        self.level = min(1.0, max(0.0, self.level + _PER_S * push * passed))

    def encoding(self, form: PictureFormat, longest: int) -> tuple[PictureFormat, Thinned | None]:
        """Return how to encode a picture now, and what to write into it if that makes it smaller.

        Args:
            form: how it would be encoded with nothing to save.
            longest: its longer side, in pixels.
        """
        level = self.level
        quality, side = form.quality, form.max_side
        if self._min_quality is not None and self._min_quality < quality and form.format != "png":
            quality = round(quality - level * (quality - self._min_quality))
        if self._min_side is not None and self._min_side < min(side, longest):
            side = round(min(side, longest) * (self._min_side / min(side, longest)) ** level)
        if quality == form.quality and side >= min(form.max_side, longest):
            return form, None
        return form.model_copy(update={"quality": quality, "max_side": side}), Thinned(
            quality=quality, side=side
        )
