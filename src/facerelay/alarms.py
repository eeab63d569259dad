"""What is wrong now, in words, by the books of the outboxes: pure, so that every view says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from facerelay.messages import Account, Ledger, LinkHealth
from facerelay.reasons import explain

Kind = Literal[
    "lost", "books", "dropped", "refused", "dark", "silent", "unanswered", "stuck", "late",
    "broker-dropped", "clock", "forged",
]  # fmt: skip
Severity = Literal["critical", "warning"]

SILENT_S: Final = 60.0
"""An edge tells its books each ten seconds; not heard for so long, it is silent."""

LATE_S: Final = 120.0
"""So old the oldest face that waits may be."""

CLOCK_S: Final = 60.0
"""So far an edge's clock may be from the bucket's, the way of its word included."""

_RETIRED: Final = timedelta(days=2)
_DAY_S: Final = 86_400
_HOUR_S: Final = 3600
_REASONS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that somebody ought to see to.

    Attributes:
        kind: what: stable, for programs.
        severity: `critical`: faces are lost, or not seen, or not known to be safe; `warning`: all are safe.
        site: where.
        outbox: whose books say so.
        camera: which, without its site; None where it is not of one camera.
        since: since when; None where that is not known.
        words: what, where, since when, and what to do, for people.
    """

    kind: Kind
    severity: Severity
    site: str
    outbox: str | None
    camera: str | None
    since: datetime | None
    words: str


class Report(NamedTuple):
    """What is known of an outbox.

    Attributes:
        site: where it is.
        books: as it last told them, with how its link did.
        heard: when the cloud last heard something new of it, by the bucket's clock; None for the outbox of
            this machine, whose last word is as old as its note of the link says.
        lately: what was counted of each `<site>/<camera>` in the last day, say; None takes all that was ever
            counted.
    """

    site: str
    books: Ledger
    heard: datetime | None = None
    lately: Mapping[str, Account] | None = None


def find(reports: Iterable[Report], *, now: datetime, lost: Mapping[str, int] | None = None) -> list[Alarm]:
    """Return what is wrong: critical first, then by place.

    Args:
        reports: all that are known: an outbox whose place another one took is not missed; the faces that
            waited in it are.
        now: the time, with its zone.
        lost: how many faces an audit has found to be missing, by `<site>/<camera>`.
    """
    sites: dict[str, list[Report]] = {}
    for report in reports:
        sites.setdefault(report.site, []).append(report)
    all_of_them = [
        alarm
        for known in sites.values()
        for report in known
        for alarm in _of(report, now, replaced(report, known, now))
    ]
    all_of_them += [_lost(name, n) for name, n in (lost or {}).items() if n]
    found = {(a.kind, a.site, a.camera, a.words): a for a in all_of_them}.values()  # of two outboxes, once
    order = {"critical": 0, "warning": 1}
    return sorted(found, key=lambda a: (order[a.severity], a.site, a.camera or "", a.kind, a.outbox or ""))


def age(since: datetime, now: datetime) -> str:
    """Return for people how long something has lasted, such as `5 minutes`."""
    seconds = max(0.0, (now - since).total_seconds())
    for unit, name in ((_DAY_S, "days"), (_HOUR_S, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} seconds"


def replaced(report: Report, known: Iterable[Report], now: datetime) -> bool:
    """Return whether an outbox is silent, and another of its site, heard later, tells of all its cameras."""
    return _is_silent(report, now) and any(
        other.site == report.site
        and other.books.outbox != report.books.outbox
        and other.heard is not None
        and report.heard is not None
        and other.heard > report.heard
        and other.books.cameras.keys() >= report.books.cameras.keys()
        for other in known
    )


def rests(report: Report) -> bool:
    """Return whether no further word of an outbox is to be expected: `facerelay send` did all it had to."""
    link = report.books.link
    return bool(link and link.brief) and not any(one.waiting for one in report.books.cameras.values())


def _is_silent(report: Report, now: datetime) -> bool:
    heard = _heard(report)
    if heard is None or report.books.link is None or rests(report):
        return False
    return (now - heard).total_seconds() > SILENT_S


def _heard(report: Report) -> datetime | None:
    return report.heard or (report.books.link.time if report.books.link else None)


def _of(report: Report, now: datetime, replaced: bool) -> Iterator[Alarm]:  # noqa: FBT001 - of this module
    link, heard, silent = report.books.link, _heard(report), _is_silent(report, now)
    for name, account in report.books.cameras.items():
        yield from _camera(report, name, account, now, gone=silent)
    if report.books.lost:
        yield _alarm("lost", "critical", report, _missing(report.site, report.books.lost))
    if silent and heard is not None:
        yield from _left(report, heard, now) if replaced else [_silent(report, heard, now)]
    elif not silent and link is not None and not rests(report):
        yield from _link(report, link, now)


def _lost(name: str, n: int) -> Alarm:
    site, _, camera = name.partition("/")
    return Alarm(
        kind="lost", severity="critical", site=site, outbox=None, camera=camera or None, since=None,
        words=_missing(name, n),
    )  # fmt: skip


def _missing(where: str, n: int) -> str:
    return (
        f"{faces(n)} of {where} ought to be in the bucket and {_is(n)} not, an audit has found."
        " `facerelay ledger --audit` names each; see who may delete in the bucket."
    )


def _camera(report: Report, name: str, account: Account, now: datetime, *, gone: bool) -> Iterator[Alarm]:
    camera = name.partition("/")[2]
    if not account.closes:
        words = f"The books of {name} do not close: a fault of facerelay, please report it."
        yield _alarm("books", "critical", report, words, camera=camera)
    counted = account if report.lately is None else report.lately.get(name, Account())
    when = "so far" if report.lately is None else "in the last day"
    if counted.dropped:
        words = f"{faces(counted.dropped)} of {name} dropped {when}, never to be seen: "
        yield _alarm("dropped", "critical", report, words + because(counted, "dropped"), camera=camera)
    if counted.refused:
        words = f"{faces(counted.refused)} of {name} refused {when}, and parked at the edge: "
        yield _alarm("refused", "warning", report, words + because(counted, "refused"), camera=camera)
    if account.dark_since and not gone:
        words = (
            f"{name} has given no picture since {_since(account.dark_since, now)}. See its power, its cable"
            " and its address; it is tried again all the time."
        )
        yield _alarm("dark", "critical", report, words, camera=camera, since=account.dark_since)


def because(account: Account, column: Literal["dropped", "refused"]) -> str:
    """Say for people why faces are in a column, the most frequent reason first, and what to do about that."""
    reasons = {code: n for code, n in account.reasons.items() if n and explain(code).column == column}
    most = Counter(reasons).most_common(_REASONS)
    if not most:
        return "no reason is known. See the log of capture."
    said = "; ".join(f"{n} {explain(code).words}" for code, n in most)
    return f"{said}. {explain(most[0][0]).todo}"


def _silent(report: Report, heard: datetime, now: datetime) -> Alarm:
    waiting = sum(account.waiting for account in report.books.cameras.values())
    waits = (
        f"{faces(waiting)} waited there by its last word, safe on its disk"
        if waiting
        else "none waited there"
    )
    if report.heard is None:
        words = f"Capture at {report.site} has not run since {_since(heard, now)}; {waits}. Start it again."
        return _alarm("silent", "critical", report, words, since=heard)
    words = (
        f"{report.site} has not been heard since {_since(heard, now)}; {waits}. See its power, its link"
        " (`facerelay doctor` there), and that a store runs."
    )
    if now - heard > _RETIRED:
        words += " If it was retired, its books go by themselves with store.retention_days."
    return _alarm("silent", "critical", report, words, since=heard)


def _left(report: Report, heard: datetime, now: datetime) -> Iterator[Alarm]:
    """Tell of faces that waited in an outbox when another took its place."""
    waiting = sum(account.waiting for account in report.books.cameras.values())
    if waiting:
        words = (
            f"{faces(waiting)} waited in outbox {report.books.outbox[:8]} of {report.site} when it was last"
            f" heard, {_since(heard, now)}, and another took its place. If that is a copy of the old file, or"
            " was rescued from it, they go up from there: `facerelay ledger --audit` at the edge tells."
            " Else start capture with the old file (outbox.path) until they are answered, or they are lost."
        )
        recent = (now - heard).total_seconds() <= _DAY_S
        yield _alarm("silent", "critical" if recent else "warning", report, words, since=heard)


def _link(report: Report, link: LinkHealth, now: datetime) -> Iterator[Alarm]:
    site = report.site
    if link.silent_s is not None:
        since = _before(link.time, link.silent_s)
        kind: Kind = "stuck" if link.resets else "unanswered"
        tried = f" The link was made anew {link.resets} times, in vain." if link.resets else ""
        words = (
            f"{site} sends faces and has had no receipt since {_since(since, now)}. Nothing is lost,"
            f" they wait on its disk.{tried} See that the store runs and can write to the bucket, and that"
            f" receipts/{site}/# comes back down."
        )
        yield _alarm(kind, "critical", report, words, since=since)
    if link.oldest_s is not None and link.oldest_s > LATE_S:
        since = _before(link.time, link.oldest_s)
        waiting = sum(account.waiting for account in report.books.cameras.values())
        waiting -= link.held if link.held < waiting else 0
        words = (
            f"{faces(waiting)} of {site} wait, the oldest since {_since(since, now)}. Nothing is"
            " lost; if the number does not fall, the link is down, or too thin for what is sent."
        )
        yield _alarm("late", "warning", report, words, since=since)
    if link.broker_dropped:
        words = (
            f"The broker at {site} dropped {link.broker_dropped} messages since it began. Nothing is lost,"
            " they are sent again; raise its max_queued_messages."
        )
        yield _alarm("broker-dropped", "warning", report, words)
    if link.ignored:
        words = (
            f"{site} got {link.ignored} messages in the name of a store since it began, which none of its"
            " authority's stores had signed, and ignored them. Nothing is lost. The log of capture there says"
            " whose they were: enrol that store (trust.cert, trust.key), or see who publishes in its place."
        )
        yield _alarm("forged", "warning", report, words)
    yield from _clock(report, link)


def _clock(report: Report, link: LinkHealth) -> Iterator[Alarm]:
    off = (link.time - report.heard).total_seconds() if report.heard else 0
    if abs(off) > CLOCK_S:
        which = "ahead" if off > 0 else "behind"
        words = (
            f"The clock at {report.site} is {abs(off):.0f} s {which}, or its word was"
            " so long on the way. Faces go by that clock into days and hours: see that it is synchronised."
        )
        yield _alarm("clock", "warning", report, words)


def _alarm(
    kind: Kind,
    severity: Severity,
    report: Report,
    words: str,
    *,
    camera: str | None = None,
    since: datetime | None = None,
) -> Alarm:
    outbox = report.books.outbox
    return Alarm(
        kind=kind, severity=severity, site=report.site, outbox=outbox, camera=camera, since=since, words=words
    )


def at(moment: datetime) -> str:
    """Return a time for people, in UTC."""
    try:
        return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except OverflowError:  # the first day or the last that there is
        return moment.isoformat()


def _since(moment: datetime, now: datetime) -> str:
    return f"{at(moment)} ({age(moment, now)} ago)"


def _before(moment: datetime, seconds: float) -> datetime:
    try:
        return moment - timedelta(seconds=seconds)
    except OverflowError:  # an edge says what it likes
        return moment


def faces(n: int) -> str:
    """Return so many faces, in words."""
    return f"{n} face" if n == 1 else f"{n} faces"


def _is(n: int) -> str:
    return "is" if n == 1 else "are"
