"""What happened when, from the marks that stores keep in the bucket: counts by the hour, bands of trouble.

A store hears the books of each outbox each ten seconds. They are cumulative, so what it keeps of an hour is
how they stood at its end; the difference is made here. An hour in which nothing was heard has no counts: they
are in the first one after it, whose `since` says from when they are.
"""

from __future__ import annotations

import asyncio
import logging
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.cloud.history import bands, marks
from facerelay.cloud.history.marks import DayMarks, Mark, MarksError
from facerelay.cloud.history.period import Hour, Period
from facerelay.cloud.history.window import Outbox, Window
from facerelay.face import SLUG

log = logging.getLogger(__name__)

ROOT: Final = "history"
MOST_HOURS: Final = 24 * 8

_OUTBOX: Final = re.compile(rf"site=({SLUG})/([0-9a-f]{{8,64}})\.json", re.ASCII)
_STORE: Final = re.compile(rf"store={SLUG}(?:\.{SLUG})?\.json", re.ASCII)
_AT_ONCE: Final = 16
_LARGE: Final = 50_000
"""Bytes that are read aside, lest whatever else the process does waits."""

_MOST_OBJECTS: Final = 20_000
_MOST_BYTES: Final = 24_000_000
"""Of all marks that are read together; once read they take thirty times as much memory."""

_Object = tuple[date, str | None, str, str]
"""Day, site, outbox and key of some marks."""


def outbox_key(day: date, site: str, outbox: str) -> str:
    """Return where the marks of an outbox's day lie."""
    return f"{ROOT}/date={day.isoformat()}/site={site}/{outbox}.json"


def store_key(day: date, store: str) -> str:
    """Return where it lies in which minutes of a day a store was at work: a name, or `<name>.<instance>`."""
    return f"{ROOT}/date={day.isoformat()}/store={store}.json"


async def read_day(
    bucket: Bucket, day: date, *, site: str | None = None, now: datetime | None = None
) -> Period:
    """Return the 24 hours of a day in UTC; see `read_period`."""
    return await read_period(bucket, datetime.combine(day, time(), UTC), 24, site=site, now=now)


async def read_period(
    bucket: Bucket, start: datetime, hours: int, *, site: str | None = None, now: datetime | None = None
) -> Period:
    """Return some hours of the past.

    That takes a listing for each day and the one before, and for each outbox an object a day.

    Args:
        bucket: where the marks are.
        start: any time in the first hour.
        hours: how many, at most `MOST_HOURS`.
        site: leaves out others.
        now: the time, if it is another.

    Raises:
        BucketError: the bucket cannot be read.
        ValueError: too many hours.
    """
    if not 0 < hours <= MOST_HOURS:
        raise ValueError(f"{hours} hours: 1 to {MOST_HOURS} can be asked for")
    begin = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    window = Window(begin, begin + timedelta(hours=hours), now or datetime.now(UTC))
    outboxes, alive = await _read(bucket, window, site)
    return await asyncio.to_thread(_put_together, window, outboxes, alive)


async def read_marks(bucket: Bucket, key: str) -> DayMarks | None:
    """Return the marks under a key; None where there are none, or none that can be read.

    Raises:
        BucketError: the bucket cannot be read.
    """
    try:
        data = await bucket.get(key, max_bytes=DayMarks.most_bytes)
        read = DayMarks.from_bytes
        return await asyncio.to_thread(read, data) if len(data) > _LARGE else read(data)
    except MissingError:
        return None
    except (MarksError, BucketError) as error:
        if isinstance(error, BucketError) and error.fault != "too-large":
            raise
        log.warning("%s: %s: left out", key, error)
        return None


async def _read(bucket: Bucket, window: Window, site: str | None) -> tuple[list[Outbox], int]:
    """Return the outboxes of a window, and the minutes in which a store was at work."""
    found: dict[tuple[str, str], list[tuple[date, str]]] = {}
    stores: list[tuple[date, str]] = []
    for day, where, name, key in await _affordable(_objects(bucket, window, site)):
        if where is None:
            stores.append((day, key))
        else:
            found.setdefault((where, name), []).append((day, key))
    gate = asyncio.Semaphore(_AT_ONCE)

    async def load(day: date, key: str) -> tuple[date, DayMarks]:
        async with gate:
            return day, await read_marks(bucket, key) or DayMarks()

    alive = 0
    for day, beat in await asyncio.gather(*(load(*each) for each in stores)):
        alive |= window.bits(day, beat.heard)

    async def whole(where: str, name: str, there: list[tuple[date, str]]) -> Outbox:
        return Outbox(window, where, name, dict(await asyncio.gather(*(load(*each) for each in there))))

    outboxes = await asyncio.gather(*(whole(*place, there) for place, there in sorted(found.items())))
    return outboxes, alive


async def _affordable(objects: AsyncIterator[tuple[int, _Object]]) -> list[_Object]:
    """Return the objects, but for the largest where all together are too much to be read."""
    found: list[tuple[int, _Object]] = []
    async for each in objects:
        if len(found) == _MOST_OBJECTS:
            log.warning("more than %d objects of history: the rest is left out", _MOST_OBJECTS)
            break
        found.append(each)
    found.sort(key=lambda each: each[0])
    sums = list(accumulate(size for size, _ in found))
    fit = bisect_right(sums, _MOST_BYTES)
    if fit < len(found):
        form = "more than %d bytes of history: the %d largest objects are left out"
        log.warning(form, _MOST_BYTES, len(found) - fit)
    return [each for _, each in found[:fit]]


async def _objects(bucket: Bucket, window: Window, site: str | None) -> AsyncIterator[tuple[int, _Object]]:
    """Yield size, and day, site, outbox and key, of all marks in a window; of a store's the site is None."""
    for day in window.days:
        under = f"{ROOT}/date={day.isoformat()}"
        async for entry in bucket.list(under):
            name = entry.key.removeprefix(f"{under}/")
            if _STORE.fullmatch(name):
                yield entry.size, (day, None, name, entry.key)
            elif (named := _OUTBOX.fullmatch(name)) and site in {None, named[1]}:
                yield entry.size, (day, named[1], named[2], entry.key)


def _put_together(window: Window, outboxes: Sequence[Outbox], alive: int) -> Period:
    cameras: dict[str, tuple[Hour | None, ...]] = {}
    for outbox in outboxes:
        for name in sorted(outbox.cameras):
            found = tuple(_hours(window, outbox, name))
            before = cameras.get(name)
            cameras[name] = _joined(before, found) if before else found
    return Period(
        start=window.start,
        end=window.end,
        cameras=dict(sorted(cameras.items())),
        bands=tuple(bands.find(window, outboxes, alive)),
    )


def _hours(window: Window, outbox: Outbox, name: str) -> Iterator[Hour | None]:
    """Yield a camera's hours, the difference of its marks."""
    counted: dict[datetime, Hour] = {}
    before: Mark | None = None
    for day, camera in outbox.days_of(name):
        before = before or camera.base
        for number, mark in sorted(camera.hours.items()):
            start = datetime.combine(day, time(number), UTC)
            later = mark if before is None else max(before, mark, key=lambda one: one.rank)
            counts, why = marks.difference(later, before)
            before = later
            counted[start] = Hour(
                **counts, reasons=why, start=start, since=outbox.told_before(start), waiting=mark.waiting,
                p50=mark.ms[0], p99=mark.ms[1],
            )  # fmt: skip
    for start in window.hours:
        if start in counted:
            yield counted[start]
        else:
            yield Hour(start=start, since=start) if outbox.was_heard(start) else None


def _joined(one: tuple[Hour | None, ...], other: tuple[Hour | None, ...]) -> tuple[Hour | None, ...]:
    """Join two outboxes' hours of one camera: what waits in one that is not heard waits on."""
    return tuple(map(_both, _waiting_on(one), _waiting_on(other)))


def _waiting_on(hours: Iterable[Hour | None]) -> Iterator[tuple[Hour | None, int]]:
    """Yield each hour with the faces that waited by the last word so far."""
    waiting = 0
    for hour in hours:
        waiting = hour.waiting if hour else waiting
        yield hour, waiting


def _both(one: tuple[Hour | None, int], other: tuple[Hour | None, int]) -> Hour | None:
    (a, waits), (b, waits_too) = one, other
    if a and b:
        return Hour.joined(a, b)
    known = a or b
    return known and replace(known, waiting=waits + waits_too)
