"""A limit on what FFmpeg takes of memory at once: a source may announce any size it likes."""

from __future__ import annotations

import ctypes
import logging
from typing import Final

import av._core

MOST_BYTES: Final = 300 << 20
"""A still picture of the largest size that is taken fits, with four bytes a pixel."""

_log = logging.getLogger(__name__)


def limit() -> bool:
    """Have each allocation of PyAV's FFmpeg fail that is larger; return whether that could be done."""
    try:
        # Symbols are looked for in what the module is linked to as well: this is the very library it uses.
        ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(MOST_BYTES))  # noqa: SLF001 - no other way
    except (AttributeError, OSError) as error:
        _log.debug("FFmpeg's memory is not limited: %s", error)
        return False
    return True
