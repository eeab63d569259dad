"""How long a receipt may take: RFC 6298's estimate, with receipts in place of segments."""

from __future__ import annotations

from typing import Final

_ALPHA: Final = 1 / 8
_BETA: Final = 1 / 4
_DEVIATIONS: Final = 4
_DOUBLINGS: Final = 5


class RoundTrip:
    """Smoothed round trip and its variation, and what follows: when a receipt is overdue.

    Args:
        first: seconds to wait before any round trip was seen.
        least: seconds to wait at least, for stores answer in batches.
        most: seconds to wait at most.
    """

    def __init__(self, *, first: float, least: float = 1.0, most: float = 60.0) -> None:
        self._first = first
        self._least = least
        self._most = most
        self._mean: float | None = None
        self._variation = 0.0

    def seen(self, seconds: float) -> None:
        """Take one round trip into account: of a face sent once only (Karn's rule)."""
        if self._mean is None:
            self._mean, self._variation = seconds, seconds / 2
            return
        self._variation += _BETA * (abs(self._mean - seconds) - self._variation)
        self._mean += _ALPHA * (seconds - self._mean)

    @property
    def mean(self) -> float | None:
        """Seconds, smoothed; None until one was seen."""
        return self._mean

    @property
    def overdue(self) -> float:
        """Seconds after which a receipt is overdue."""
        if self._mean is None:
            return self._first
        return min(max(self._mean + _DEVIATIONS * self._variation, self._least), self._most)

    @property
    def anew(self) -> float:
        """Seconds after which a receipt is overdue on a way that has just opened: it may be a quicker one."""
        return min(self.overdue, self._first)

    def after(self, sends: int) -> float:
        """Return the wait after so many sends of one face: doubled each time."""
        return min(self.overdue * 2.0 ** min(sends - 1, _DOUBLINGS), self._most)
