"""A thin line with three times more faces than it carries: `python -m bench.thin --wan WAN.PY`, as root.

256 kbit/s, 150 ms round trip, 2 % loss each way, 64 kB of queue at its head, between two network namespaces;
Mosquitto and the forwarder at the edge, Mosquitto and the store on the other side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.faces import SITE
from bench.measure import percentile
from bench.processes import BenchError, Process, program, python
from facerelay.commands.supervise import ours as role

_RESULTS = Path(__file__).parent / "results" / "thin.json"
_KBIT, _DELAY_MS, _LOSS = 256, 75, 2
_QUEUE_FRAMES = 45
"""64 kB in full frames; the WAN counts those on their way too."""

_CLOUD = "10.78.0.2"
_PORT = 1883
_DISK = 500_000
_WARM_S = 15.0
_START_S = 10.0
_BROKER = f"listener {_PORT} 0.0.0.0\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n"
_THIN = {"min_quality": 40, "min_side": 112}


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one run; the line's share and latencies are those after it had warmed up."""

    name: str
    offered: int
    arrived: int
    evicted: int
    thinned: int
    closes: bool
    unequal: int
    mean_bytes: int
    line_used: float
    payload_used: float
    live_p50_s: float
    live_p90_s: float
    quality: float
    quality_first_come: float


def main() -> int:
    options = _options()
    lacks = _lacking(options.wan)
    if lacks:
        print(f"bench: {lacks}", file=sys.stderr)
        return 1
    try:
        rows = [
            _run(f"{options.link}, {name}", options, uplink)
            for name, uplink in (("full quality", {}), ("thinned", _THIN))
        ]
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    line = {"kbit_s": _KBIT, "delay_ms": _DELAY_MS, "loss_percent": _LOSS, "queue_frames": _QUEUE_FRAMES}
    found = {
        "line": line,
        "seconds": options.seconds,
        "rate": options.rate,
        "runs": [asdict(r) for r in rows],
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _print(rows)
    return 0 if all(row.closes and not row.unequal for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.thin", description=__doc__)
    parser.add_argument("--wan", type=Path, required=True, help="wan.py, the WAN in user space")
    parser.add_argument("--seconds", type=float, default=60, help="of the offer (60)")
    parser.add_argument("--rate", type=float, default=10.7, help="faces offered per second (10.7)")
    parser.add_argument("--link", choices=("forward", "bridge"), default="forward")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="where the figures go")
    return parser.parse_args()


def _lacking(wan: Path) -> str | None:
    if os.geteuid() != 0:
        return "it makes network namespaces: run it as root"
    if not wan.is_file():
        return f"{wan}: no such file: --wan names the WAN in user space"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return None if shutil.which("ip") else "`ip` is not installed (iproute2)"


def _run(name: str, options: argparse.Namespace, uplink: dict[str, int]) -> Row:
    with (
        tempfile.TemporaryDirectory(prefix="facerelay-thin-", ignore_cleanup_errors=True) as place,
        _line(Path(place), options.wan) as line,
    ):
        folder = Path(place)
        edge, cloud = _settings(folder, uplink)
        line.start_cloud(cloud)
        line.start_edge(edge, options.link)
        words = [edge, options.seconds, options.rate]
        feeder = line.edge("feeder", python("bench.thin_feed", *words), talks=True)
        feeder.hear("ready")
        feeder.hear("begin")
        time.sleep(_WARM_S)
        begin = time.time(), line.through()
        feeder.hear("given", within=options.seconds + 60)
        end = time.time(), line.through()
        feeder.hear("answered", within=150)
        return _measure(name, folder, begin, end)


def _settings(folder: Path, uplink: dict[str, int]) -> tuple[Path, Path]:
    edge, cloud = folder / "edge.toml", folder / "cloud.toml"
    lines = "".join(f"{key} = {value}\n" for key, value in uplink.items())
    edge.write_text(
        f'site = "{SITE}"\n[broker]\nurl = "mqtt://127.0.0.1:{_PORT}"\n'
        f'[cloud]\nurl = "mqtt://{_CLOUD}:{_PORT}"\nallow_insecure = true\n'
        f"[outbox]\nmax_bytes = {_DISK}\n[uplink]\n{lines}",
        encoding="utf-8",
    )
    cloud.write_text(
        f'[broker]\nurl = "mqtt://127.0.0.1:{_PORT}"\n[bucket]\nurl = "file://{folder}/bucket"\n',
        encoding="utf-8",
    )
    return edge, cloud


class _Line:
    """Two namespaces with a thin line between them."""

    def __init__(self, folder: Path, stack: ExitStack, names: tuple[str, str]) -> None:
        self._folder = folder
        self._stack = stack
        self._names = names

    def edge(self, name: str, command: Sequence[str], *, talks: bool = False) -> Process:
        return self._start(self._names[0], name, command, talks=talks)

    def start_edge(self, config: Path, link: str) -> None:
        conf = _BROKER
        if link == "bridge":
            conf += subprocess.run(
                python("facerelay", "bridge", "mosquitto", "-c", config),
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        self._broker(self._names[0], "edge-broker", conf)
        if link == "forward":
            self.edge("forwarder", role("forward", "-c", str(config)))

    def start_cloud(self, config: Path) -> None:
        self._broker(self._names[1], "cloud-broker", _BROKER)
        self._start(self._names[1], "store", role("store", "-c", str(config)))

    def _broker(self, where: str, name: str, conf: str) -> None:
        path = self._folder / f"{name}.conf"
        path.write_text(conf, encoding="utf-8")
        self._start(where, name, [program("mosquitto"), "-c", str(path)])

    def through(self) -> int:
        """Return the bytes that came out of the line at its far end so far, headers included."""
        command = ["ip", "-n", self._names[1], "-s", "-j", "link", "show", "wanB"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(json.loads(shown)[0]["stats64"]["rx"]["bytes"])

    def _start(self, where: str, name: str, command: Sequence[str], *, talks: bool = False) -> Process:
        within = ["ip", "netns", "exec", where, *command]
        process = Process(name, within, self._folder / f"{name}.log", talks=talks)
        self._stack.callback(process.end)
        return process


@contextmanager
def _line(folder: Path, wan: Path) -> Iterator[_Line]:
    names = f"thin-edge-{os.getpid()}", f"thin-cloud-{os.getpid()}"
    with ExitStack() as stack:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        shape = [f"rate={_KBIT}", f"delay={_DELAY_MS}", f"loss={_LOSS}", f"queue={_QUEUE_FRAMES}"]
        command = [sys.executable, str(wan), "--a", names[0], "--b", names[1], *shape]
        process = Process("wan", command, folder / "wan.log")
        stack.callback(process.end)
        _ready(process)
        yield _Line(folder, stack, names)


def _ready(wan: Process) -> None:
    """Return once the line is there."""
    until = time.monotonic() + _START_S
    while "ready" not in wan.last_words():
        wan.check()
        if time.monotonic() > until:
            raise BenchError(f"the WAN does not begin: {wan.last_words()}")
        time.sleep(0.05)


def _measure(name: str, folder: Path, begin: tuple[float, int], end: tuple[float, int]) -> Row:
    with closing(sqlite3.connect(folder / "outbox.db")) as db:
        faces = db.execute("SELECT key, sha256, size, quality, chosen, state, reason FROM faces").fetchall()
        (thinned,) = db.execute(
            "SELECT coalesce(sum(n), 0) FROM counts WHERE name = 'picture:thinned'"
        ).fetchone()
    seconds, carried = end[0] - begin[0], end[1] - begin[1]
    stored = [row for row in faces if row[5] == "stored"]
    at = {row[0]: _file(folder, row[0]).stat().st_mtime for row in stored}
    during = [row for row in stored if begin[0] <= at[row[0]] < end[0]]
    waits = sorted(at[row[0]] - row[4] for row in during)
    unequal = sum(hashlib.sha256(_file(folder, row[0]).read_bytes()).hexdigest() != row[1] for row in stored)
    evicted = sum(row[5:] == ("dropped", "evicted") for row in faces)
    full = _KBIT * 125 * seconds
    return Row(
        name=name, offered=len(faces), arrived=len(stored), evicted=evicted, thinned=thinned,
        closes=len(faces) == len(stored) + evicted, unequal=unequal,
        mean_bytes=round(statistics.mean(row[2] for row in during)), line_used=round(carried / full, 3),
        payload_used=round(sum(row[2] for row in during) / full, 3),
        live_p50_s=round(percentile(waits, 0.5), 2), live_p90_s=round(percentile(waits, 0.9), 2),
        quality=round(statistics.mean(row[3] for row in stored), 3),
        quality_first_come=round(_first_come(faces, sum(row[2] for row in stored)), 3),
    )  # fmt: skip


def _first_come(faces: Sequence[tuple[str, str, int, float, float, str, str]], carried: int) -> float:
    """Return the mean quality had the same bytes been carried in the order of their capture."""
    came = []
    for _, _, size, quality, *_ in faces:
        carried -= size
        if carried < 0:
            break
        came.append(quality)
    return statistics.mean(came)


def _file(folder: Path, key: str) -> Path:
    return folder / "bucket" / key


def _print(rows: Sequence[Row]) -> None:
    table = Table(title=f"{_KBIT} kbit/s, {2 * _DELAY_MS} ms, {_LOSS} % loss each way")
    table.add_column("")
    for row in rows:
        table.add_column(row.name, justify="right")
    for key in list(asdict(rows[0]))[1:]:
        table.add_row(key.replace("_", " "), *(str(getattr(row, key)) for row in rows))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
