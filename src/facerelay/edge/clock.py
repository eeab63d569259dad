"""Whether the machine's clock is synchronised, as the kernel has it."""

from __future__ import annotations

import ctypes
from typing import Final, Literal

Clock = Literal["synchronised", "unsynchronised", "unknown"]
_TIMEX_BYTES: Final = 512
_TIME_ERROR: Final = 5


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
