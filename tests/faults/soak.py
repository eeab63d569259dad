"""The soak: `python -m faults.soak --seconds 1800 --seed n` (`make soak SECONDS=1800 SEED=n`).

Prints one JSON object last. Exit code 0: every face that was captured lies in the bucket, once, with its own
bytes, or was dropped by policy and counted, and the books close. The faults follow from the seed alone.
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
from collections.abc import Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Final

from faults import disk
from faults.chain import COMBINATIONS, OUTBOX_BYTES
from faults.run import Outcome, Plan, run
from faults.weed import there_is_weed

log = logging.getLogger("soak")

ROTATION: Final = ("embedded", "mosquitto", "bridge")
_WORDS: Final = 3000
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
    parser.add_argument("--keep", type=Path, help="a new folder for settings, logs and state, not deleted")
    return parser.parse_args(words)


async def soak(chosen: argparse.Namespace, folder: Path, small: disk.Disk | None) -> dict[str, Any]:
    """Run all combinations, and return what is printed."""
    names = ROTATION if chosen.combination == "rotate" else (chosen.combination,)
    outcomes: dict[str, Outcome] = {}
    for name in names:
        here = folder / name
        here.mkdir()
        plan = Plan(chosen.seed, chosen.seconds / len(names), chosen.rate, name, small)
        log.info("%s: %.0f s of faults, seed %d", name, plan.seconds, plan.seed)
        outcomes[name] = outcome = await run(plan, here)
        if not (outcome.findings.clean and outcome.drained):
            _say_what_they_said(here)
    return report(chosen, outcomes)


def report(chosen: argparse.Namespace, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Return the sums of all combinations, and each one's own figures."""
    found = reduce(add, (outcome.findings for outcome in outcomes.values()))
    faults = sum((Counter(outcome.faults) for outcome in outcomes.values()), Counter[str]())
    peaks = [one for outcome in outcomes.values() for one in outcome.usage.values() if one]
    left_out = set.intersection(*(outcome.left_out for outcome in outcomes.values()))
    return {
        "seed": chosen.seed, "seconds": chosen.seconds, "combination": "+".join(outcomes),
        **asdict(found), "drained": all(outcome.drained for outcome in outcomes.values()),
        "rate": round(sum(outcome.rate for outcome in outcomes.values()) / len(outcomes), 1),
        "faults": dict(sorted(faults.items())), "left_out": sorted(left_out),
        "falls": dict(sum((Counter(outcome.falls) for outcome in outcomes.values()), Counter[str]())),
        "peak_rss_mb": max((one["peak_rss_mb"] for one in peaks), default=0),
        "peak_handles": max((one["peak_handles"] for one in peaks), default=0),
        "processes": {name: outcome.usage for name, outcome in outcomes.items()},
        "clean": found.clean and all(outcome.drained for outcome in outcomes.values()),
    }  # fmt: skip


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
    longest = chosen.seconds / (len(ROTATION) if chosen.combination == "rotate" else 1)
    room = OUTBOX_BYTES + round(longest * chosen.rate * _BOOKS_BYTES)
    small = disk.mount(folder / "disk", room)
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
