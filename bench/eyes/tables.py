"""The results as tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(name: str, found: Mapping[str, Any]) -> None:
    """Print one section's tables."""
    console = Console(width=None if sys.stdout.isatty() else 130)
    makers = {"accuracy": _accuracy, "cpu": _cpu, "visits": _visits, "bytes": _bytes, "eight": _eight}
    for table in makers[name](found):
        console.print(table)


def _accuracy(found: Mapping[str, Any]) -> list[Table]:
    tables = []
    for set_ in next(iter(found["rows"].values())):
        table = Table(
            "detector", "recall", "x Haar", "precision", "- Haar", "missed", "errors", "recall small", "ms",
            title=f"labelled/{set_}: faces of 30 px and more, IoU .5; small ones of 10 to 30 px",
        )  # fmt: skip
        for name, sets in found["rows"].items():
            row = sets[set_]
            table.add_row(
                name, f"{row['recall']:.3f}", _or_none(row["recall_against_haar"], ".2f"),
                f"{row['precision']:.3f}", f"{row['precision_minus_haar']:+.3f}",
                f"{row['missed']} of {row['faces']}", str(row["errors"]),
                _or_none(row["recall_small"], ".3f"), f"{row['ms']:.1f}",
            )  # fmt: skip
        tables.append(table)
    return tables


def _cpu(found: Mapping[str, Any]) -> list[Table]:
    table = Table(
        "loop", "ms a frame", "/ ours", "inspected", "faces", "messages",
        title=f"CPU, one thread; medians of {found['repeats']} turns of {found['frames']} frames",
    )  # fmt: skip
    for name, row in found["rows"].items():
        table.add_row(
            name, f"{row['ms']:.2f}", f"{row['of_ours']['median']:.3f}",
            *(str(row[column]) for column in ("inspected", "faces", "messages")),
        )  # fmt: skip
    ratios = Table("ratio within a turn", "median", "least", "most")
    for name, ratio in found["ratios"].items():
        ratios.add_row(name, *(f"{ratio[each]:.3f}" for each in ("median", "least", "most")))
    split = Table("ms a frame by stage", *found["split_ms"])
    for stage in next(iter(found["split_ms"].values())):
        split.add_row(stage, *(f"{parts[stage]:.3f}" for parts in found["split_ms"].values()))
    return [table, ratios, split]


def _visits(found: Mapping[str, Any]) -> list[Table]:
    table = Table("footage, setting", "as many faces as visits")
    for name, exact in found["exact"].items():
        table.add_row(name, exact)
    odd = Table("source", "expected", "faces", title="Where they differ")
    for row in found["rows"]:
        if any(count != row["expected"] for count in row["faces"].values()):
            odd.add_row(row["source"], str(row["expected"]), str(row["faces"]))
    for row in found["crossings"]["not_exact"]:
        name = f"crossing: {row['kind']}, {row['fps']} fps, seed {row['seed']}"
        odd.add_row(name, str(row["people"]), f"{row['faces']} of {row['people_shown']} people")
    return [table, odd] if odd.row_count else [table]


def _bytes(found: Mapping[str, Any]) -> list[Table]:
    table = Table("clips", "sent as", "messages", "bytes", "fewer messages", "fewer bytes")
    for clips, ways in found["sent"].items():
        for way, fewer in ways["fewer"].items():
            table.add_row(
                clips, way, str(ways[way]["messages"]), str(ways[way]["bytes"]),
                f"{fewer['messages']:.0f}", f"{fewer['bytes']:.0f}",
            )  # fmt: skip
        table.add_row(clips, "ours", str(ways["ours"]["messages"]), str(ways["ours"]["bytes"]), "", "")
    quality = Table("chosen / best of the track", "visits", "within 5 %", "median", "least")
    for name, row in found["quality"].items():
        quality.add_row(
            name,
            str(row["visits"]),
            str(row["within_5_percent"]),
            f"{row['median']:.3f}",
            f"{row['least']:.3f}",
        )
    return [table, quality]


def _eight(found: Mapping[str, Any]) -> list[Table]:
    table = Table(
        "camera", "frames", "inspected", "late", "lag s, median", "most", "slowest frame s",
        title=f"{found['cameras']} cameras, {found['seconds']:.0f} s: {found['visits_begun']} visits, faces"
        f" {found['faces']}, {found['cpu_of_one_core']:.2f} of a core, memory {found['rss_mb']}",
    )  # fmt: skip
    for name in found["lag_s_most"]:
        table.add_row(
            name, *(str(found["frames"][unit][name]) for unit in ("frames", "inspected", "late")),
            f"{found['lag_s_median'][name]:.3f}", f"{found['lag_s_most'][name]:.3f}",
            f"{found['frame_handled_after_due_s_most'][name]:.3f}",
        )  # fmt: skip
    return [table]


def _or_none(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
