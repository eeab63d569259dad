"""A stretch of the past in minutes: some hours, and the days that must be read to tell of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Final

from facerelay.cloud.history import marks
from facerelay.cloud.history.marks import MINUTES, Bits, Camera, DayMarks

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)
_SETTLE: Final = timedelta(minutes=3)
"""A store writes its marks each minute: what is not heard of the last minutes may yet be."""

_SLACK: Final = 3
"""Minutes without a word before an hour that leave its counts its own."""


@dataclass(frozen=True)
class Window:
    """From `start` to `end`, full hours in UTC, looked at `now`; minute 0 is the midnight a day before."""

    start: datetime
    end: datetime
    now: datetime

    @cached_property
    def days(self) -> list[date]:
        """The days to read: those of the hours, and the one before."""
        first, last = self.start.date() - _DAY, (self.end - _HOUR).date()
        return [first + n * _DAY for n in range((last - first).days + 1)]

    @cached_property
    def zero(self) -> datetime:
        """Minute 0."""
        return datetime.combine(self.days[0], time(), UTC)

    @cached_property
    def hours(self) -> list[datetime]:
        """The hours."""
        return [self.start + n * _HOUR for n in range((self.end - self.start) // _HOUR)]

    @cached_property
    def first(self) -> int:
        """The first minute of the hours."""
        return self.minute(self.start)

    @cached_property
    def last(self) -> int:
        """The minute after the last one of the hours of which something can be said by now."""
        return max(self.first, self.minute(min(self.end, self.now - _SETTLE)))

    @property
    def is_open(self) -> bool:
        """Whether it ends now."""
        return self.now - _SETTLE < self.end

    def minute(self, at: datetime) -> int:
        """Return the minute of a time."""
        return (at - self.zero) // _MINUTE

    def time(self, minute: int) -> datetime:
        """Return when a minute begins."""
        return self.zero + minute * _MINUTE

    def bits(self, day: date, text: Bits) -> int:
        """Return the minutes of a day as minutes of this window."""
        return marks.minutes(text) << MINUTES * (day - self.days[0]).days


class Outbox:
    """What is known of an outbox in a window.

    Attributes:
        site: where.
        cameras: names of all, as `<site>/<camera>`.
        heard: minutes in which something was heard of it.
        unanswered: minutes in which it had no receipts.
        late: minutes in which its oldest face had waited for long.
        back: by minute, what its first word after a silence told of that.
    """

    def __init__(self, window: Window, site: str, name: str, days: Mapping[date, DayMarks]) -> None:
        self._window = window
        self._days = sorted(days.items())
        self.site = site
        self.name = name
        self.cameras = {camera for day in days.values() for camera in day.cameras}
        self.heard = self.unanswered = self.late = 0
        self.back: dict[int, str] = {}
        for day, found in self._days:
            self.heard |= window.bits(day, found.heard)
            self.unanswered |= window.bits(day, found.unanswered)
            self.late |= window.bits(day, found.late)
            offset = MINUTES * (day - window.days[0]).days
            self.back |= {offset + minute: told for minute, told in found.back.items()}

    def days_of(self, camera: str) -> Iterator[tuple[date, Camera]]:
        """Yield a camera's days in order."""
        for day, found in self._days:
            if camera in found.cameras:
                yield day, found.cameras[camera]

    def dark(self, camera: str) -> int:
        """Return the minutes in which a camera was gone."""
        return sum(self._window.bits(day, found.dark) for day, found in self.days_of(camera))

    def was_heard(self, hour: datetime) -> bool:
        """Whether something was heard in an hour."""
        first = self._window.minute(hour)
        return bool(self.heard & marks.between(first, first + 59))

    def told_before(self, hour: datetime) -> datetime:
        """Return from when the counts of an hour are: its start, or when the last word before it came."""
        first = self._window.minute(hour)
        before = self.heard & marks.between(0, first - 1)
        last = before.bit_length()
        return hour if not before or first - last <= _SLACK else self._window.time(last)
