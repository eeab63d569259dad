"""The time between two tries to connect."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Final

_FIRST_S: Final = 0.2
_SYSTEM_RANDOM = random.SystemRandom()


class Backoff:
    """Delays that double from one try to the next, up to half of each cut off by chance.

    Args:
        longest_s: of a delay, at most.

    Attributes:
        delay_s: before the next try.
    """

    def __init__(self, *, longest_s: float) -> None:
        self._longest_s = longest_s
        self.delay_s = _FIRST_S

    def begin_anew(self) -> None:
        """Make the next delay the shortest: what was tried held."""
        self.delay_s = _FIRST_S

    def take_longest(self) -> None:
        """Make the next delay the longest: there is no hope for long."""
        self.delay_s = self._longest_s

    async def pause(self, hurry: asyncio.Event | None = None) -> None:
        """Wait; the next delay is longer.

        Args:
            hurry: ends the delay, has the next one begin anew, and is cleared.
        """
        if hurry is None:
            await asyncio.sleep(_jittered(self.delay_s))
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(_jittered(self.delay_s)):
                    await hurry.wait()
                hurry.clear()
                await asyncio.sleep(_jittered(_FIRST_S))
                self.begin_anew()
                return
        self.delay_s = min(2 * self.delay_s, self._longest_s)


def _jittered(seconds: float) -> float:
    return seconds * _SYSTEM_RANDOM.uniform(0.5, 1)
