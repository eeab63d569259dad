"""What a camera more costs: faces of 1, 10, 100 and 1,000 cameras at the same total rate.

`python -m bench.cameras`. A chain for each number of cameras; all of them stand at once, and get their faces
in turn, so that what disturbs the machine disturbs all alike: at a steady rate, then as fast as taken.
What a face costs is the CPU meanwhile less that of as many idle seconds of the same chain.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.chains import Chain, Variant, running
from bench.faces import WARM, Phase, read_offered
from bench.processes import BenchError

_RESULTS: Final = Path(__file__).parent / "results" / "cameras.json"
_COUNTS: Final = (1, 10, 100, 1000)
_STEADY, _FLAT_OUT = "steady", "flat-out"
_ANSWERED_S: Final = 120.0
_AIM: Final = 0.2

Parts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One phase: CPU seconds of each process, and how long it took."""

    cameras: int
    phase: Phase
    cpu_s: Parts
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """What one number of cameras gave.

    Attributes:
        idle: CPU seconds of each process in a second without faces: the ledger of all cameras is in it.
        first: the first faces, with which each part gets to know the cameras.
        samples: the phases, in their order.
    """

    cameras: int
    idle: Parts
    first: Sample
    samples: Sequence[Sample]
    peak_mb: Parts
    lost: int
    doubled: int

    def face_us(self, name: str) -> list[Parts]:
        """Return the CPU microseconds that a face cost in each phase of that name, by process."""
        return [
            {part: (cpu - self.idle[part] * s.seconds) * 1e6 / s.phase.count for part, cpu in s.cpu_s.items()}
            for s in self.samples
            if s.phase.name == name
        ]


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin, load = time.monotonic(), os.getloadavg()[0]
    try:
        found = _run(options)
    except KeyboardInterrupt:
        _progress("ended before its end: nothing written")
        return 130
    except BenchError as error:
        _progress(f"bench: {error}")
        return 1
    rows = [_row(each, found[0]) for each in found]
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "load_before": round(load, 2)},
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "seconds": round(time.monotonic() - begin),
        "cameras": rows,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _print(rows, options)
    straight = all(abs(row[name]["ratio"] - 1) <= _AIM for row in rows for name in (_STEADY, _FLAT_OUT))
    return 0 if straight and not any(row["lost"] for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.cameras", description=__doc__)
    parser.add_argument(
        "--cameras", type=int, nargs="+", default=list(_COUNTS), help="how many; first the least"
    )
    parser.add_argument("--repeats", type=int, default=8, help="of each phase, in turn with the others (8)")
    parser.add_argument("--brokers", choices=("embedded", "mosquitto"), default="embedded")
    parser.add_argument("--bucket", choices=("null", "folder"), default="null")
    parser.add_argument("--rate", type=float, default=400, help="faces a second of a steady phase (400)")
    parser.add_argument("--seconds", type=float, default=5, help="of a steady phase (5)")
    parser.add_argument("--idle", type=float, default=20, help="seconds without faces: two ledgers (20)")
    parser.add_argument("--faces", type=int, default=2000, help="as fast as they are taken (2,000)")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="where the figures go")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> list[Found]:
    variant = Variant("receipt", options.brokers, "forward", options.bucket)
    with (
        tempfile.TemporaryDirectory(prefix="facerelay-cameras-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        chains = {}
        for cameras in options.cameras:
            place = Path(folder) / str(cameras)
            place.mkdir()
            chains[cameras] = stack.enter_context(running(variant, _phases(options, cameras), place, None))
            chains[cameras].warm()
            _progress(f"{cameras} cameras: the chain stands")
        first = {n: _play(n, chain, _phases(options, n)[0]) for n, chain in chains.items()}
        idle = _idle(chains, options.idle)
        samples = list(_turns(chains, options))
        return [
            Found(
                n, idle[n], first[n], [s for s in samples if s.cameras == n],
                {part: process.usage().peak_mb for part, process in chain.processes.items()}, *_audit(chain),
            )
            for n, chain in chains.items()
        ]  # fmt: skip


def _phases(options: argparse.Namespace, cameras: int) -> list[Phase]:
    """Return the phases: first a face of each camera, so that all of them are known to every part."""
    steady = Phase(_STEADY, round(options.seconds * options.rate), options.rate, cameras)
    flat_out = Phase(_FLAT_OUT, options.faces, 0, cameras)
    return [Phase("first", max(cameras, 100), 0, cameras), *[steady, flat_out] * options.repeats]


def _turns(chains: Mapping[int, Chain], options: argparse.Namespace) -> Iterator[Sample]:
    """Play the phases, each chain's in turn; another begins each time."""
    order = list(chains)
    for repeat in range(options.repeats):
        for at in (1, 2):
            for cameras in order:
                yield _play(cameras, chains[cameras], _phases(options, cameras)[at])
        order = order[1:] + order[:1]
        _progress(f"{repeat + 1}/{options.repeats}")


def _play(cameras: int, chain: Chain, phase: Phase) -> Sample:
    """Play a chain's next phase until all its faces have their receipts."""
    before, begin = _cpu(chain), time.monotonic()
    chain.feeder.go()
    for word in ("begin", "given", "answered"):
        chain.feeder.hear(word, within=_ANSWERED_S)
    after, end = _cpu(chain), time.monotonic()
    return Sample(cameras, phase, {part: after[part] - before[part] for part in after}, end - begin)


def _idle(chains: Mapping[int, Chain], seconds: float) -> Mapping[int, Parts]:
    before = {n: _cpu(chain) for n, chain in chains.items()}
    time.sleep(seconds)
    after = {n: _cpu(chain) for n, chain in chains.items()}
    return {
        n: {part: (cpu - before[n][part]) / seconds for part, cpu in used.items()}
        for n, used in after.items()
    }


def _cpu(chain: Chain) -> Parts:
    return {name: process.usage().cpu_s for name, process in chain.processes.items()}


def _audit(chain: Chain) -> tuple[int, int]:
    """Return how many of the faces offered do not lie in the bucket, and how many objects are too many."""
    offered = {sha256 for sha256, (phase, _) in read_offered(chain.offered).items() if phase != WARM}
    found = Counter(chain.bucket.contents())
    return len(offered - set(found)), sum(n - 1 for n in found.values())


def _row(found: Found, least: Found) -> dict[str, Any]:
    """Return the medians; a ratio is taken within a turn, when the machine was the same."""
    return {
        "cameras": found.cameras,
        **{name: _figures(found.face_us(name), least.face_us(name)) for name in (_STEADY, _FLAT_OUT)},
        "flat_out_faces_per_s": round(
            statistics.median(s.phase.count / s.seconds for s in found.samples if s.phase.name == _FLAT_OUT)
        ),
        "idle_ms_per_s": {part: round(1000 * cpu, 2) for part, cpu in found.idle.items()},
        "first_us_per_face": {
            part: round(cpu * 1e6 / found.first.phase.count) for part, cpu in found.first.cpu_s.items()
        },
        "peak_mb": {part: round(mb) for part, mb in found.peak_mb.items()},
        "lost": found.lost,
        "doubled": found.doubled,
    }


def _figures(mine: Sequence[Parts], least: Sequence[Parts]) -> dict[str, Any]:
    sums = [[sum(turn.values()) for turn in turns] for turns in (mine, least)]
    ratios = _ratios(*sums)
    return {
        "us_per_face": {part: _median(turn[part] for turn in mine) for part in mine[0]},
        "sum_us": _median(sums[0]),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_turns": [round(ratio, 3) for ratio in ratios],
        "ratio_by_part": {
            part: round(
                statistics.median(_ratios(*([turn[part] for turn in turns] for turns in (mine, least)))), 3
            )
            for part in mine[0]
        },
    }


def _ratios(mine: Sequence[float], least: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(mine, least, strict=True)]


def _median(values: Iterable[float]) -> int:
    return round(statistics.median(values))


def _print(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    parts = list(rows[0]["peak_mb"])
    where = f"{options.brokers} brokers, {options.bucket} bucket"
    for name, title in ((_STEADY, f"{options.rate:.0f} faces/s"), (_FLAT_OUT, "as fast as taken")):
        table = Table(
            "cameras", *parts, "sum", "ratio", "least to most", title=f"CPU µs a face, {title}, {where}"
        )
        for row in rows:
            found = row[name]
            turns = found["ratio_turns"]
            cells = [str(found["us_per_face"][part]) for part in parts]
            cells += [str(found["sum_us"]), f"{found['ratio']:.2f}", f"{min(turns):.2f} to {max(turns):.2f}"]
            table.add_row(str(row["cameras"]), *cells)
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    table = Table("cameras", *parts, "sum", title="idle, CPU ms a second")
    for row in rows:
        idle = row["idle_ms_per_s"]
        table.add_row(str(row["cameras"]), *(str(idle[part]) for part in parts), f"{sum(idle.values()):.1f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
