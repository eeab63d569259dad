"""Memory and file handles of a process over a run, and whether they stay flat."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from facerelay.sections import Store
from faults.parts import Part

LONG_S: Final = 300.0
"""Shorter runs are not judged by thirds: each third should have seen what there is to see."""

MOST_RSS_MB: Final = 256.0
"""No process may ever have more."""

MOST_HANDLES: Final = 60
STORE_HANDLES: Final = MOST_HANDLES + 2 * Store().concurrency
"""For each PUT in hand a connection of its own, and after a failure one of the library's; both are kept."""

_WARM_S: Final = 30.0
_YOUNG_S: Final = 5.0
_RSS_SLACK: Final = 1.2
_RSS_SLACK_MB: Final = 8.0
_HANDLES_SLACK: Final = 1.1
_HANDLES_SLACK_N: Final = 4
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Look(NamedTuple):
    """One look at a process and its children.

    Attributes:
        at: monotonic seconds.
        age: seconds since this one was first seen: it may have been killed and started again.
        rss_mb: resident memory.
        handles: open files.
    """

    at: float
    age: float
    rss_mb: float
    handles: int


class Usage:
    """Looks at one part over a run; its children count with it."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._born: dict[int, float] = {}

    def sample(self, part: Part) -> None:
        """Look once."""
        with suppress(OSError, ValueError, IndexError):
            pids = part.family()
            rss = sum(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) for pid in pids)
            handles = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
            if pids:
                now = time.monotonic()
                age = now - self._born.setdefault(pids[0], now)
                self.looks.append(Look(now, age, rss * _PAGE / 2**20, handles))

    def report(self) -> dict[str, float]:
        """Return peaks, usual memory of the first and the last third, the most handles before and in it."""
        if not self.looks:
            return {}
        begin, end = self.looks[0].at, self.looks[-1].at
        third = (end - begin) / 3
        late = [look for look in self.looks if look.at >= end - third]
        before = [look for look in self.looks if look.at < end - third] or late
        early = [look for look in before if _WARM_S <= look.at - begin <= third] or before
        return {
            "peak_rss_mb": round(max(look.rss_mb for look in self.looks), 1),
            "peak_handles": max(look.handles for look in self.looks),
            "lives": len(self._born), "oldest_s": round(max(look.age for look in self.looks)),
            "early_rss_mb": _usual_rss(early), "late_rss_mb": _usual_rss(late),
            "before_handles": max(look.handles for look in before),
            "late_handles": max(look.handles for look in late),
        }  # fmt: skip


def _usual_rss(looks: list[Look]) -> float:
    grown_up = [look for look in looks if look.age >= _YOUNG_S] or looks
    return round(statistics.median(look.rss_mb for look in grown_up), 1)


def growth(reports: Mapping[str, Mapping[str, float]], seconds: float) -> Iterator[str]:
    """Yield what did not stay flat, in words.

    Args:
        reports: of each process, by name.
        seconds: how long the run was.
    """
    for name, one in reports.items():
        if not one:
            yield f"{name}: was never seen at work"
            continue
        most = STORE_HANDLES if name == "store" else MOST_HANDLES
        if one["peak_rss_mb"] > MOST_RSS_MB or one["peak_handles"] > most:
            yield f"{name}: at most {one['peak_rss_mb']} MB, {one['peak_handles']:.0f} handles: too much"
        if seconds < LONG_S:
            continue
        if one["late_rss_mb"] > one["early_rss_mb"] * _RSS_SLACK + _RSS_SLACK_MB:
            yield f"{name}: its memory grew from {one['early_rss_mb']} to {one['late_rss_mb']} MB"
        if one["late_handles"] > one["before_handles"] * _HANDLES_SLACK + _HANDLES_SLACK_N:
            yield f"{name}: its handles grew from {one['before_handles']:.0f} to {one['late_handles']:.0f}"
