"""Play a fleet of sites with real outboxes against a cloud side on this machine: `make fleet SITES=1000`.

Each site has an outbox on disk (`outbox.sync = "normal"`), the relay, a session and books of its own, and
connects straight to the cloud's brokers. Faces are JPEGs of about 9 kB. At the end every outbox's books have
to close, and the bucket is compared with them. `--series` plays fleets of several sizes, one after the other.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

from rich.console import Console
from rich.table import Table

from bench.fleet import plan
from bench.fleet.plan import Fleet
from bench.fleet.run import play
from bench.processes import BenchError

RESULTS: Final = Path(__file__).parent.parent / "results" / "fleet.json"
ROLES: Final = ("sites", "broker", "store", "bucket", "lines")


def main() -> int:
    """Run what is asked for, print it, and keep it."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = []
    try:
        for fleet in _fleets(options):
            with tempfile.TemporaryDirectory(
                prefix="facerelay-fleet-", dir=options.folder, ignore_cleanup_errors=True
            ) as folder:
                results.append(play(fleet, Path(folder) / "run", _progress))
            _print(results[-1])
    except KeyboardInterrupt:
        _progress("ended before its end: nothing written")
        return 130
    except BenchError as error:
        _progress(f"fleet: {error}")
        return 1
    if len(results) > 1:
        _print_series(results)
    _write(options, results)
    return 0 if all(whole(result) for result in results) else 1


def whole(result: dict[str, Any]) -> bool:
    """Whether every outbox's books close, all is stored, and the bucket holds what they say, once."""
    books, found = result["books"], result["audit"]
    closed = not books["not_closed"] and books["offered"] == books["captured"] == books["stored"]
    return closed and not any(found[name] for name in ("missing", "strange", "twice"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    parser.add_argument("--sites", type=int, default=100, help="each with an outbox and a connection (100)")
    parser.add_argument("--rate", type=float, default=1.0, help="faces a second of each site (1)")
    parser.add_argument("--seconds", type=float, default=30, help="of each phase (30)")
    parser.add_argument("--idle", type=float, default=20, help="seconds without faces before them (20)")
    parser.add_argument("--outage", type=float, default=0, help="share of sites cut for a phase of three (0)")
    parser.add_argument("--one-out", action="store_true", help="one site is cut, whatever the share")
    parser.add_argument("--slow", type=float, default=0, help="share of sites on a slow line (0)")
    parser.add_argument("--broker", choices=get_args(plan.Broker), default="mosquitto")
    parser.add_argument("--intake", choices=get_args(plan.Intake), help="what shares, if any do")
    parser.add_argument("--stores", type=int, default=1)
    parser.add_argument("--bucket", choices=get_args(plan.Bucket), default="null")
    parser.add_argument("--layout", choices=get_args(plan.Layout), default="objects")
    parser.add_argument("--processes", type=int, default=8, help="that play the sites (8)")
    parser.add_argument("--series", help="sizes, one after the other: 10,100,1000")
    parser.add_argument("--total", type=float, help="faces a second of all together, not --rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", default=None, help="where outboxes and buckets lie for the run; /dev/shm")
    parser.add_argument("--name", default="fleet", help="under which the results are kept (fleet)")
    return parser.parse_args()


def _fleets(options: argparse.Namespace) -> list[Fleet]:
    sharing: plan.Intake = "shared" if options.broker == "mosquitto" else "jetstream"
    intake: plan.Intake = options.intake or ("mqtt" if options.stores == 1 else sharing)
    fleet = Fleet(
        sites=options.sites, rate=options.rate, seconds=options.seconds, idle_s=options.idle,
        outage=options.outage, slow=options.slow, broker=options.broker,
        intake=intake,
        stores=options.stores, bucket=options.bucket, layout=options.layout, processes=options.processes,
        seed=options.seed,
    )  # fmt: skip
    sizes = [int(size) for size in options.series.split(",")] if options.series else [options.sites]
    return [
        replace(
            fleet,
            sites=size,
            rate=options.total / size if options.total else options.rate,
            outage=1e-9 if options.one_out else options.outage,
        )
        for size in sizes
    ]


def _print(result: dict[str, Any]) -> None:
    fleet, books = result["fleet"], result["books"]
    console = Console(width=None if sys.stdout.isatty() else 130)
    table = Table(
        "phase", "faces/s", "p50 ms", "p99 ms", "cut p99", "slow p99", *(f"{role} cores" for role in ROLES),
        title=f"{fleet['sites']} sites, {fleet['rate']:g} faces/s each; {fleet['broker']},"
        f" {fleet['stores']} stores ({fleet['intake']}), bucket {fleet['bucket']} ({fleet['layout']})",
    )  # fmt: skip
    for name, phase in result["phases"].items():
        took = phase["receipt_ms"]
        others = (phase[f"receipt_ms_of_{kind}"].get("p99", "") for kind in ("cut", "slow"))
        table.add_row(
            name, str(phase["faces_per_s"]), str(took.get("p50", "")), str(took.get("p99", "")),
            *map(str, others), *(f"{phase['cpu_share'].get(role, 0):.3f}" for role in ROLES),
        )  # fmt: skip
    console.print(table)
    last = list(result["phases"].values())[-1]
    each = ", ".join(
        f"{role} {us['all']:.0f} ({us['marginal']:.0f})" for role, us in result["cpu_us_per_face"].items()
    )
    print(f"CPU us a face, all (beyond idling): {each}")
    print("peak MB:", ", ".join(f"{role} {mb:.0f}" for role, mb in last["peak_mb"].items()))
    print("books:", ", ".join(f"{name} {n}" for name, n in books.items() if isinstance(n, int)))
    print("not closed:", books["not_closed"][:5] or "none", "; audit:", result["audit"])


def _print_series(results: list[dict[str, Any]]) -> None:
    table = Table("sites", "faces/s", "p50 ms", "p99 ms", *ROLES[:-1], title="marginal CPU us a face")
    for result in results:
        name = "before" if "before" in result["phases"] else "play"
        phase, cpu = result["phases"][name], result["cpu_us_per_face"]
        table.add_row(
            str(result["fleet"]["sites"]), str(phase["faces_per_s"]), str(phase["receipt_ms"].get("p50", "")),
            str(phase["receipt_ms"].get("p99", "")),
            *(f"{cpu[role]['marginal']:.0f}" for role in ROLES[:-1]),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def _write(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Keep the results under their name, beside those of other names."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    known[options.name] = {"when": when, "runs": results}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _progress(f"kept as {options.name!r} in bench/results/{RESULTS.name}")


def _progress(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
