"""Failed logins: each one makes the next wait longer, for its address and for all together."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from facerelay.admission import network

FREE: Final = 5
"""Failures of an address before it has to wait."""

IN_ALL: Final = 300
"""Failures a minute of all addresses together, but those that have logged in before.

So many guesses find no token of 24 characters; fewer could be used up by somebody with some hundred
addresses, and nobody else would get in.
"""

_LONGEST_S: Final = 900.0
_FORGOTTEN_S: Final = 3600.0
_MOST: Final = 4_096
_MINUTE_S: Final = 60.0
_V6_NETWORK: Final = 56


class Attempts:
    """Says for how long an address has to wait before its next try is looked at.

    Five failures are free, then the waits double from a second to a quarter of an hour; an hour without one
    is forgotten. Addresses of one /56 of IPv6 count as one: that is what a household is given.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._welcome: OrderedDict[str, None] = OrderedDict()
        self._left, self._at = float(IN_ALL), clock()

    def wait_s(self, address: str) -> float:
        """Return the seconds to wait; 0: it may try."""
        whose, now = _whose(address), self._clock()
        count, last = self._failures.get(whose, (0, now))
        if now - last > _FORGOTTEN_S:
            count = 0
        own = min(_LONGEST_S, 2.0 ** min(count - FREE, 20)) if count >= FREE else 0.0
        self._refill(now)
        common = 0.0 if whose in self._welcome else (1 - self._left) * _MINUTE_S / IN_ALL
        return max(0.0, last + own - now, common)

    def failed(self, address: str) -> None:
        """Count a failure."""
        whose, now = _whose(address), self._clock()
        count, last = self._failures.pop(whose, (0, now))
        self._failures[whose] = (1 if now - last > _FORGOTTEN_S else count + 1), now
        while len(self._failures) > _MOST:
            self._failures.popitem(last=False)
        self._refill(now)
        self._left = max(0.0, self._left - 1)

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        whose = _whose(address)
        self._failures.pop(whose, None)
        self._welcome[whose] = None
        self._welcome.move_to_end(whose)
        while len(self._welcome) > _MOST:
            self._welcome.popitem(last=False)

    def _refill(self, now: float) -> None:
        self._left = min(float(IN_ALL), self._left + (now - self._at) * IN_ALL / _MINUTE_S)
        self._at = now


def _whose(address: str) -> str:
    return network(address, wide=_V6_NETWORK) or "this machine"
