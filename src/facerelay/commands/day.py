"""A day put together for a report: what the store's marks say of it, and what of it lies in the bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Final

from facerelay import alarms
from facerelay.cloud import history
from facerelay.cloud.contract import Bucket
from facerelay.cloud.history.period import Band, Counts, Hour, Period, by_place, lasted
from facerelay.cloud.sample import Picture, Sample, sample
from facerelay.commands.plots import lasting
from facerelay.face import Limits
from facerelay.steps import Watch, unwatched
from facerelay.verdict import Level, Verdict

PICTURES: Final = 240
"""So many pictures are read, at most, for the contact strips."""

PICTURE_BYTES: Final = 100_000
_STRIP: Final = 12
_MOST_DARK: Final = 3
_HOURS: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A camera's books of a day: what was counted in it, and what waited before and after.

    Attributes:
        counts: of the day.
        before: faces that waited when it began; None where nothing is known of that.
        after: faces that waited at its end.
    """

    counts: Counts
    before: int | None
    after: int

    @property
    def answered(self) -> int:
        """Faces that came into a column for good."""
        c = self.counts
        return c.stored + c.sent + c.dropped + c.refused + c.erased

    @property
    def closes(self) -> bool | None:
        """Whether what waited and what was captured is what was answered and what waits; None: not known."""
        if (self.before or 0) + self.counts.captured == self.answered + self.after:
            return True
        return None if self.before is None else False

    @property
    def received(self) -> float | None:
        """Received over generated; more than 1 where faces of the day before were stored on this one."""
        c = self.counts
        return None if c.sent or not c.captured else (c.stored + c.erased) / c.captured


@dataclass(frozen=True)
class Day:
    """A day.

    Attributes:
        day: in UTC.
        made: when it was looked at.
        place: the bucket's address.
        only: the camera that alone was asked for, as `<site>/<camera>`; None for all.
        period: by the store's marks: 25 hours, of which the first is the one before.
        sample: what of it lies in the bucket.
        pictured: whether pictures were asked for.
    """

    day: date
    made: datetime
    place: str
    only: str | None
    period: Period
    sample: Sample
    pictured: bool

    @property
    def start(self) -> datetime:
        """The day's first moment."""
        return datetime.combine(self.day, time(), UTC)

    @property
    def is_over(self) -> bool:
        """Whether the day had ended."""
        return self.made >= self.start + timedelta(days=1)

    @property
    def begun(self) -> int:
        """How many of its hours have begun."""
        return min(_HOURS, int((self.made - self.start) / timedelta(hours=1)) + 1)

    @cached_property
    def hours(self) -> dict[str, tuple[Hour | None, ...]]:
        """The 24 hours of each camera that there are marks of."""
        return {
            name: hours[1:]
            for name, hours in self.period.cameras.items()
            if self._asked(name) and any(hours[1:])
        }

    @cached_property
    def balances(self) -> dict[str, Balance]:
        """Each camera's books."""
        return {name: _balance(self.period.cameras[name]) for name in self.hours}

    @cached_property
    def names(self) -> list[str]:
        """The cameras that there are marks or faces of."""
        return sorted({*self.hours, *self.sample.counts})

    @cached_property
    def bands(self) -> list[Band]:
        """Bands of trouble that reach into the day."""
        site, _, camera = (self.only or "/").partition("/")
        return [
            band
            for band in self.period.bands
            if band.end > self.start
            and (not self.only or (band.site in {"", site} and band.camera in {None, camera}))
        ]

    @cached_property
    def total(self) -> Counts:
        """All cameras' counts."""
        return Counts.together(balance.counts.risen() for balance in self.balances.values())

    @property
    def closes(self) -> bool:
        """Whether no camera's books fail to close."""
        return all(balance.closes is not False for balance in self.balances.values())

    def captured(self, name: str) -> list[int | None]:
        """Return a camera's faces by the hour: as captured by the marks, else as they lie in the bucket."""
        if name in self.hours:
            return [hour.captured if hour else None for hour in self.hours[name]]
        return list(self.sample.counts[name])

    def strips(self) -> tuple[list[Picture], list[Picture]]:
        """Return the best of the sample and the worst, each the most telling first; no picture is in both."""
        order = sorted(self.sample.pictures, key=lambda one: -one.face.quality)
        half = min(_STRIP, (len(order) + 1) // 2)
        return order[:half], order[half:][::-1][:_STRIP]

    def _asked(self, name: str) -> bool:
        return self.only in {None, name}


async def read(
    bucket: Bucket,
    day: date,
    *,
    camera: str | None,
    pictures: bool,
    pixels: int,
    watch: Watch = unwatched,
) -> Day:
    """Read a day.

    Args:
        bucket: where.
        day: in UTC.
        camera: one alone, as `<site>/<camera>`.
        pictures: whether to read some pictures.
        pixels: what a picture may have, at most.
        watch: is told how far it is.

    Raises:
        BucketError: the bucket cannot be read.
    """
    start = datetime.combine(day, time(), UTC)
    site, _, name = camera.partition("/") if camera else (None, "", None)
    period = await history.read_period(bucket, start - timedelta(hours=1), 1 + _HOURS, site=site)
    found = await sample(
        bucket, day, site=site, camera=name, pictures=PICTURES if pictures else 0,
        limits=Limits(bytes=PICTURE_BYTES, pixels=pixels), watch=watch,
    )  # fmt: skip
    return Day(
        day=day, made=datetime.now(UTC), place=bucket.url, only=camera, period=period, sample=found,
        pictured=pictures,
    )  # fmt: skip


def verdict(day: Day) -> Verdict:
    """Say in a sentence or some what became of the day's faces, and how bad that is."""
    if not day.hours:
        known = f"{day.sample.total} faces of it lie in the bucket, counted by the hour they were taken"
        return Verdict("unknown", f"No store has kept marks of this day: {known}.")
    total, after = day.total, sum(balance.after for balance in day.balances.values())
    lost, doubts = [], list(_doubts(day))
    if not day.closes:
        lost.append("The books of the day do not close: a fault of facerelay, please report it.")
    if total.dropped > 0:
        lost.append(f"{total.dropped} faces were dropped: {alarms.because(total.account(), 'dropped')}")
    if total.refused > 0:
        refused = f"{total.refused} were refused, and parked at the edge:"
        doubts.insert(0, f"{refused} {alarms.because(total.account(), 'refused')}")
    known = "No face was lost: each one that was captured is accounted for."
    if total.sent > 0:
        known = (
            f"No face is known to be lost: {total.sent} went without receipts, and whether they came is not"
            " known."
        )
    said = lost or [known]
    if after:
        said.append(f"{after} waited at the edge {'at the end of the day' if day.is_over else 'by now'}.")
    well: Level = "unknown" if total.sent > 0 else "good"
    level: Level = "critical" if lost else "warning" if doubts else well
    return Verdict(level, " ".join([*said, *doubts]))


def _doubts(day: Day) -> Iterator[str]:
    """Say what nobody can know of the day, or not yet."""
    silent = sorted({band.site for band in day.bands if band.kind == "silent" and band.lasts})
    if silent:
        yield f"What happened at {', '.join(silent)} after its last word is not told here."
    for site, ms in _longest(day, (band for band in day.bands if not band.seen)):
        yield f"{site} was not heard for {lasting(ms)}, and perhaps off: who passed may not have been seen."
    for name, ms in _longest(day, (band for band in day.bands if band.kind == "dark")):
        yield f"{name} gave no picture for {lasting(ms)}: nobody was seen there."


def _longest(day: Day, bands: Iterable[Band]) -> list[tuple[str, int]]:
    """Return the places with the longest bands of the day, and how many milliseconds of it they lasted."""
    found = Counter(
        {
            place: lasted(there, after=day.start) // timedelta(milliseconds=1)
            for place, there in by_place(bands).items()
        }
    )
    return found.most_common(_MOST_DARK)


def _balance(hours: Sequence[Hour | None]) -> Balance:
    """Sum a day up; what waits changes in an hour in which something was captured or answered alone."""
    first, *rest = hours
    waiting = before = first.waiting if first else None
    for hour in filter(None, rest):
        moved = (hour.captured, hour.stored, hour.sent, hour.dropped, hour.refused, hour.erased)
        if any(moved) or hour.waiting or waiting is None:
            waiting = hour.waiting
    return Balance(counts=Counts.together(hour for hour in rest if hour), before=before, after=waiting or 0)
