"""Plots of a day as SVG, all on one axis of 24 hours: no script, no font, nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Final

from facerelay.cloud.history.period import Band, BandKind

WIDTH: Final = 960
_LEFT: Final = 132
_RIGHT: Final = 12
_HOURS: Final = 24
_STEP: Final = (WIDTH - _LEFT - _RIGHT) / _HOURS
_GAP: Final = 4
_TICKS: Final = 4
_LANE: Final = 18
_ROW: Final = 22
_LABEL: Final = 20
"""Letters of a name at the left, at most."""

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a")
"""Told apart by everybody (Okabe and Ito's), and in grey."""

_NAMES: Final[Mapping[BandKind, str]] = {
    "store": "no store", "silent": "not heard", "unanswered": "no receipts", "late": "late", "dark": "dark",
}  # fmt: skip

_BANDS: Final[Mapping[BandKind, str]] = {
    "store": "#3b3b3b", "silent": "#7b3294", "unanswered": "#d55e00", "late": "#e6a700", "dark": "#20304a",
}  # fmt: skip

_UNITS: Final = (("G", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e4, 1e3))
"""A unit, from what number on it is used, and what it stands for."""

_ENDS: Final = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
"""Where a scale may end."""

Row = Sequence[float | None]
"""A value an hour; None where nothing is known."""


def bars(
    title: str,
    rows: Mapping[str, Row],
    *,
    colours: Sequence[str] = COLOURS,
    height: int = 150,
    unit: str = "",
    begun: int = _HOURS,
) -> str:
    """Return stacked bars, one an hour; an hour that has begun, and nothing is known of, has a cross."""

    def say(value: float) -> str:
        return words(value, unit)

    sums = [sum(row[hour] or 0 for row in rows.values()) for hour in range(_HOURS)]
    top = _nice(max(sums, default=0))
    parts = [*_grid([top * n / _TICKS for n in range(_TICKS + 1)], lambda v: v / top, height, say)]
    floor = [0.0] * _HOURS
    for name, colour in zip(rows, colours, strict=False):
        for hour, value in enumerate(rows[name]):
            if value:
                tall, low = value / top * height, floor[hour] / top * height
                said = f"{hour:02}:00, {name}: {say(value)}"
                parts.append(
                    _rect(_x(hour) + _GAP / 2, height - low - tall, _STEP - _GAP, tall, colour, said)
                )
                floor[hour] += value
    unknown = [hour for hour in range(begun) if all(row[hour] is None for row in rows.values())]
    parts += [_unknown(_x(hour), height - _LANE, _STEP - 1, _LANE) for hour in unknown] if rows else []
    return _svg(title, height, parts)


def lines(title: str, rows: Mapping[str, Row], *, colours: Sequence[str] = COLOURS, height: int = 120) -> str:
    """Return lines of milliseconds an hour, on a logarithmic axis of times."""
    known = [value for row in rows.values() for value in row if value]
    low = math.floor(math.log10(max(1.0, min(known, default=10.0))))
    high = max(low + 2, math.ceil(math.log10(max(known, default=1000.0))))

    def share(value: float) -> float:
        return (math.log10(max(value, 10**low)) - low) / (high - low)

    parts = [*_grid([10.0**n for n in range(low, high + 1)], share, height, lasting)]
    for (name, row), colour in zip(rows.items(), colours, strict=False):
        for run in _runs(row):
            points = [(_x(hour) + _STEP / 2, height - share(value) * height) for hour, value in run]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for (x, y), (hour, value) in zip(points, run, strict=True):
                said = _title(f"{hour:02}:00, {name}: {lasting(value)}")
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{said}</circle>')
    return _svg(title, height, parts)


def heat(title: str, rows: Mapping[str, Row], *, begun: int = _HOURS) -> str:
    """Return a row a name and a cell an hour that has begun, the darker the more."""
    most = max((value for row in rows.values() for value in row if value), default=1.0)
    parts: list[str] = []
    for place, (name, row) in enumerate(rows.items()):
        y = place * _ROW
        parts.append(_text(_LEFT - 8, y + _ROW / 2 + 4, _shortened(name), "end", title=name))
        for hour, value in enumerate(row[:begun]):
            if value is None:
                parts.append(_unknown(_x(hour), y, _STEP - 1, _ROW - 1))
                continue
            share = math.sqrt(value / most)
            said = f"{name}, {hour:02}:00: {words(value)}"
            fill = (
                "#f3f5f7"
                if not value
                else f"rgb({_mix(227, 8, share)},{_mix(238, 69, share)},{_mix(246, 122, share)})"
            )
            parts.append(_rect(_x(hour), y, _STEP - 1, _ROW - 1, fill, said))
            if value:
                ink = "white" if share > 0.5 else "#1c2a36"  # noqa: PLR2004 - half way to the darkest
                parts.append(_text(_x(hour) + _STEP / 2, y + _ROW / 2 + 4, words(value), "middle", ink=ink))
    return _svg(title, len(rows) * _ROW, parts)


def lanes(title: str, bands: Sequence[Band], start: datetime) -> str:
    """Return a lane for each place and kind of trouble, with a band for each stretch."""
    found: dict[tuple[str, BandKind], list[Band]] = {}
    for band in bands:
        found.setdefault((_place(band), band.kind), []).append(band)
    parts: list[str] = []
    for row, ((place, kind), stretches) in enumerate(found.items()):
        y = row * _LANE
        name = f"{_NAMES[kind]}: {place}" if place else _NAMES[kind]
        parts.append(_text(_LEFT - 8, y + _LANE / 2 + 4, _shortened(name), "end", title=name))
        parts.append(_rect(_LEFT, y + 3, _STEP * _HOURS, _LANE - 6, "#f3f5f7"))
        for band in stretches:
            left, right = (_at(time, start) for time in (band.start, band.end))
            said = f"{clock(band.start)} to {clock(band.end)}: {band.words}"
            parts.append(_rect(left, y + 3, max(2.0, right - left), _LANE - 6, colour_of(kind), said))
    return _svg(title, len(found) * _LANE, parts)


def colour_of(kind: BandKind) -> str:
    """Return the colour of a kind of trouble."""
    return _BANDS[kind]


def words(value: float, unit: str = "") -> str:
    """Return a number for people, short, with a unit's name if it has one."""
    for prefix, least, size in _UNITS:
        if value >= least:
            number = f"{value / size:.{1 if value < 100 * size else 0}f}".removesuffix(".0")
            return f"{number}{' ' if unit else ''}{prefix}{unit}"
    number = f"{value:.0f}" if value == int(value) else f"{value:.1f}"
    return f"{number} {unit}".rstrip()


def lasting(ms: float) -> str:
    """Return milliseconds for people."""
    for size, unit in ((3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if ms >= size:
            return f"{ms / size:.1f} {unit}".replace(".0 ", " ")
    return f"{ms:.0f} ms"


def clock(at: datetime) -> str:
    """Return the time of day, UTC."""
    return f"{at:%H:%M}"


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    foot = 22
    hours = [_text(_x(hour), height + 17, f"{hour:02}", "middle", ink="#5b6875") for hour in range(0, 25, 2)]
    return (
        f'<div class="wide" tabindex="0"><svg role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg"'
        f' viewBox="0 -8 {WIDTH} {height + foot + 8:.0f}">{"".join(parts)}{"".join(hours)}</svg></div>'
    )


def _grid(
    values: Sequence[float], share: Callable[[float], float], height: float, say: Callable[[float], str]
) -> Iterator[str]:
    for value in values:
        y = height - share(value) * height
        yield f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="#dfe4e8" stroke-width="1"/>'
        yield _text(_LEFT - 8, y + 4, say(value), "end", ink="#5b6875")


def _rect(x: float, y: float, wide: float, tall: float, fill: str, title: str = "") -> str:  # noqa: PLR0917 - as SVG has them
    said = _title(title) if title else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="{fill}">{said}</rect>'


def _unknown(x: float, y: float, wide: float, tall: float) -> str:
    """Return a cell of which nothing is known: a cross in it, not a colour alone."""
    cross = f"M{x:.1f} {y:.1f}l{wide:.1f} {tall:.1f}M{x + wide:.1f} {y:.1f}l{-wide:.1f} {tall:.1f}"
    return (
        f"<g>{_title('nothing was heard')}{_rect(x, y, wide, tall, '#f7f3ee')}"
        f'<path d="{cross}" stroke="#d9cbb8" stroke-width="1"/></g>'
    )


def _text(x: float, y: float, text: str, anchor: str, *, ink: str = "#1c2a36", title: str = "") -> str:
    said = _title(title) if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}">{said}{escape(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _runs(row: Row) -> Iterator[list[tuple[int, float]]]:
    """Yield stretches of hours in a row that have a value."""
    run: list[tuple[int, float]] = []
    for hour, value in enumerate(row):
        if value is not None:
            run.append((hour, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _x(hour: float) -> float:
    return _LEFT + hour * _STEP


def _at(time: datetime, start: datetime) -> float:
    return _x(min(max((time - start) / timedelta(hours=1), 0.0), float(_HOURS)))


def _nice(value: float) -> float:
    """Return the next number that a scale may end with: its quarters are whole."""
    if value <= _TICKS:
        return float(_TICKS)
    size = 10.0 ** math.floor(math.log10(value))
    ends = (size * n for n in (*_ENDS, 20))
    return next(end for end in ends if end >= value and end % _TICKS == 0)


def _mix(light: int, dark: int, share: float) -> int:
    return round(light + (dark - light) * share)


def _place(band: Band) -> str:
    return f"{band.site}/{band.camera}" if band.camera else band.site


def _shortened(name: str) -> str:
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
