"""How many faces were stored on each day, from what the stores wrote down of it: read behind the pages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

from facerelay.cloud import history
from facerelay.cloud.contract import Bucket, BucketError

log = logging.getLogger(__name__)

MOST_DAYS: Final = 92
"""Days before today that are counted."""

_SPAN: Final = 7
_CLOSED_S: Final = 3600.0
_OPEN_S: Final = 60.0
_AWAIT_S: Final = 0.15
_DAY: Final = timedelta(days=1)


class Tallies:
    """Faces stored by day and camera. Whoever asks gets what is known in a moment."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._known: dict[date, tuple[float, Mapping[str, int]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def of(self, days: list[str], *, site: str | None, camera: str | None) -> list[int | None]:
        """Return the faces stored on each day at the cameras that are meant; null where it is not known."""
        found = [date.fromisoformat(day) for day in days]
        due = sorted({self._begin(day) for day in found if self._is_due(day)}, reverse=True)
        if due and self._reading is None:
            self._reading = asyncio.create_task(self._read(due))
            self._reading.add_done_callback(self._done)
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=_AWAIT_S)
        return [self._sum(day, site, camera) for day in found]

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _done(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled() and (error := task.exception()):
            log.error("the days cannot be counted", exc_info=error)

    def _begin(self, day: date) -> date:
        """Return the first day of the span that is read with a day."""
        return day - timedelta(days=day.toordinal() % _SPAN)

    def _is_due(self, day: date) -> bool:
        today = datetime.now(UTC).date()
        if not today - _DAY * MOST_DAYS <= day <= today:
            return False
        if day not in self._known:
            return True
        age = time.monotonic() - self._known[day][0]
        return age > (_OPEN_S if day >= today - _DAY else _CLOSED_S)

    def _sum(self, day: date, site: str | None, camera: str | None) -> int | None:
        known = self._known.get(day)
        if known is None:
            return None
        names = [(name.partition("/"), count) for name, count in known[1].items()]
        counts = [n for (s, _, c), n in names if site in {None, s} and camera in {None, c}]
        return sum(counts) or None  # a day that has faces, and no such count, was before there was history

    async def _read(self, begins: list[date]) -> None:
        """Read the spans that begin on these days, the latest first."""
        try:
            for begin in begins:
                await self._read_span(begin)
        except BucketError as error:
            log.warning("the days cannot be counted: %s", error)
        oldest = datetime.now(UTC).date() - _DAY * (MOST_DAYS + _SPAN)
        self._known = {day: known for day, known in self._known.items() if day >= oldest}

    async def _read_span(self, begin: date) -> None:
        start = datetime.combine(begin, datetime.min.time(), UTC)
        now = time.monotonic()
        period = await history.read_period(self._bucket, start, 24 * _SPAN)
        for number in range(_SPAN):
            hours = slice(24 * number, 24 * (number + 1))
            counts = {
                name: sum(hour.stored for hour in each[hours] if hour)
                for name, each in period.cameras.items()
            }
            self._known[begin + _DAY * number] = (now, counts)
