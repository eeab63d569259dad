"""What was heard of an outbox on a day, as it is to be merged into the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from facerelay.cloud.history import marks
from facerelay.cloud.history.marks import Camera, DayMarks, Mark

_KEEP: Final = timedelta(minutes=10)
"""So long after its end an hour's marks are merged again: another store may have written over them."""


@dataclass(slots=True)
class Page:
    """What was heard of an outbox on a day."""

    bases: dict[str, Mark]
    hours: dict[int, dict[str, Mark]] = field(default_factory=dict)
    dark: dict[str, int] = field(default_factory=dict)
    heard: int = 0
    unanswered: int = 0
    late: int = 0
    back: dict[int, Literal["link", "capture"]] = field(default_factory=dict)

    def take(self, minute: int, cameras: Mapping[str, Mark]) -> None:
        """Keep the later mark of each camera."""
        hour = self.hours.setdefault(minute // 60, {})
        for name, mark in cameras.items():
            hour[name] = max(hour.get(name, mark), mark, key=lambda one: one.rank)

    def marks(self) -> DayMarks:
        """Return what is to be merged."""
        names = {name for hour in self.hours.values() for name in hour} | self.bases.keys() | self.dark.keys()
        cameras = {
            name: Camera(
                base=self.bases.get(name),
                hours={hour: there[name] for hour, there in self.hours.items() if name in there},
                dark=marks.bits(self.dark.get(name, 0)),
            )
            for name in sorted(names)[: marks.MOST_CAMERAS]
        }
        return DayMarks(
            cameras=cameras,
            heard=marks.bits(self.heard),
            unanswered=marks.bits(self.unanswered),
            late=marks.bits(self.late),
            back=self.back,
        )

    def trim(self, day: date, now: datetime) -> None:
        """Forget the marks of hours that are long over: they are in the bucket."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        for hour in list(self.hours):
            if now - midnight > timedelta(hours=hour + 1) + _KEEP:
                del self.hours[hour]


def minute_of(now: datetime) -> int:
    """Return the minute of its day."""
    return now.hour * 60 + now.minute


def since(start: datetime, now: datetime) -> int:
    """Return the minutes of today from a time to now."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = max(0, int((start - midnight).total_seconds() // 60))
    return marks.between(first, minute_of(now))
