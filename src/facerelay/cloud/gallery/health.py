"""The operator's view: how all cameras do, what is wrong, and what went wrong when."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from facerelay import alarms
from facerelay.alarms import Report
from facerelay.cloud import history
from facerelay.cloud.contract import Bucket
from facerelay.cloud.gallery import asked
from facerelay.cloud.gallery.answers import answer, guarded
from facerelay.cloud.gallery.asked import AskedError
from facerelay.cloud.history.losses import judge_past, losses
from facerelay.cloud.history.period import Counts, Period
from facerelay.cloud.read_books import read_books
from facerelay.messages import Account
from facerelay.reasons import explain
from facerelay.verdict import judge

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_BOOKS_S: Final = 3.0
_HISTORY_S: Final = 30.0
_REMEMBERED: Final = 8
_FIRST_YEAR, _LAST_YEAR = 2000, 9000
_SHOWN: Final = (
    "frames", "inspected", "detections", "captured", "waiting", "stored", "sent", "dropped", "refused",
    "erased", "bytes",
)  # fmt: skip
_LINK: Final = (
    "oldest_s", "silent_s", "round_trip_s", "up_bytes_s", "in_flight", "window", "broker_dropped", "cuts",
    "resets",
)  # fmt: skip

T = TypeVar("T")


def routes(bucket: Bucket) -> list[Route]:
    """Return the routes of the health page."""
    view = _View(bucket)
    return [
        Route("/api/health", guarded(view.now)),
        Route("/api/health/period", guarded(view.past)),
    ]


class _View:
    """Reads books each few seconds at most, and history each half a minute, however many ask."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._books: _Kept[list[Report]] = _Kept(_BOOKS_S)
        self._periods: _Kept[Period] = _Kept(_HISTORY_S)
        self._lately: _Kept[Mapping[str, Account]] = _Kept(_HISTORY_S)
        self._answers: _Kept[dict[str, Any]] = _Kept(_BOOKS_S)

    async def now(self, _: Request) -> Response:
        """Answer how all do now; one answer for all who ask."""
        return answer(await self._answers.get("", self._look))

    async def _look(self) -> dict[str, Any]:
        now = datetime.now(UTC)
        day = await self._period(now - _DAY + _HOUR, 24)

        async def lately() -> Mapping[str, Account]:
            return {name: day.total(name).account() for name in day.cameras}

        recent = await self._lately.get(day.start.isoformat(), lately) or None
        reports = [report._replace(lately=recent) for report in await self._reports()]
        found = alarms.find(reports, now=now)
        verdict = judge(reports, found)
        return {
            "time": now.isoformat(timespec="seconds"),
            "verdict": verdict._asdict(),
            "alarms": [asdict(alarm) | {"since": _iso(alarm.since)} for alarm in found],
            "cameras": list(_cameras(reports, day)),
            "edges": [_edge(report, now) for report in reports],
            "day": [_iso(day.start + n * _HOUR) for n in range(24)],
        }

    async def past(self, request: Request) -> Response:
        """Answer what went wrong in some hours."""
        start, hours = _asked(request.query_params)
        period = await self._period(start, hours)
        reports = await self._reports()
        verdict = judge_past(period, reports)
        return answer({
            "start": _iso(period.start),
            "end": _iso(period.end),
            "verdict": verdict._asdict(),
            "hours": [_together(period, n) for n in range(hours)],
            "cameras": {name: _totals(period.total(name)) for name in period.cameras},
            "losses": losses(period),
            "bands": [
                asdict(band) | {"start": _iso(band.start), "end": _iso(band.end)} for band in period.bands
            ],
        })  # fmt: skip

    async def _reports(self) -> list[Report]:
        async def read() -> list[Report]:
            return [report async for report in read_books(self._bucket)]

        return await self._books.get("", read)

    async def _period(self, start: datetime, hours: int) -> Period:
        begin = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return await self._periods.get(
            f"{begin} {hours}", lambda: history.read_period(self._bucket, begin, hours)
        )


class _Kept(Generic[T]):
    """What was read, for so many seconds; a few at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._one = asyncio.Lock()

    async def get(self, name: str, read: Callable[[], Awaitable[T]]) -> T:
        """Return what is known under a name, read anew where it is too old."""
        async with self._one:
            at, found = self._known.get(name, (-float("inf"), None))
            if found is None or time.monotonic() - at > self._seconds:
                found = await read()
                self._known[name] = time.monotonic(), found
                self._known.move_to_end(name)
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            return found


def _asked(query: Mapping[str, str]) -> tuple[datetime, int]:
    """Return the first hour that is asked for, and how many."""
    hours = asked.number(query.get("hours", "") or "24", history.MOST_HOURS, "hours")
    try:
        start = datetime.fromisoformat(query.get("start", "")[:40])
        start = (start if start.tzinfo else start.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise AskedError("start: write the time as 2026-11-20T18:00:00Z") from None
    if not _FIRST_YEAR <= start.year <= _LAST_YEAR:
        raise AskedError("start: nothing can be known of that time")
    return start, hours


def _cameras(reports: list[Report], day: Period) -> Iterator[dict[str, Any]]:
    """Yield what is shown of each camera; one that several outboxes tell of is summed."""
    accounts: dict[str, list[Account]] = {}
    for report in reports:
        for name, account in report.books.cameras.items():
            accounts.setdefault(name, []).append(account)
    for name, there in sorted(accounts.items()):
        counts = {step: sum(getattr(account, step) for account in there) for step in _SHOWN}
        reasons = sum((Counter(account.reasons) for account in there), Counter[str]())
        slowest = max((account.latency_ms for account in there), key=lambda latency: latency.p99 or 0)
        site, _, camera = name.partition("/")
        hours = day.cameras.get(name, (None,) * 24)
        yield {
            "name": name,
            "site": site,
            "camera": camera,
            "counts": counts,
            "share": _share(counts),
            "closes": all(account.closes for account in there),
            "dark_since": _iso(max((a.dark_since for a in there if a.dark_since), default=None)),
            "latency": slowest.model_dump(),
            "reasons": [_reason(code, n) for code, n in reasons.most_common()],
            "hours": [hour and [hour.captured, hour.dropped, hour.refused] for hour in hours],
        }


def _share(counts: Mapping[str, int]) -> float | None:
    """Return received over generated: what was erased in the bucket had come."""
    if not counts["captured"] or counts["sent"]:
        return None
    return (counts["stored"] + counts["erased"]) / counts["captured"]


def _reason(code: str, n: int) -> dict[str, Any]:
    return {"code": code, "n": n, **explain(code)._asdict()}


def _edge(report: Report, now: datetime) -> dict[str, Any]:
    link = report.books.link
    heard = report.heard
    return {
        "site": report.site,
        "outbox": report.books.outbox,
        "heard": _iso(heard),
        "silent": not alarms.rests(report)
        and (link is None or heard is None or (now - heard).total_seconds() > alarms.SILENT_S),
        "link": {name: getattr(link, name) for name in _LINK} if link else None,
    }


def _totals(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in _SHOWN if name != "waiting"}


def _together(period: Period, n: int) -> dict[str, Any]:
    """Return the hour of all cameras; without counts where nothing was heard."""
    there = [hour for hours in period.cameras.values() if (hour := hours[n])]
    start = {"start": _iso(period.start + n * _HOUR)}
    if not there:
        return start
    counts = Counts.together(there)
    since = min(hour.since for hour in there)
    late = {"since": _iso(since)} if since < there[0].start else {}
    slowest = max((hour.p99 for hour in there if hour.p99 is not None), default=None)
    return start | _totals(counts) | late | {"waiting": sum(hour.waiting for hour in there), "p99": slowest}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
