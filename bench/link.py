"""The link alone: 9 kB messages from one Mosquitto to another, by our forwarder or its own bridge (C).

`python -m bench.link`: *live* publishes as fast as the edge's broker takes messages; *backlog* has them
queued there before the way opens. QoS 1 on both hops; both ends of the bench are a few lines on sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.faces import SITE, SIZE, say
from bench.processes import Process, Usage, program, python, wait_for_port
from facerelay import topics
from facerelay.commands.supervise import free_ports
from facerelay.commands.supervise import ours as role
from facerelay.config import Broker
from facerelay.link import wire
from facerelay.link.session import Session

_RESULTS: Final = Path(__file__).parent / "results" / "link.json"
_TOPIC: Final = f"faces/{SITE}/feed"
_CONF: Final = (
    "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n"
    "max_inflight_messages 200\nmax_queued_messages 100000\n"
)
_IN_FLIGHT: Final = 1000
_BATCH: Final = 32
_STEP: Final = 1000
_IDS: Final = 60_000
_ACK: Final = 4
_LINK_S: Final = 30.0
_CHUNK: Final = 1_048_576
_LINKS: Final = ("forwarder", "bridge")
_CASES: Final = ("live", "backlog")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave: messages a second at the sink, CPU in µs a message, peak MB of the link itself."""

    rate: float
    link_us: float
    edge_us: float
    peak_mb: float


def main() -> int:
    """Run both links in turn, and print a table."""
    parser = argparse.ArgumentParser(prog="bench.link", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--count", type=int, default=10_000, help="messages in each run (10,000)")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[Run]] = {(case, link): [] for case in _CASES for link in _LINKS}
    for repeat in range(options.repeats):
        for case, link in list(found) if repeat % 2 else list(found)[::-1]:
            with tempfile.TemporaryDirectory(prefix="facerelay-bench-") as folder:
                run = _run(case, link, Path(folder), options.count)
            found[case, link].append(run)
            print(f"{case}, {link}: {run.rate:.0f}/s", file=sys.stderr, flush=True)
    rows = {f"{case}, {link}": _row(runs) for (case, link), runs in found.items()}
    for case in _CASES:
        ratios = zip(found[case, "forwarder"], found[case, "bridge"], strict=True)
        rows[f"{case}, forwarder"]["to_bridge"] = round(
            statistics.median(a.rate / b.rate for a, b in ratios), 3
        )
    _write(options, rows)
    _print(rows)
    return 0


def _run(case: str, link: str, folder: Path, count: int) -> Run:
    with _chain(case, link, folder) as (processes, edge):
        source = Process(
            "source", python("bench.link", "source", edge, count), folder / "source.log", talks=True
        )
        try:
            source.hear("ready")
            if case == "backlog":
                source.go()
                source.hear("given")
            before = _usage(processes)
            processes["cloud-broker"].resume()
            if case == "live":
                source.go()
            processes["sink"].hear("first")
            began = time.monotonic()
            for _ in range(count // _STEP):
                processes["sink"].hear("some")
            took = time.monotonic() - began
            after = _usage(processes)
        finally:
            source.end()
    used = {name: (after[name].cpu_s - before[name].cpu_s) * 1e6 / count for name in after}
    own = "forwarder" if link == "forwarder" else "edge-broker"
    return Run(count / took, used[own], used["edge-broker"] + used.get("forwarder", 0), after[own].peak_mb)


@contextmanager
def _chain(case: str, link: str, folder: Path) -> Iterator[tuple[dict[str, Process], int]]:
    """Start all but the source; for a backlog the cloud's broker stands still once the sink is there."""
    edge, cloud = free_ports(2)
    toml = folder / "edge.toml"
    toml.write_text(
        f'site = "{SITE}"\ndelivery = "{"broker" if case == "backlog" else "receipt"}"\n'
        f'[broker]\nurl = "mqtt://127.0.0.1:{edge}"\n[cloud]\nurl = "mqtt://127.0.0.1:{cloud}"\n'
    )
    processes: dict[str, Process] = {}
    with ExitStack() as stack:

        def start(name: str, command: list[str], *, talks: bool = False) -> Process:
            processes[name] = process = Process(name, command, folder / f"{name}.log", talks=talks)
            stack.callback(process.end)
            return process

        def broker(name: str, port: int, more: str = "") -> None:
            conf = folder / f"{name}.conf"
            conf.write_text(_CONF.format(port=port) + more)
            wait_for_port(port, start(name, [program("mosquitto"), "-c", str(conf)]))

        broker("cloud-broker", cloud)
        start("sink", python("bench.link", "sink", cloud), talks=True).hear("ready")
        if case == "backlog":
            processes["cloud-broker"].pause()
            stack.callback(processes["cloud-broker"].resume)
        bridge = ""
        if link == "bridge":
            command = python("facerelay", "bridge", "mosquitto", "-c", toml)
            bridge = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        broker("edge-broker", edge, bridge)
        if link == "forwarder":
            start("forwarder", role("forward", "-c", str(toml)))
        if (case, link) != ("backlog", "bridge"):  # that one queues from the start, and says nothing
            asyncio.run(_wait_for_link(edge, topics.DOWN if case == "backlog" else topics.UP))
        yield processes, edge


async def _wait_for_link(port: int, state: bytes) -> None:
    """Return once the link says this of itself at the edge's broker."""
    broker = Broker(url=f"mqtt://127.0.0.1:{port}")
    subscribe = [(topics.link(SITE), 1)]
    async with (
        asyncio.timeout(_LINK_S),
        Session(broker, client_id="bench-link", subscribe=subscribe, max_message=_CHUNK) as session,
    ):
        async for message in session:
            message.ack()
            if message.payload == state:
                return


def _usage(processes: Mapping[str, Process]) -> dict[str, Usage]:
    return {name: process.usage() for name, process in processes.items()}


def _row(runs: Sequence[Run]) -> dict[str, float]:
    return {
        "messages_per_s": round(statistics.median(run.rate for run in runs)),
        "link_cpu_us": round(statistics.median(run.link_us for run in runs), 1),
        "edge_cpu_us": round(statistics.median(run.edge_us for run in runs), 1),
        "peak_mb": round(max(run.peak_mb for run in runs), 1),
    }


def _write(options: argparse.Namespace, rows: Mapping[str, Mapping[str, float]]) -> None:
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "system": platform.system()},
        "python": platform.python_version(), "load": round(os.getloadavg()[0], 2),
        "options": vars(options), "bytes": SIZE, "rows": rows,
    }  # fmt: skip
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _print(rows: Mapping[str, Mapping[str, float]]) -> None:
    table = Table("link", "messages/s", "to the bridge", "CPU us, link", "CPU us, edge in all", "peak MB")
    for name, row in rows.items():
        ratio = f"{row['to_bridge']:.2f}" if "to_bridge" in row else "1"
        cells = (row["link_cpu_us"], row["edge_cpu_us"], row["peak_mb"])
        table.add_row(name, f"{row['messages_per_s']:.0f}", ratio, *(f"{cell:.1f}" for cell in cells))
    Console(width=None if sys.stdout.isatty() else 130).print(table)


# the two ends


def source(port: str, count: str) -> None:
    """Publish so many messages at QoS 1, with a bounded number unanswered; a line on stdin begins."""
    with _connected(port, "bench-source") as sock:
        say("ready")
        sys.stdin.readline()
        payload = os.urandom(SIZE)
        template = wire.publish(_TOPIC, payload, qos=1, packet_id=1)
        at = len(template) - SIZE - 2
        sent = heard = 0
        while heard < int(count) * _ACK:
            batch = min(int(count) - sent, _IN_FLIGHT - (sent - heard // _ACK), _BATCH)
            if batch:
                numbers = (n % _IDS + 1 for n in range(sent, sent + batch))
                ids = (number.to_bytes(2, "big") for number in numbers)
                sock.sendall(b"".join(part for each in ids for part in (template[:at], each, payload)))
                sent += batch
            if not batch or select.select([sock], [], [], 0)[0]:
                heard += len(sock.recv(_CHUNK))
        say("given")
        sys.stdin.readline()


def sink(port: str) -> None:
    """Take messages, all of one size; say when the first has come, and each so many more."""
    size = len(wire.publish(_TOPIC, bytes(SIZE), qos=1, packet_id=1))
    with _connected(port, "bench-sink") as sock:
        sock.sendall(wire.subscribe(1, [(_TOPIC, 1)]))
        sock.recv(_CHUNK)
        say("ready")
        buffer, got = bytearray(), 0
        while data := sock.recv(_CHUNK):
            if not got and not buffer:
                say("first")
            buffer += data
            whole = len(buffer) // size
            ids = (buffer[n * size + size - SIZE - 2 : n * size + size - SIZE] for n in range(whole))
            if whole:
                sock.sendall(b"".join(b"\x40\x02" + each for each in ids))
            del buffer[: whole * size]
            for _ in range((got + whole) // _STEP - got // _STEP):
                say("some")
            got += whole


@contextmanager
def _connected(port: str, name: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(wire.connect(client_id=name))
        sock.recv(_CHUNK)
        yield sock


if __name__ == "__main__":
    if sys.argv[1:2] == ["source"]:
        source(*sys.argv[2:])
    elif sys.argv[1:2] == ["sink"]:
        sink(*sys.argv[2:])
    else:
        sys.exit(main())
