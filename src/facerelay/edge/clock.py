"""The machine's clock: whether it is synchronised, as the kernel has it, and whether it was set."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Final, Literal

Clock = Literal["synchronised", "unsynchronised", "unknown"]
_TIMEX_BYTES: Final = 512
_TIME_ERROR: Final = 5
_SLACK_S: Final = 60.0
"""What a clock gains or loses by being slewed, or read late, is less."""


def clock_state() -> Clock:
    """Ask the kernel: `adjtimex(2)` with nothing to change returns the clock's state; Linux alone has it."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError):
        return "unknown"
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state < 0:
        return "unknown"
    return "unsynchronised" if state == _TIME_ERROR else "synchronised"


class ClockSet:
    """Tells by how much the clock was set, against one that nobody sets.

    Args:
        now: Unix seconds.
        since_boot: see the function of that name.
    """

    def __init__(self, now: Callable[[], float], since_boot: Callable[[], float]) -> None:
        self._now = now
        self._since_boot = since_boot
        self._last = now(), since_boot()

    def look(self) -> tuple[float, float]:
        """Return the time in Unix seconds, and by how many seconds it was set since the last look."""
        (then, steady), self._last = self._last, (self._now(), self._since_boot())
        by = (self._last[0] - then) - (self._last[1] - steady)
        return self._last[0], by if abs(by) > _SLACK_S else 0.0


def since_boot() -> float:
    """Return seconds since the machine started, asleep or awake; where it does not say, awake alone."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
