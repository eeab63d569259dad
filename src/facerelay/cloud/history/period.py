"""What happened in some hours of the past: counts by camera and hour, and bands of trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self

from facerelay.cloud.history import marks
from facerelay.messages import MOST_COUNT, MOST_REASONS, Account

_EVER: Final = datetime.min.replace(tzinfo=UTC)

BandKind = Literal["store", "silent", "unanswered", "late", "dark"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted of a camera in some time; `reasons` say why faces were dropped or refused.

    A face that was dropped, and receipted after all, makes `dropped` one less: it can be below 0 in an hour.
    """

    frames: int = 0
    inspected: int = 0
    detections: int = 0
    captured: int = 0
    stored: int = 0
    sent: int = 0
    dropped: int = 0
    refused: int = 0
    erased: int = 0
    duplicates: int = 0
    bytes: int = 0
    gaps: int = 0
    dark_s: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def together(cls, parts: Iterable[Counts]) -> Counts:
        """Return the sum."""
        sums: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for part in parts:
            for name in marks.COUNTS:
                sums[name] += getattr(part, name)
            reasons.update(part.reasons)
        return Counts(**sums, reasons=dict(reasons))

    def risen(self) -> Counts:
        """Return the counts, where what was taken back is not below 0."""
        counts = {name: max(0, getattr(self, name)) for name in marks.COUNTS}
        return Counts(**counts, reasons=self.reasons)

    def account(self) -> Account:
        """Return the counts as a camera's books have them; what was taken back is not below 0."""
        counts = {name: min(max(0, getattr(self, name)), MOST_COUNT) for name in marks.COUNTS}
        most = Counter(self.reasons).most_common(MOST_REASONS)
        return Account(reasons={code: min(n, MOST_COUNT) for code, n in most if n > 0}, **counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour(Counts):
    """A camera's hour.

    Attributes:
        start: of the hour, in UTC.
        since: from when the counts are: `start`, or earlier where nothing was heard before.
        waiting: faces that waited for their answer at its end.
        p50: camera to receipt, in milliseconds, of the last answers at its end; None where there were none.
        p99: as above.
    """

    start: datetime
    since: datetime
    waiting: int = 0
    p50: float | None = None
    p99: float | None = None

    @classmethod
    def joined(cls, one: Self, other: Self) -> Self:
        """Return two outboxes' hour of one camera; of latencies the worse."""
        counts = Counts.together([one, other])
        return cls(
            **{each.name: getattr(counts, each.name) for each in fields(Counts)},
            start=one.start,
            since=min(one.since, other.since),
            waiting=one.waiting + other.waiting,
            p50=max((each.p50 for each in (one, other) if each.p50 is not None), default=None),
            p99=max((each.p99 for each in (one, other) if each.p99 is not None), default=None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A stretch of trouble, by the minute.

    Attributes:
        kind: `store`: none was running; `silent`: an edge was not heard; `unanswered`: it had no receipts;
            `late`: its faces waited for long; `dark`: a camera was gone.
        site: where; empty for a store.
        camera: which, without its site; None where it is of no one camera.
        start: in UTC.
        end: in UTC; that of the period, or a few minutes ago, if it lasts.
        lasts: whether it had not ended by then.
        words: for people.
        seen: False where it may be that nobody looked meanwhile; of a silence: unless the link was down.
    """

    kind: BandKind
    site: str
    camera: str | None
    start: datetime
    end: datetime
    lasts: bool
    words: str
    seen: bool = True


def by_place(bands: Iterable[Band]) -> Mapping[str, list[Band]]:
    """Return bands by their `<site>/<camera>`, or site."""
    found: dict[str, list[Band]] = {}
    for band in bands:
        found.setdefault("/".join(filter(None, [band.site, band.camera])), []).append(band)
    return found


def lasted(bands: Iterable[Band], *, after: datetime = _EVER) -> timedelta:
    """Return for how long at least one of some bands lasted after a time."""
    total = timedelta()
    for band in sorted(bands, key=lambda one: one.start):
        start = max(band.start, after)
        if band.end > start:
            total += band.end - start
            after = band.end
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What happened in some hours.

    Attributes:
        start: a full hour, in UTC.
        end: a full hour, in UTC.
        cameras: by `<site>/<camera>`: each hour of the period in order; None where nothing was heard.
        bands: in the order of their start.
    """

    start: datetime
    end: datetime
    cameras: Mapping[str, tuple[Hour | None, ...]]
    bands: tuple[Band, ...]

    @property
    def sums(self) -> Counts:
        """All cameras together: what faces took back from a column of one camera is not another's loss."""
        return Counts.together(self.total(name).risen() for name in self.cameras)

    @property
    def hours(self) -> list[Counts | None]:
        """The hours of all cameras together; None where nothing was heard of any."""
        columns = zip(*self.cameras.values(), strict=True)
        heard = ([hour for hour in column if hour] for column in columns)
        return [Counts.together(each) if each else None for each in heard]

    def total(self, camera: str) -> Counts:
        """Return the sum of a camera's hours."""
        return Counts.together(hour for hour in self.cameras.get(camera, ()) if hour)
