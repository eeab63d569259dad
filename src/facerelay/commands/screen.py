"""What is known of all outboxes, drawn for a terminal of any size."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from facerelay.alarms import Alarm
from facerelay.commands import books, health
from facerelay.commands.observed import Observed
from facerelay.messages import Account

_WIDTH: Final = 80
_CELL: Final = 6
_NARROW: Final = 72
_LEAST_ROWS: Final = 3
_AROUND: Final = 3
"""Lines that are always there: the head, the table's head, what is left out."""

_STEPS: Final = {
    "seen": "frames", "insp.": "inspected", "capt.": "captured", "wait": "waiting", "stored": "stored",
    "sent": "sent", "drop": "dropped", "refus.": "refused", "erased": "erased",
}  # fmt: skip
_ALWAYS: Final = {"seen", "insp.", "capt.", "wait", "stored", "drop"}
_LEVELS: Final = {"good": "bold green", "warning": "bold yellow", "critical": "bold red", "unknown": "bold"}
_COLOURS: Final = {"critical": "bold red", "warning": "yellow"}


def screen(seen: Observed, *, note: str = "", width: int = _WIDTH, height: int | None = None) -> Group:
    """Return a screen: the verdict, cameras, links, alarms in words.

    Args:
        seen: what is known.
        note: a line more, such as what is wrong with the look itself.
        width: of the terminal, in columns.
        height: of the terminal, in lines; what does not go in is counted. None where all goes in.
    """
    lines = [Text(note, "bold red")] if note else []
    alarms = [_alarm(alarm) for alarm in seen.alarms]
    links = [_link(line) for line in _links(seen)]
    rows = None
    if height is not None:
        room = height - _AROUND - _lines([_verdict(seen), *lines], width)
        alarms = _fitting(
            alarms, max(room // 2, room - len(seen.books.cameras) - len(links)), width, "alarms"
        )
        links = _fitting(links, max(1, room // 4), width, "links")
        rows = max(_LEAST_ROWS, room - _lines([*alarms, *links], width))
    parts = [_head(seen, width), _verdict(seen), *lines, _cameras(seen, rows, width), *links, *alarms]
    return Group(*parts)


def _head(seen: Observed, width: int) -> Text:
    begin = f"facerelay top  {seen.time:%Y-%m-%d %H:%M:%S} UTC  "
    room = width - len(begin)
    place = seen.place if len(seen.place) <= room else f"…{seen.place[1 - room :]}"
    return Text(begin + place, "dim")


def _verdict(seen: Observed) -> Text:
    return Text(seen.verdict.words, _LEVELS[seen.verdict.level])


def _cameras(seen: Observed, rows: int | None, width: int) -> RenderableType:
    accounts = seen.books.cameras
    if not accounts:
        return Text("No camera has given a frame yet.")
    ill = {f"{alarm.site}/{alarm.camera}": alarm.severity for alarm in reversed(seen.alarms) if alarm.camera}
    order = sorted(accounts, key=lambda name: (name not in ill, name))
    shown = order if rows is None or len(order) <= rows else order[: rows - 1]
    narrow = width < _NARROW
    steps = [
        step
        for step, of in _STEPS.items()
        if (step in _ALWAYS and not (narrow and step == "insp."))
        or (step not in _ALWAYS and any(getattr(a, of) for a in accounts.values()))
    ]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("camera", no_wrap=True, overflow="ellipsis", ratio=1)
    for title in (*steps, "recv.", *([] if narrow else ["p50/p99 ms"])):
        table.add_column(title, justify="right", no_wrap=True, min_width=_CELL)
    for name in shown:
        account = accounts[name]
        cells = [short(getattr(account, _STEPS[step])) for step in steps]
        style = _COLOURS.get(ill.get(name, ""), "")
        cells += [_received(account), *([] if narrow else [_latency(account)])]
        table.add_row(Text(name, style), *cells)
    left = len(order) - len(shown)
    return Group(table, Text(f"… and {left} more cameras", "dim")) if left else table


def _received(account: Account) -> str:
    share = books.received(account)
    if share is None:
        return "-"
    return "100%" if share == 1 else f"{min(share * 100, 99.9):.1f}%"


def _latency(account: Account) -> str:
    p50, p99 = account.latency_ms.p50, account.latency_ms.p99
    return "-" if p50 is None or p99 is None else f"{short(p50)}/{short(p99)}"


def _links(seen: Observed) -> list[str]:
    known = {f"{report.site}/{report.books.outbox}": report.books.link for report in seen.reports}
    return health.lines({name: link for name, link in known.items() if link is not None})


def _link(line: str) -> Text:
    return Text(line, "dim")


def _alarm(alarm: Alarm) -> Text:
    mark = "!!" if alarm.severity == "critical" else "! "
    return Text(f"{mark} {alarm.words}", _COLOURS[alarm.severity])


def _fitting(texts: list[Text], room: int, width: int, what: str) -> list[Text]:
    """Return the first of them that go in, and a line that counts the others."""
    if _lines(texts, width) <= room:
        return texts
    found: list[Text] = []
    for text in texts:
        if _lines([*found, text], width) > room - 1:
            break
        found.append(text)
    return [*found, Text(f"… and {len(texts) - len(found)} more {what}", "dim")]


def _lines(texts: list[Text], width: int) -> int:
    """Return how many lines some texts take."""
    console = Console(width=width)
    return sum(len(text.wrap(console, width)) for text in texts)


def short(number: float) -> str:
    """Return a number in five characters at most."""
    for unit, size in (("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)):
        scaled = number / size
        if scaled < (99_999.5 if not unit else 999.5):
            digits = 0 if not unit or scaled >= 99.95 else 1  # noqa: PLR2004 - three digits are enough
            return f"{scaled:.{digits}f}{unit}"
    return f"{number:.0e}"
