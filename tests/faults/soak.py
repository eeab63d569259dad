"""The soak: `python -m faults.soak --seconds 1800 --seed n` (`make soak SECONDS=1800 SEED=n`).

Prints one JSON object last. Exit code 0: every face was offered; each that was captured lies in the bucket,
once, with its own bytes, or was dropped by policy and counted; only a full disk turned faces away; the books
close; every kind of fault hit something; nothing fell that nobody had killed; memory and handles are flat.
What was not so is said in `wrong`. The faults follow from the seed alone.

A process that is killed every minute is always young: `--without kill wipe` leaves those faults out, so that
each process lives for the whole run, and a slow leak has the time to show.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Final

from faults import disk
from faults.chain import COMBINATIONS
from faults.numbered import LARGEST
from faults.run import Outcome, Plan, run
from faults.schedule import KINDS, without
from faults.weed import there_is_weed

log = logging.getLogger("soak")

ROTATION: Final = ("embedded", "mosquitto", "bridge-embedded")
_WORDS: Final = 3000
_OFTEN: Final = 6
_ROOM: Final = 100_000_000
_ON_DISK: Final = 1.6
"""What a picture takes in SQLite's pages, by its bytes, at most."""

_BOOKS_BYTES: Final = 1000
"""What the outbox keeps of an answered face, at most."""


def options(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="soak", description="Break the chain by a seed, and audit it.")
    parser.add_argument("--seconds", type=float, default=1800, help="of faults, of all combinations together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=100, help="faces a second")
    parser.add_argument(
        "--combination", choices=["rotate", *COMBINATIONS], default="rotate",
        help=f"of brokers; rotate: a third of the time each for {', '.join(ROTATION)}",
    )  # fmt: skip
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="KIND", choices=_beginnings(),
        help="faults to leave out: kinds, or the words that they begin with",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=int, metavar="BYTES",
        help="of the outbox; without it there is room for all faces of a run, and none is dropped",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, help="a new folder for settings, logs and state, not deleted")
    return parser.parse_args(words)


def _beginnings() -> list[str]:
    return sorted({word for kind in KINDS for word in (kind.name, kind.name.partition("-")[0])})


def _all(chosen: argparse.Namespace) -> int:
    """Return the bytes of all faces of one run."""
    runs = len(ROTATION) if chosen.combination == "rotate" else 1
    return int(chosen.seconds / runs * chosen.rate * LARGEST)


async def soak(chosen: argparse.Namespace, folder: Path, small: disk.Disk | None) -> dict[str, Any]:
    """Run all combinations, and return what is printed."""
    names = ROTATION if chosen.combination == "rotate" else (chosen.combination,)
    outcomes: dict[str, Outcome] = {}
    for name in names:
        here = folder / name
        here.mkdir()
        plan = Plan(
            seed=chosen.seed, seconds=chosen.seconds / len(names), rate=chosen.rate, combination=name,
            disk=small, budget=chosen.budget or _all(chosen), kinds=without(chosen.without),
        )  # fmt: skip
        log.info("%s: %.0f s of faults, seed %d", name, plan.seconds, plan.seed)
        outcomes[name] = outcome = await run(plan, here)
        if outcome.wrong:
            log.error("%s: %s", name, "; ".join(outcome.wrong))
            _say_what_they_said(here)
    return report(chosen, outcomes)


def report(chosen: argparse.Namespace, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Return the sums of all combinations, and each one's own figures."""
    found = reduce(add, (outcome.findings for outcome in outcomes.values()))
    faults, bitten, falls = (
        dict(sorted(sum((Counter(kinds) for kinds in counts), Counter[str]()).items()))
        for counts in zip(*((one.faults, one.bitten, one.falls) for one in outcomes.values()), strict=True)
    )
    wrong = [f"{name}: {why}" for name, outcome in outcomes.items() for why in outcome.wrong]
    wrong.extend(toothless(faults, bitten))
    peaks = [one for outcome in outcomes.values() for one in outcome.usage.values() if one]
    left_out = set.intersection(*(outcome.left_out for outcome in outcomes.values()))
    return {
        "seed": chosen.seed, "seconds": chosen.seconds, "combination": "+".join(outcomes),
        **asdict(found), "drained": all(outcome.drained for outcome in outcomes.values()),
        "rate": round(sum(outcome.rate for outcome in outcomes.values()) / len(outcomes), 1),
        "resumed_s": {name: outcome.resumed_s for name, outcome in outcomes.items()},
        "drain_s": {name: outcome.drain_s for name, outcome in outcomes.items()},
        "faults": faults, "bitten": bitten, "left_out": sorted(left_out), "falls": falls,
        "peak_rss_mb": max((one["peak_rss_mb"] for one in peaks), default=0),
        "peak_handles": max((one["peak_handles"] for one in peaks), default=0),
        "processes": {name: outcome.usage for name, outcome in outcomes.items()},
        "wrong": wrong, "clean": not wrong,
    }  # fmt: skip


def toothless(faults: Mapping[str, int], bitten: Mapping[str, int]) -> Iterator[str]:
    """Yield the kinds of faults that were played often and hit nothing: then the harness is broken."""
    for kind, n in faults.items():
        if n >= _OFTEN and not bitten.get(kind):
            yield f"{kind}: played {n} times, and hit nothing"


def _say_what_they_said(folder: Path) -> None:
    for path in sorted(folder.glob("*.log")):
        sys.stderr.write(f"== {path.name}\n{path.read_text(errors='replace')[-_WORDS:]}\n")


async def _interruptible(chosen: argparse.Namespace, folder: Path, small: disk.Disk | None) -> dict[str, Any]:
    """Run it; SIGTERM and SIGINT end it in good order, which ends all that it started."""
    task = asyncio.ensure_future(soak(chosen, folder, small))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def main(words: Sequence[str]) -> int:
    """Run the soak, and return its exit code."""
    chosen = options(words)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="facerelay-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.absolute()
    pictures, books = chosen.budget or _all(chosen), _all(chosen) // LARGEST * _BOOKS_BYTES
    small = disk.mount(folder / "disk", round(pictures * _ON_DISK) + books + _ROOM)
    if small is None:
        log.warning("LEFT OUT: disk-full, for no filesystem can be mounted here (root on Linux can)")
    if not there_is_weed():
        log.warning("LEFT OUT: bucket-*, for SeaweedFS is not installed: the bucket is a folder")
    try:
        found = asyncio.run(_interruptible(chosen, folder, small))
    except asyncio.CancelledError:
        return 130
    finally:
        if small:
            small.unmount()
        if chosen.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"{json.dumps(found)}\n")
    return 0 if found["clean"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
