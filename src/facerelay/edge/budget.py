"""What may be sent: bytes per second and bytes per day, of first sends and of what is sent again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

NOTE: Final = "uplink"
"""The name under which the outbox keeps what a day has spent."""

_BURST_S: Final = 1.0


class _Spent(NamedTuple):
    """Bytes sent on a day."""

    day: date
    bytes: int


def today() -> date:
    """Return the day, in UTC."""
    return datetime.now(UTC).date()


class Budget:
    """A token bucket for the second, a count for the day.

    What is sent may overdraw the bucket by one face, which is paid back before the next. A day begins at
    midnight, UTC; a clock that is set back by less than two days does not begin one again.

    Args:
        per_second: bytes, on average over more than a second; None is no limit.
        per_day: bytes; None is no limit.
        clock: monotonic seconds.
        day: what day it is.
    """

    def __init__(
        self,
        *,
        per_second: int | None = None,
        per_day: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        day: Callable[[], date] = today,
    ) -> None:
        self.per_second = per_second
        self.per_day = per_day
        self._clock = clock
        self._today = day
        self._tokens = _BURST_S * (per_second or 0)
        self._filled = clock()
        self._spent = self._written = _Spent(day(), 0)
        self._told: date | None = None

    def restore(self, note: str | None) -> None:
        """Go on from what was noted before a restart; what cannot be read counts for nothing."""
        try:
            day, size = (note or "").split()
            self._spent = self._written = _Spent(date.fromisoformat(day), int(size))
        except ValueError:
            if note is not None:
                log.warning("what was sent today is not known any more: the day's budget begins anew")

    def news(self) -> str | None:
        """Return what is to be noted, where something was sent on a day that has a budget."""
        if self.per_day is None or self._spent == self._written:
            return None
        self._written = self._spent
        return f"{self._spent.day} {self._spent.bytes}"

    def tell(self) -> None:
        """Say once when the day's budget is spent."""
        if self.day_is_spent and self._told != self._spent.day:
            self._told = self._spent.day
            log.warning(
                "uplink.bytes_per_day = %d are spent: faces wait in the outbox until midnight, UTC",
                self.per_day,
            )

    def spend(self, size: int) -> None:
        """Take note of bytes that are being sent."""
        self._turn_day()
        self._spent = _Spent(self._spent.day, self._spent.bytes + size)
        self._tokens -= size

    @property
    def open(self) -> bool:
        """Whether a face may be sent now."""
        return not self.day_is_spent and self._filling > 0

    @property
    def day_is_spent(self) -> bool:
        """Whether nothing more may be sent until midnight."""
        self._turn_day()
        return self.per_day is not None and self._spent.bytes >= self.per_day

    @property
    def _filling(self) -> float:
        """Bytes in the bucket, which a second fills."""
        if self.per_second is None:
            return 1.0
        now = self._clock()
        most = _BURST_S * self.per_second
        self._tokens = min(most, self._tokens + (now - self._filled) * self.per_second)
        self._filled = now
        return self._tokens

    def _turn_day(self) -> None:
        if self.per_day is None:
            return
        now = self._today()
        if now > self._spent.day or now < self._spent.day - timedelta(days=1):
            self._spent = _Spent(now, 0)
