"""The outbox alone with a backlog of a million faces, beside an empty one: what an insert and a drain cost.

`python -m bench.backlog` (some six minutes, 4 GB of disk). Both are open at once and take turns. An insert is
`put`, committed; a drain is the next page of the backlog, read, checked and answered, as the relay does it.
Faces are small, about 1.6 kB, so that a million fit; what grows with a backlog is its rows and their indices.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.faces import CAMERA, SITE
from facerelay import face
from facerelay.edge.outbox import Outbox
from facerelay.messages import Receipt

_RESULTS: Final = Path(__file__).parent / "results" / "backlog.json"
_BATCH: Final = 50
_PAGE: Final = 64
_AT_ONCE: Final = 20_000


def main() -> int:
    """Fill one, measure both in turn, and print a table."""
    parser = argparse.ArgumentParser(prog="bench.backlog", description=__doc__)
    parser.add_argument(
        "--backlog", type=int, default=1_000_000, help="faces that wait in the one (a million)"
    )
    parser.add_argument("--count", type=int, default=4000, help="faces of each turn (4,000)")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="facerelay-bench-") as folder,
        _outbox(Path(folder) / "empty.db") as empty,
        _outbox(Path(folder) / "full.db") as full,
    ):
        filled = _fill(full, options.backlog)
        size = (Path(folder) / "full.db").stat().st_size
        sides = [_Side(empty), _Side(full)]
        for repeat in range(options.repeats):
            for side in sides if repeat % 2 else sides[::-1]:
                side.turn(options.count)
    before, after = (side.found for side in sides)
    medians = [{name: round(statistics.median(us), 1) for name, us in side.found.items()} for side in sides]
    ratios = {
        name: round(statistics.median(b / a for a, b in zip(before[name], after[name], strict=True)), 3)
        for name in before
    }
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "kind": platform.machine()},
        "load": round(os.getloadavg()[0], 2), "options": vars(options),
        "filled_per_s": round(options.backlog / filled), "file_mb": size // 1_000_000,
        "us_a_face": dict(zip(("empty", "backlog"), medians, strict=True)), "ratio": ratios,
    }  # fmt: skip
    _RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = Table("us a face", "empty", "backlog", "ratio", title=f"{options.backlog:,} faces wait")
    for name, ratio in ratios.items():
        table.add_row(name, *(f"{each[name]:.0f}" for each in medians), f"{ratio:.2f}")
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    return 0


@dataclass(slots=True)
class _Side:
    """An outbox, where its backlog was read to, and what was measured: us a face."""

    outbox: Outbox
    cursor: int = 0
    found: dict[str, list[float]] = field(default_factory=dict)

    def turn(self, count: int) -> None:
        """Insert so many, and drain as many."""
        faces = _faces(self.outbox, count)
        self._time("insert", count, lambda: _insert(self.outbox, faces))
        self._time("drain", count, lambda: self._drain(count))

    def _time(self, name: str, count: int, work: Callable[[], None]) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        took = time.process_time() - cpu, time.perf_counter() - wall
        for clock, seconds in zip(("CPU", "wall"), took, strict=True):
            self.found.setdefault(f"{name}, {clock}", []).append(seconds / count * 1e6)

    def _drain(self, count: int) -> None:
        """Answer the next so many of the backlog."""
        while count > 0:
            page = self.outbox.backlog(self.cursor, min(_PAGE, count)).result()
            receipts = [Receipt(id=each.id, sha256=each.sha256, outcome="stored") for each in page]
            self.outbox.answer(receipts).result()
            self.cursor, count = page[-1].row, count - len(page)


def _outbox(path: Path) -> Outbox:
    return Outbox(path, max_bytes=10**11, max_message=10**6)


def _faces(outbox: Outbox, count: int) -> list[face.Frozen]:
    image = np.random.default_rng(1).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    encoded, now = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes(), datetime.now(UTC)
    return [
        face.freeze(
            face.Face(
                id=face.new_id(), outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=SITE,
                camera=CAMERA,
                time=now + timedelta(milliseconds=n), box=(0, 0, 24, 24), frame=(1280, 720), score=0.9,
                quality=n % 97 / 97,
            ),
            encoded,
        )
        for n in range(count)
    ]  # fmt: skip


def _insert(outbox: Outbox, faces: list[face.Frozen]) -> None:
    for at in range(0, len(faces), _BATCH):
        put = [outbox.put(frozen, chosen=time.time()) for frozen in faces[at : at + _BATCH]]
        _wait(put)


def _fill(outbox: Outbox, count: int) -> float:
    """Put so many, and return the seconds that the outbox was at work."""
    took = 0.0
    for _ in range(0, count, _AT_ONCE):
        faces = _faces(outbox, _AT_ONCE)
        begin = time.perf_counter()
        _wait([outbox.put(frozen, chosen=time.time()) for frozen in faces])
        took += time.perf_counter() - begin
    return took


def _wait(put: list[Future[Any]]) -> None:
    for future in reversed(put):
        future.result()


if __name__ == "__main__":
    sys.exit(main())
