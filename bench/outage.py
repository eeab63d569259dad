"""An outage of an hour at 20 faces/s, and what comes after: `python -m bench.outage`.

The line between edge and cloud breaks: for the forwarder without a word; for Mosquitto's bridge, which does
not notice that, with a reset. The hour's faces wait in the outbox, with the capture times of that hour. Then
the line is back: live faces go on, and the backlog drains at the budget of the uplink. Mosquitto stands on
both sides, its limits at their defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.broker_watch import BrokerWatch
from bench.bucket import Folder
from bench.faces import SITE, read_offered
from bench.measure import percentile
from bench.outage_feed import BACKLOG, DEAD, LIVE
from bench.processes import BenchError, Process, program, python, wait_for_port
from facerelay.commands.supervise import free_ports
from facerelay.commands.supervise import ours as role
from facerelay.topics import DOWN, UP, link

_RESULTS: Final = Path(__file__).parent / "results" / "outage.json"
_WINDOW: Final = 512_000
_LIMIT_S: Final = 1.0
_BESIDE: Final = 32_000
"""What a broker keeps besides faces: its own figures, ledgers, receipts."""

_WARM_S: Final = 5.0
_NOTICED_S: Final = 90.0
_BACK_S: Final = 60.0
# No limit of Mosquitto's is set; it tells of itself each second.
_BROKER: Final = "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nsys_interval 1\n"


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one run.

    Attributes:
        closes: every face is stored by the books, and lies in the bucket once.
        back_s: from the healing of the line until the edge's link state says so.
        live: faces captured from then on until the backlog was gone; from capture to bucket.
        slowest: the slowest of them: milliseconds taken, and seconds after the line was back.
        late: faces captured between healing and link state: they are backlog.
        budget_used: bytes stored while the backlog drained, as a share of the budget.
    """

    link: str
    offered: int
    arrived: int
    unequal: int
    closes: bool
    noticed_s: float
    back_s: float
    live: int
    live_p50_ms: float
    live_p99_ms: float
    live_max_ms: float
    live_over_1_s: int
    slowest: list[tuple[float, float]]
    late: int
    late_max_ms: float
    drain_s: float
    budget_used: float
    bytes_sent_again: float
    face_bytes: int
    edge_peak_bytes: int
    cloud_peak_bytes: int
    edge_peak_messages: int
    cloud_peak_messages: int
    edge_dropped: int
    cloud_dropped: int

    @property
    def whole(self) -> bool:
        """Whether it shows what it is to show."""
        kept = self.arrived == self.offered and not self.unequal and self.closes
        held = max(self.edge_peak_bytes, self.cloud_peak_bytes) <= _WINDOW + _BESIDE
        return (
            kept
            and held
            and self.live_max_ms <= 1000 * _LIMIT_S
            and not self.edge_dropped + self.cloud_dropped
        )


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load = os.getloadavg()[0]
    links = ("forward", "bridge") if options.link == "both" else (options.link,)
    try:
        rows = [_run(each, options) for each in links]
    except KeyboardInterrupt:
        _progress("ended before its end: nothing written")
        return 130
    except BenchError as error:
        _progress(f"bench: {error}")
        return 1
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "load_before": round(load, 2)},
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "window_bytes": _WINDOW,
        "runs": [asdict(row) for row in rows],
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _print(rows, options)
    return 0 if all(row.whole for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.outage", description=__doc__)
    parser.add_argument("--link", choices=("forward", "bridge", "both"), default="both")
    parser.add_argument("--backlog", type=int, default=72_000, help="faces of the outage (72,000)")
    parser.add_argument("--rate", type=float, default=20, help="live faces per second (20)")
    parser.add_argument("--budget", type=int, default=1_500_000, help="uplink.bytes_per_second (1,500,000)")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="where the figures go")
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class _Times:
    """Unix seconds."""

    dead: float = 0.0
    noticed: float = 0.0
    healed: float = 0.0
    back: float = 0.0


def _run(name: str, options: argparse.Namespace) -> Row:
    with (
        tempfile.TemporaryDirectory(prefix="facerelay-outage-", ignore_cleanup_errors=True) as place,
        ExitStack() as stack,
    ):
        chain = _Chain(Path(place), stack, name, options)
        times = _play(chain, options)
        return _measure(chain, times, options)


class _Chain:
    """Two Mosquittos, the line between them, the link, the store and the feeder."""

    def __init__(self, folder: Path, stack: ExitStack, name: str, options: argparse.Namespace) -> None:
        self.folder, self.link, self._stack = folder, name, stack
        edge, cloud = free_ports(2)
        broken = "dead" if name == "forward" else "reset"
        self._mosquitto("cloud-broker", cloud, "")
        self.line = self._start(
            "line", python("bench.outage_line", cloud, folder / "line.port", broken), talks=True
        )
        self.line.hear("ready")
        line = int((folder / "line.port").read_text(encoding="ascii"))
        settings = self._settings(edge, cloud, line, options.budget)
        bridge = _bridge(settings["edge"]) if name == "bridge" else ""
        self._mosquitto("edge-broker", edge, bridge)
        self.at_edge = stack.enter_context(BrokerWatch(edge, link(SITE)))
        self.at_cloud = stack.enter_context(BrokerWatch(cloud))
        self._start("store", role("store", "-c", str(settings["cloud"])))
        if name == "forward":
            self._start("forwarder", role("forward", "-c", str(settings["edge"])))
        feed = [settings["edge"], folder / "offered", options.backlog, options.rate]
        self.feeder = self._start("feeder", python("bench.outage_feed", *feed), talks=True)

    def _settings(self, edge: int, cloud: int, line: int, budget: int) -> Mapping[str, Path]:
        url = "mqtt://127.0.0.1:{}".format
        texts = {
            "edge": f'site = "{SITE}"\n[broker]\nurl = "{url(edge)}"\n[cloud]\nurl = "{url(line)}"\n'
            f"[outbox]\nwindow_bytes = {_WINDOW}\n[uplink]\nbytes_per_second = {budget}\n",
            "cloud": f'[broker]\nurl = "{url(cloud)}"\n[bucket]\nurl = "file://{self.folder}/bucket"\n',
        }
        for side, text in texts.items():
            (self.folder / f"{side}.toml").write_text(text, encoding="utf-8")
        return {side: self.folder / f"{side}.toml" for side in texts}

    def _mosquitto(self, name: str, port: int, more: str) -> None:
        conf = self.folder / f"{name}.conf"
        conf.write_text(_BROKER.format(port=port) + more, encoding="utf-8")
        wait_for_port(port, self._start(name, [program("mosquitto"), "-c", str(conf)]))

    def _start(self, name: str, command: list[str], *, talks: bool = False) -> Process:
        process = Process(name, command, self.folder / f"{name}.log", talks=talks)
        self._stack.callback(process.end)
        return process


def _bridge(config: Path) -> str:
    command = python("facerelay", "bridge", "mosquitto", "-c", config)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _play(chain: _Chain, options: argparse.Namespace) -> _Times:
    """Let the outage happen; returns when all faces have their answer."""
    chain.feeder.hear("ready")
    chain.at_edge.wait(link(SITE), UP, _BACK_S)
    time.sleep(_WARM_S)
    _progress(f"{chain.link}: the line breaks")
    chain.feeder.go()
    chain.line.go()
    chain.line.hear("down")
    times = _Times(dead=time.time())
    chain.at_edge.wait(link(SITE), DOWN, _NOTICED_S)
    times = replace(times, noticed=time.time())
    chain.feeder.go()
    chain.feeder.hear("given", within=300)
    _progress(f"{chain.link}: {options.backlog} faces wait, the line is back")
    chain.line.go()
    chain.line.hear("up")
    times = replace(times, healed=time.time())
    chain.at_edge.wait(link(SITE), UP, _BACK_S)
    times = replace(times, back=time.time())
    chain.feeder.go()
    chain.feeder.hear("drained", within=options.backlog * 6000 / options.budget + 120)
    chain.feeder.hear("answered")
    return times


def _measure(chain: _Chain, times: _Times, options: argparse.Namespace) -> Row:
    offered = read_offered(chain.folder / "offered")
    bucket = Folder(chain.folder / "bucket" / "faces")
    arrivals, found = bucket.arrivals(), Counter(bucket.contents())
    with closing(sqlite3.connect(f"file:{chain.folder}/outbox.db?mode=ro", uri=True)) as db:
        size = dict(db.execute("SELECT sha256, size FROM faces WHERE state = 'stored'"))
        (sent,) = db.execute("SELECT sum(n) FROM counts WHERE name = 'bytes'").fetchone()
    steps = {
        step: {sha: at for sha, (name, at) in offered.items() if name == step}
        for step in (BACKLOG, LIVE, DEAD)
    }
    live = [(arrivals[sha] - at) * 1000 for sha, at in steps[LIVE].items() if sha in arrivals]
    waits = (
        (round((arrivals[sha] - at) * 1000, 1), round(at - times.back, 2))
        for sha, at in steps[LIVE].items()
        if sha in arrivals
    )
    slowest = sorted(waits, reverse=True)[:8]
    late = [
        (arrivals[s] - at) * 1000 for s, at in steps[DEAD].items() if s in arrivals and at >= times.healed
    ]
    end = max(arrivals[sha] for sha in steps[BACKLOG] if sha in arrivals)
    drained = sum(size.get(sha, 0) for sha, at in arrivals.items() if times.back <= at <= end)
    edge, cloud = chain.at_edge, chain.at_cloud
    return Row(
        link=chain.link, offered=len(offered), arrived=len(set(offered) & set(found)),
        unequal=sum(n for sha, n in found.items() if sha not in offered),
        closes=len(size) == len(offered) and sum(found.values()) == len(offered),
        noticed_s=round(times.noticed - times.dead, 1), back_s=round(times.back - times.healed, 1),
        live=len(steps[LIVE]), live_p50_ms=round(percentile(live, 0.5), 1),
        live_p99_ms=round(percentile(live, 0.99), 1), live_max_ms=round(max(live), 1),
        live_over_1_s=sum(ms > 1000 * _LIMIT_S for ms in live), slowest=slowest,
        late=len(late), late_max_ms=round(max(late, default=0), 1), drain_s=round(end - times.back, 1),
        budget_used=round(drained / (end - times.back) / options.budget, 3),
        bytes_sent_again=round(sent / sum(size.values()) - 1, 4),
        face_bytes=round(sum(size.values()) / len(size)),
        edge_peak_bytes=edge.peak("bytes"), cloud_peak_bytes=cloud.peak("bytes"),
        edge_peak_messages=edge.peak("count"), cloud_peak_messages=cloud.peak("count"),
        edge_dropped=edge.peak("dropped"), cloud_dropped=cloud.peak("dropped"),
    )  # fmt: skip


def _print(rows: list[Row], options: argparse.Namespace) -> None:
    table = Table(title=f"{options.backlog} faces wait, {options.rate:g}/s live, {options.budget} bytes/s")
    table.add_column("")
    for row in rows:
        table.add_column(row.link, justify="right")
    plain: list[dict[str, Any]] = [asdict(row) for row in rows]
    for key in list(plain[0])[1:]:
        table.add_row(key.replace("_", " "), *(str(row[key]) for row in plain))
    Console().print(table)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
