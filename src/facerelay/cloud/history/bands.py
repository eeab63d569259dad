"""Bands of trouble: no store at work, no word of an edge, no receipts, no pictures of a camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from facerelay.cloud.history import marks
from facerelay.cloud.history.period import Band, BandKind
from facerelay.cloud.history.window import Outbox, Window

_LEAST: Final = 2
"""So many minutes without a word are a silence: an edge tells its books six times in one."""

_STORE: Final = {
    False: (
        "No store was at work, or none was connected to its broker: nothing came into the bucket. Faces"
        " waited at the edges."
    ),
    True: "No store is at work, or none is connected to its broker: start it. Faces wait at the edges.",
}
_SILENT: Final = {
    "link": "was not heard: its link was down. Faces waited on its disk, and came afterwards.",
    "capture": (
        "was not heard, and capture began anew at the end: its machine or its capture was off. Who passed"
        " meanwhile was not seen."
    ),
    "end": "was not heard to the end of this time: what is counted of it comes later, or has not come yet.",
    "lasts": "has not been heard since. Faces wait there, if its capture runs: see its power and its link.",
    "": "was not heard: its machine, its capture or its link was down. Faces waited on its disk.",
}


_UNSEEN: Final = {"capture", ""}
"""Silences in which the machine may have been off."""


def find(window: Window, outboxes: Sequence[Outbox], alive: int) -> list[Band]:
    """Return the bands of a window in the order of their start.

    Args:
        window: which hours.
        outboxes: what is known of each.
        alive: minutes in which a store was at work.
    """
    idle = _after_first(window, alive) & ~alive
    found = [
        _band(window, "store", run, _STORE[window.is_open and _lasts(window, run)])
        for run in _runs(window, idle, _LEAST)
    ]
    for outbox in outboxes:
        found += _silences(window, outbox, outboxes, idle)
        words = f"{outbox.site} sent faces and had no receipts: they waited on its disk."
        found += [
            _band(window, "unanswered", run, words, site=outbox.site)
            for run in _runs(window, outbox.unanswered)
        ]
        words = f"The oldest face at {outbox.site} had waited for more than two minutes."
        found += [_band(window, "late", run, words, site=outbox.site) for run in _runs(window, outbox.late)]
        for name in sorted(outbox.cameras):
            camera = name.partition("/")[2]
            words = f"{name} gave no picture: nobody was seen there."
            found += [
                _band(window, "dark", run, words, site=outbox.site, camera=camera)
                for run in _runs(window, outbox.dark(name))
            ]
    return sorted(found, key=lambda band: (band.start, band.site, band.camera or ""))


def _silences(window: Window, outbox: Outbox, others: Sequence[Outbox], idle: int) -> Iterator[Band]:
    """Yield the bands in which an outbox was not heard though a store was at work."""
    told = outbox.heard | idle
    for other in others:  # one that took its place tells of its cameras
        if other is not outbox and other.site == outbox.site and other.cameras >= outbox.cameras:
            told |= other.heard
    silent = _after_first(window, outbox.heard) & ~told
    for run in _runs(window, silent, _LEAST):
        open_end = "lasts" if window.is_open else "end"
        why = open_end if _lasts(window, run) else outbox.back.get(run[1], "")
        words = f"{outbox.site} {_SILENT[why]}"
        yield _band(window, "silent", run, words, site=outbox.site, seen=why not in _UNSEEN)


def _after_first(window: Window, known: int) -> int:
    """Return the minutes from the first one that is known to the end."""
    return marks.between((known & -known).bit_length() - 1, window.last - 1) if known else 0


def _lasts(window: Window, run: tuple[int, int]) -> bool:
    return run[1] == window.last


def _runs(window: Window, number: int, least: int = 1) -> Iterator[tuple[int, int]]:
    inside = number & marks.between(window.first, window.last - 1)
    return ((start, end) for start, end in marks.runs(inside) if end - start >= least)


def _band(
    window: Window,
    kind: BandKind,
    run: tuple[int, int],
    words: str,
    *,
    site: str = "",
    camera: str | None = None,
    seen: bool = True,
) -> Band:
    return Band(
        kind=kind, site=site, camera=camera, start=window.time(run[0]), end=window.time(run[1]),
        lasts=_lasts(window, run), words=words, seen=seen,
    )  # fmt: skip
