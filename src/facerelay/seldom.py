"""Log lines about what anybody can cause by the thousand: each kind now and then, with a count."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Final

_EVERY_S: Final = 5.0


def fault_of(error: Exception) -> str:
    """Return an error that nobody expected as its kind and its place: what it says may hold what came."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}"


class Seldom:
    """Says each kind of thing at most once in `every_s`, and how many of it were left unsaid before.

    A kind is a word of ours, never of a message: they are remembered.
    """

    def __init__(self, log: logging.Logger, *, every_s: float = _EVERY_S) -> None:
        self._log = log
        self._every_s = every_s
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def say(self, level: int, kind: str, form: str, *facts: object) -> None:
        """Say it, or count it."""
        now = time.monotonic()
        if now - self._said.get(kind, -float("inf")) < self._every_s:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said[kind] = now
        unsaid = self._unsaid.pop(kind, 0)
        more = f" (and {unsaid} more like it before)" if unsaid else ""
        self._log.log(level, "%s%s", form % facts, more)
