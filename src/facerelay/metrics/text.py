"""Metrics as text: Prometheus's own format, or OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from facerelay.metrics.base import Metric, Reading, Spread

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def media(accept: str) -> str:
    """Return the format for who accepts so: OpenMetrics where it is named, else Prometheus's own."""
    return OPENMETRICS if "application/openmetrics-text" in accept else PROMETHEUS


def expose(readings: Iterable[Reading], form: str) -> bytes:
    """Return readings as text, each metric's together; of two with the same labels the later counts.

    Args:
        readings: in any order.
        form: `PROMETHEUS` or `OPENMETRICS`.
    """
    metrics: dict[Metric, dict[tuple[str, ...], float | Spread]] = {}
    for metric, labels, value in readings:
        metrics.setdefault(metric, {})[labels] = value
    lines: list[str] = []
    for metric, values in metrics.items():
        lines += _head(metric, open_metrics=form == OPENMETRICS)
        for labels, value in values.items():
            lines += _samples(metric, labels, value)
    if form == OPENMETRICS:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _head(metric: Metric, *, open_metrics: bool) -> Iterator[str]:
    name = metric.family if open_metrics else metric.name
    yield f"# HELP {name} {metric.help.translate(_HELP_ESCAPES)}"
    yield f"# TYPE {name} {metric.kind}"
    if open_metrics and metric.unit:
        yield f"# UNIT {name} {metric.unit}"


def _samples(metric: Metric, labels: tuple[str, ...], value: float | Spread) -> Iterator[str]:
    pairs = [f'{name}="{text.translate(_ESCAPES)}"' for name, text in zip(metric.labels, labels, strict=True)]
    if not isinstance(value, Spread):
        yield f"{metric.name}{_braced(pairs)} {_number(value)}"
        return
    counts = list(accumulate(value.counts))
    for bound, count in zip((*map(_number, map(float, value.bounds)), "+Inf"), counts, strict=True):
        bucket = f'le="{bound}"'
        yield f"{metric.name}_bucket{_braced([*pairs, bucket])} {count}"
    yield f"{metric.name}_sum{_braced(pairs)} {_number(value.total)}"
    yield f"{metric.name}_count{_braced(pairs)} {counts[-1]}"


def _braced(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _number(value: float) -> str:
    special = {float("inf"): "+Inf", -float("inf"): "-Inf"}
    return special[value] if value in special else "NaN" if value != value else repr(value)  # noqa: PLR0124 - that is NaN


_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
