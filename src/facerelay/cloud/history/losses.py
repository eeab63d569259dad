"""Did we lose a face then, and why? What a period of the past answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from facerelay.alarms import Report, because, faces
from facerelay.cloud.history.period import Band, Hour, Period, by_place, lasted
from facerelay.reasons import explain
from facerelay.verdict import Verdict

Column = Literal["dropped", "refused"]

_COLUMNS: Final[tuple[Column, ...]] = ("dropped", "refused")
_NO_REASON: Final = "for which no reason is known"
_MOST: Final = 500


def losses(period: Period) -> list[dict[str, Any]]:
    """Return each loss by camera, hour and reason: how many faces, why, and what to do."""
    found = (
        loss
        for name, hours in period.cameras.items()
        for hour in hours
        if hour is not None
        for column in _COLUMNS
        for loss in _of(name, hour, column)
    )
    return sorted(found, key=lambda loss: (loss["start"], loss["camera"]))[:_MOST]


def judge_past(period: Period, reports: Sequence[Report]) -> Verdict:
    """Answer whether a face was lost in a period, and why, or what cannot be said.

    Args:
        period: which hours.
        reports: of the outboxes as they are now: a camera of theirs of which nothing was heard is named.
    """
    heard = [name for name, hours in period.cameras.items() if any(hours)]
    if not heard:
        return Verdict(
            "unknown", "Nothing is known of that time: no edge was heard, or no store kept a history."
        )
    account = period.sums.account()
    doubts = [*_doubts(period), *_unheard(reports, heard)]
    more = "".join(f" {doubt}" for doubt in doubts)
    if account.dropped:
        of = f" of {account.captured} captured" if account.captured >= account.dropped else ""
        words = f"Yes: {faces(account.dropped)}{of} {_was(account.dropped)} lost: "
        return Verdict("critical", words + because(account, "dropped") + more)
    words = f"No face was lost: {account.captured} captured, {account.stored} received."
    if account.sent:
        words = (
            f"No face is known to be lost: {account.captured} captured, {account.stored} received. "
            f"{faces(account.sent)} went without receipts: whether they came is not known."
        )
    if account.refused:
        words += f" {faces(account.refused)} {_was(account.refused)} refused, and parked at the edge: "
        return Verdict("warning", words + because(account, "refused") + more)
    return Verdict("warning" if doubts else "unknown" if account.sent else "good", words + more)


def _of(name: str, hour: Hour, column: Column) -> Iterator[dict[str, Any]]:
    """Yield a camera's losses of an hour by reason, and what is left without one."""
    codes = {code: n for code, n in hour.reasons.items() if n > 0 and explain(code).column == column}
    left = getattr(hour, column) - sum(codes.values())
    for code, n in [*codes.items(), *([("", left)] if left > 0 else [])]:
        words, todo = (
            (explain(code).words, explain(code).todo) if code else (_NO_REASON, "See the log of capture.")
        )
        yield {
            "camera": name,
            "start": hour.start.isoformat(),
            "since": hour.since.isoformat(),
            "end": (hour.start + timedelta(hours=1)).isoformat(),
            "column": column,
            "code": code,
            "n": n,
            "words": words,
            "todo": todo,
        }


def _doubts(period: Period) -> Iterator[str]:
    """Say what else an answer must not hide: who is not heard yet, and who was not looked at."""
    silent = {band.site for band in period.bands if band.kind == "silent" and band.lasts}
    if silent:
        yield f"What happened at {_names(silent)} after its last word was told later, or is not known yet."
    off = by_place(band for band in period.bands if not band.seen)
    if off:
        yield f"Not heard, and perhaps off: {_names(_minutes(off))}. Who passed then may not have been seen."
    dark = by_place(band for band in period.bands if band.kind == "dark")
    if dark:
        yield f"No picture came of {_names(_minutes(dark))}: nobody was seen there."


def _minutes(found: Mapping[str, list[Band]]) -> list[str]:
    return [f"{name} for {_long(lasted(bands))}" for name, bands in sorted(found.items())]


def _unheard(reports: Sequence[Report], heard: Sequence[str]) -> Iterator[str]:
    missing = {name for report in reports for name in report.books.cameras} - set(heard)
    if missing:
        yield f"Nothing is known of {_names(missing)} then."


def _names(names: set[str] | list[str]) -> str:
    first = sorted(names)[:3]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def _long(time: timedelta) -> str:
    minutes = time // timedelta(minutes=1)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"


def _was(n: int) -> str:
    return "was" if n == 1 else "were"
