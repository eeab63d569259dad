"""Is anything lost, late or dark? The alarms that there are, as one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from facerelay.alarms import Alarm, Report
from facerelay.messages import Account

Level = Literal["good", "warning", "critical", "unknown"]

_LOST: Final = frozenset({"lost", "dropped", "books"})
_UNKNOWN: Final = "whether they came is not known"
_LATE: Final = frozenset({"late", "unanswered", "stuck"})


class Verdict(NamedTuple):
    """A sentence, and how bad it is; `unknown` where nothing can be said."""

    level: Level
    words: str


def judge(reports: Sequence[Report], alarms: Iterable[Alarm]) -> Verdict:
    """Answer for now whether anything is lost, late or dark.

    Args:
        reports: what is known of the outboxes.
        alarms: what `alarms.find` makes of these.
    """
    found = list(alarms)
    if not any(report.books.cameras for report in reports):
        return Verdict("unknown", "Nothing is known yet: no edge has told its books.")
    unknown = {report.site for report in reports if any(account.sent for account in _lately(report))}
    if not found and unknown:
        where = _some(unknown, "site")
        return Verdict(
            "unknown", f"Nothing is late or dark. Faces of {where} go without receipts: {_UNKNOWN}."
        )
    if not found:
        return Verdict("good", "Nothing is lost, late or dark.")
    lost = {_place(alarm) for alarm in found if alarm.kind in _LOST}
    late = {alarm.site for alarm in found if alarm.kind in _LATE}
    silent = {alarm.site for alarm in found if alarm.kind == "silent"}
    dark = {_place(alarm) for alarm in found if alarm.kind == "dark"}
    parts = [
        f"faces of {_some(lost, 'camera')} were lost" if lost else "nothing is lost",
        _delay(late, silent),
        f"{_some(dark, 'camera')} {_is(dark)} dark" if dark else "nothing is dark",
    ]
    more = len([alarm for alarm in found if alarm.kind not in _LOST | _LATE | {"silent", "dark"}])
    if unknown and not lost:
        parts[0] = f"faces of {_some(unknown, 'site')} go without receipts, {_UNKNOWN}"
    words = _upper("; ".join(parts)) + (f"; and {more} more to know of." if more else ".")
    critical = any(alarm.severity == "critical" for alarm in found)
    return Verdict("critical" if critical else "warning", words)


def _delay(late: set[str], silent: set[str]) -> str:
    """Say who is late; of an edge that is not heard nobody knows whether anything waits there."""
    said = [f"{_some(late, 'edge')} {_is(late)} late"] if late else []
    said += [f"{_some(silent, 'edge')} {_is(silent)} not heard"] if silent else []
    return " and ".join(said) or "nothing is late"


def _lately(report: Report) -> Iterable[Account]:
    """Return what was counted of its cameras lately, or ever where that is not known."""
    if report.lately is None:
        return report.books.cameras.values()
    return (report.lately[name] for name in report.books.cameras if name in report.lately)


def _place(alarm: Alarm) -> str:
    return f"{alarm.site}/{alarm.camera}" if alarm.camera else alarm.site


def _some(places: set[str], what: str) -> str:
    """Name one place, or count several."""
    return min(places) if len(places) == 1 else f"{len(places)} {what}s"


def _is(places: set[str]) -> str:
    return "is" if len(places) == 1 else "are"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
