"""What the process itself uses, where Linux says so."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from facerelay.metrics import catalogue
from facerelay.metrics.base import Reading

_STARTED: Final = time.time()
_FILES: Final = Path("/proc/self/fd")
_MEMORY: Final = Path("/proc/self/statm")


async def read() -> Iterable[Reading]:
    """Return CPU and start; memory and open files too where there is /proc."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = [
        Reading(catalogue.CPU, (), used.ru_utime + used.ru_stime),
        Reading(catalogue.STARTED, (), _STARTED),
    ]
    if _MEMORY.exists():
        pages = int(_MEMORY.read_text().split()[1])
        found += [
            Reading(catalogue.MEMORY, (), pages * os.sysconf("SC_PAGE_SIZE")),
            Reading(catalogue.OPEN_FILES, (), len(os.listdir(_FILES))),  # noqa: PTH208 - names, no paths of them
        ]
    return found
