"""A day as one HTML page that stands for itself: no script, nothing from elsewhere, and fit for print."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources
from typing import Final

from facerelay import __version__
from facerelay.cloud.contract import content_type
from facerelay.cloud.history.period import Band, Hour, by_place, lasted
from facerelay.cloud.sample import Picture
from facerelay.commands import plots
from facerelay.commands.day import Balance, Day, verdict

_MOST_ROWS: Final = 60
_MOST_COLOURS: Final = len(plots.COLOURS) - 1
_MOST_BANDS: Final = 40
_BAD: Final = ("#b3261e", "#e07a5f")
_COLUMNS: Final = ("frames", "captured", "stored", "sent", "dropped", "refused", "erased", "duplicates")
_ALWAYS: Final = {"captured", "stored", "dropped"}
_CSP: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(day: Day) -> str:
    """Return the page, as HTML."""
    style = resources.files("facerelay.commands").joinpath("report.css").read_text(encoding="utf-8")
    name = f"Faces on {day.day:%A}, {day.day.day} {day.day:%B %Y}"
    made = f"Made by facerelay {__version__} at {day.made:%Y-%m-%d %H:%M} UTC from {escape(day.place)}."
    return "\n".join([
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">',
        '<meta name="robots" content="noindex">', f"<title>{escape(name)}</title>",
        f"<style>{style}</style>", "</head>", "<body>", "<main>",
        f"<header><h1>{escape(name)}</h1>{_about(day)}</header>",
        _verdict(day), _tiles(day), _faces(day), _trouble(day), _lost(day), _cameras(day), _latency(day),
        _bytes(day),        _ledger(day), _strips(day),
        f"<footer>{made} {_warning(day)}</footer>",
        "</main>", "</body>", "</html>", "",
    ])  # fmt: skip


def _about(day: Day) -> str:
    many = len(day.names)
    whose = day.only or (day.names[0] if many == 1 else f"{many} cameras")
    so_far = "" if day.is_over else f", so far (made at {day.made:%H:%M})"
    return f'<p class="about">{escape(whose)}. A day of 24 hours, UTC{so_far}.</p>'


def _verdict(day: Day) -> str:
    level, words = verdict(day)
    return f'<p class="verdict {level}">{escape(words)}</p>'


def _tiles(day: Day) -> str:
    total = day.total
    received = [balance.received for balance in day.balances.values()]
    share = None if None in received or not total.captured else (total.stored + total.erased) / total.captured
    slow = [hour for hours in day.hours.values() for hour in hours if hour and hour.p99 is not None]
    gone = by_place(band for band in day.bands if band.kind == "dark").values()
    dark = sum(lasted(there, after=day.start).total_seconds() for there in gone)
    tiles: list[tuple[str, str, bool]] = []
    if day.hours:
        tiles += [
            (f"{total.captured:,}", "captured", False),
            (f"{total.stored + total.sent:,}", "stored" if not total.sent else "stored or sent", False),
            ("-" if share is None else f"{100 * share:.1f}%", "received over generated", False),
            (f"{total.dropped:,}", "dropped", total.dropped > 0),
            (f"{total.refused:,}", "refused", total.refused > 0),
        ]
        if slow:
            median = sorted(hour.p50 or 0 for hour in slow)[len(slow) // 2]
            tiles.append((plots.lasting(median), "camera to receipt, median", False))
        tiles.append((plots.words(total.bytes, "B"), "sent up", False))
        tiles.append((plots.lasting(dark * 1000) if dark else "none", "cameras dark", dark > 0))
    listed = f"{day.sample.total:,}{'' if day.sample.whole else '+'}"
    tiles.append((listed, "of the day in the bucket now", False))
    cells = (
        f"<li{_ill(when=ill)}><strong>{value}</strong><span>{words}</span></li>"
        for value, words, ill in tiles
    )
    return f'<ul class="tiles">{"".join(cells)}</ul>'


def _faces(day: Day) -> str:
    rows = _ranked(day)
    stacked: dict[str, Sequence[float | None]] = dict(list(rows.items())[:_MOST_COLOURS])
    if others := list(rows.values())[_MOST_COLOURS:]:
        stacked[f"{len(others)} others"] = _added(others)
    what = _what(day)
    bars = plots.bars(f"Faces {what}, by hour", stacked, begun=day.begun)
    note = "" if len(rows) > 1 else _unheard(day)
    return _section(f"Faces {what} an hour", _key(stacked, plots.COLOURS) + bars + note)


def _cameras(day: Day) -> str:
    rows = _ranked(day)
    if len(rows) == 1:
        return ""
    shown = dict(sorted(list(rows.items())[:_MOST_ROWS]))
    left = len(rows) - len(shown)
    more = f'<p class="note">The {_MOST_ROWS} busiest cameras; {left} more are not shown.</p>' if left else ""
    plot = plots.heat(f"Faces {_what(day)}, by hour and camera", shown, begun=day.begun)
    return _section("Each camera", plot + more + _unheard(day))


def _ranked(day: Day) -> dict[str, list[int | None]]:
    """Return the faces of each camera by the hour, the busiest camera first."""
    rows = {name: day.captured(name) for name in day.names}
    return dict(sorted(rows.items(), key=lambda each: (-sum(filter(None, each[1])), each[0])))


def _what(day: Day) -> str:
    return "captured" if day.hours else "in the bucket"


def _unheard(day: Day) -> str:
    if all(all(hours[: day.begun]) for hours in day.hours.values()):
        return ""
    told = {hour.start for hours in day.hours.values() for hour in hours if hour and hour.since < hour.start}
    later = f" ({', '.join(sorted(map(plots.clock, told)))})" if told else ""
    return (
        '<p class="note">Crosses: hours in which nothing was heard of a camera. What was counted in them'
        f" stands in the hour in which it was told{later}.</p>"
    )


def _trouble(day: Day) -> str:
    if not day.hours:
        return ""
    if not day.bands:
        return _section("Outages", f"<p>{_calm(day)}</p>")
    items = "".join(_told(band, day) for band in day.bands[:_MOST_BANDS])
    left = len(day.bands) - _MOST_BANDS
    more = f'<p class="note">… and {left} more, drawn above.</p>' if left > 0 else ""
    return _section(
        "Outages", plots.lanes("Outages on the day", day.bands, day.start) + f"<dl>{items}</dl>" + more
    )


def _calm(day: Day) -> str:
    """Say that there was no outage, as far as is known."""
    first = min(hour.start for hours in day.hours.values() for hour in hours if hour)
    if first > day.start:
        return f"None that is known of. No word of the day is older than {plots.clock(first)}."
    return f"None: a store was at work and every edge was heard {'all day' if day.is_over else 'so far'}."


def _told(band: Band, day: Day) -> str:
    begin = "before 00:00" if band.start < day.start else plots.clock(band.start)
    end = "now" if band.lasts and not day.is_over else plots.clock(band.end)
    if band.lasts and day.is_over:
        end = "the end of the day"
    long = plots.lasting((band.end - band.start).total_seconds() * 1000)
    return f"<dt>{begin} to {end} ({long})</dt><dd>{escape(band.words)}</dd>"


def _lost(day: Day) -> str:
    rows = {
        "dropped": _each(day, lambda hour: max(0, hour.dropped)),
        "refused": _each(day, lambda hour: max(0, hour.refused)),
    }
    rows = {name: row for name, row in rows.items() if any(row)}
    if not rows:
        return ""
    return _section(
        "Dropped and refused an hour",
        _key(rows, _BAD)
        + plots.bars("Faces dropped and refused, by hour", rows, colours=_BAD, height=90, begun=day.begun),
    )


def _latency(day: Day) -> str:
    rows = {
        "half within": _each(day, lambda h: h.p50, most=True),
        "99 of 100 within": _each(day, lambda h: h.p99, most=True),
    }
    if not any(value is not None for row in rows.values() for value in row):
        return ""
    colours = ("#0072b2", "#d55e00")
    many = '<p class="note">Of the slowest camera; by its last answers at the end of the hour.</p>'
    return _section(
        "From camera to receipt",
        _key(rows, colours) + plots.lines("Latency by hour", rows, colours=colours) + many,
    )


def _bytes(day: Day) -> str:
    row = _each(day, lambda hour: hour.bytes)
    if not any(row):
        return ""
    bars = plots.bars("Bytes by hour", {"bytes": row}, height=90, unit="B", begun=day.begun)
    return _section("Bytes sent up an hour", bars)


def _ledger(day: Day) -> str:
    if not day.balances:
        return ""
    total = day.total
    columns = [name for name in _COLUMNS if name in _ALWAYS or getattr(total, name)]
    head = "".join(f"<th>{name}</th>" for name in ("camera", *columns, "waits", "received", "books"))
    shown = sorted(day.balances.items(), key=lambda each: (each[1].closes is True, each[0]))[: _MOST_ROWS * 4]
    rows = "".join(_row(name, balance, columns) for name, balance in shown)
    sums = "".join(f"<td>{getattr(total, name):,}</td>" for name in columns)
    after = sum(balance.after for balance in day.balances.values())
    close = "close" if day.closes else "do not close"
    foot = f"<tfoot><tr><td>together</td>{sums}<td>{after:,}</td><td></td><td>{close}</td></tr></tfoot>"
    note = (
        "Counted on the day: what waited before and was captured is what was stored, dropped, refused, erased"
        " or waits. A face may be captured on one day and stored on the next."
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>{foot}</table>"
    return _section(
        "The day's books", f'<div class="wide" tabindex="0">{table}</div><p class="note">{note}</p>'
    )


def _row(name: str, balance: Balance, columns: Sequence[str]) -> str:
    counts = balance.counts
    bad = {column for column in ("dropped", "refused") if getattr(counts, column) > 0}
    cells = "".join(f"<td{_ill(when=column in bad)}>{getattr(counts, column):,}</td>" for column in columns)
    received = "-" if balance.received is None else f"{100 * balance.received:.1f}%"
    close = {True: "close", False: "do not close", None: "not known"}[balance.closes]
    return (
        f"<tr><td>{escape(name)}</td>{cells}<td>{balance.after:,}</td><td>{received}</td>"
        f"<td{_ill(when=balance.closes is False)}>{close}</td></tr>"
    )


def _strips(day: Day) -> str:
    best, worst = day.strips()
    if not best:
        return ""
    read, total = len(day.sample.pictures), day.sample.total
    of = f"all {total} faces" if read == total else f"{read} of the day's {total:,} faces, chosen by chance"
    parts = [_section("Best quality", f'<p class="note">Out of {of}.</p>{_strip(best)}')]
    if worst:
        parts.append(_section("Worst quality", _strip(worst)))
    return "".join(parts)


def _strip(pictures: Iterable[Picture]) -> str:
    return f'<ul class="strip">{"".join(map(_figure, pictures))}</ul>'


def _figure(one: Picture) -> str:
    known = one.face
    name = f"{known.site}/{known.camera}"
    data = base64.b64encode(one.data).decode()
    kind = content_type(one.key.rpartition(".")[2])
    said = f"A face at {name}, {known.time:%H:%M:%S} UTC"
    words = f"{name}<br>{known.time:%H:%M:%S}<br>quality {known.quality:.2f}"
    return (
        f'<li><figure><img src="data:{kind};base64,{data}" alt="{escape(said)}">'
        f"<figcaption>{words}</figcaption></figure></li>"
    )


def _warning(day: Day) -> str:
    if not any(day.strips()):
        return "It holds no picture."
    return (
        "It holds pictures of faces, which are personal data: <code>facerelay erase</code> does not reach"
        " them here, so keep it as you keep the bucket, and delete it in time."
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _each(day: Day, of: Callable[[Hour], float | None], *, most: bool = False) -> list[float | None]:
    """Return a figure by the hour, of all cameras: the sum, or the most; None where nothing is known."""
    found: list[float | None] = []
    for column in zip(*day.hours.values(), strict=True):
        known = [value for hour in column if hour and (value := of(hour)) is not None]
        found.append((max(known) if most else sum(known)) if known else None)
    return found


def _added(rows: Iterable[Sequence[int | None]]) -> list[int | None]:
    columns = ([value for value in column if value is not None] for column in zip(*rows, strict=True))
    return [sum(column) if column else None for column in columns]


def _ill(*, when: bool) -> str:
    return ' class="ill"' if when else ""


def _key(names: Iterable[str], colours: Sequence[str]) -> str:
    box = '<svg viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" rx="2" fill="{}"/></svg>'
    items = (
        f"<li>{box.format(colour)}{escape(name)}</li>" for name, colour in zip(names, colours, strict=False)
    )
    return f'<ul class="key">{"".join(items)}</ul>'
