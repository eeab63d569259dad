"""A wall clock that can be set wrong, for the processes that take it: the machine's own stays right."""

from __future__ import annotations

import datetime as dt
import mmap
import struct
import sys
import time
from pathlib import Path
from typing import Final, Self

_FORM: Final = struct.Struct("d")
_Real = dt.datetime


class Clock:
    """By how many seconds the clock is wrong, in a small file that processes share."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_FORM.pack(0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FORM.size)

    @property
    def wrong_by(self) -> float:
        """Seconds; negative where it is slow."""
        return float(_FORM.unpack_from(self._map)[0])

    def set(self, seconds: float) -> None:
        """Step the clock, in all processes that take it."""
        _FORM.pack_into(self._map, 0, seconds)

    def take(self) -> None:
        """Have this process take the clock: `time`, and `datetime` in our modules loaded so far."""
        real, real_ns = time.time, time.time_ns
        clock = self

        class Shifted(_Real):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> Self:
                return super().now(tz) + dt.timedelta(seconds=clock.wrong_by)

        fakes = {
            "time": lambda: real() + clock.wrong_by,
            "time_ns": lambda: real_ns() + round(clock.wrong_by * 1e9),
        }
        for name, fake in fakes.items():
            setattr(time, name, fake)
        for name, module in list(sys.modules.items()):
            if name.startswith("facerelay.") and getattr(module, "datetime", None) is _Real:
                module.datetime = Shifted  # type: ignore[attr-defined] # it was there
