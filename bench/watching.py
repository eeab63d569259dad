"""What metrics and traces cost capture and store: CPU per face with them and without, in turns.

`python -m bench.watching`: a Mosquitto, a null S3 server, the store as it is started by users, and ready
faces that go through an outbox at a rate. `metrics` is scraped once a second, fifteen times as often as by
default; `traces` tells every face to a collector that takes all.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.faces import ready
from bench.processes import BenchError, Process, program, python, wait_for_port
from facerelay import settings
from facerelay.commands import running, vitals
from facerelay.commands.supervise import free_ports
from facerelay.config import Config
from facerelay.edge.capture import open_outbox
from facerelay.edge.relaying import relaying

_WARM = 300
_VARIANTS = ("off", "metrics", "traces")
_MOSQUITTO = "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n"


def main() -> None:
    """Run the variants in turn, and print a line for each."""
    parser = argparse.ArgumentParser(prog="bench.watching", description=__doc__)
    parser.add_argument("--faces", type=int, default=4000, help="in each run (4,000)")
    parser.add_argument("--rate", type=float, default=400, help="a second (400)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, ...]]] = {variant: [] for variant in _VARIANTS}
    for _ in range(options.repeats):
        for variant in _VARIANTS:
            with tempfile.TemporaryDirectory(prefix="facerelay-bench-") as folder:
                found[variant].append(_measure(variant, Path(folder), options))
    form = "%d faces at %g/s; us of CPU a face, peak MB; medians of %d"
    print(form % (options.faces, options.rate, options.repeats))
    for variant, runs in found.items():
        edge, edge_mb, store, store_mb = (statistics.median(column) for column in zip(*runs, strict=True))
        each = " ".join(f"{run[0]:.0f}/{run[2]:.0f}" for run in runs)
        print(
            f"{variant:8} capture {edge:.0f}, {edge_mb:.0f} MB; store {store:.0f}, {store_mb:.0f} MB ({each})"
        )


def _measure(variant: str, folder: Path, options: argparse.Namespace) -> tuple[float, ...]:
    """Return CPU us a face and peak MB of the capture side, and of the store."""
    with _running(variant, folder, options) as (edge, store, ports):
        _hear("warm", edge, store)
        with _scraped(ports if variant == "metrics" else ()):
            before = edge.usage().cpu_s, store.usage().cpu_s
            edge.go()
            _hear("answered", edge, store, within=300)
            after = edge.usage(), store.usage()
    return (
        (after[0].cpu_s - before[0]) * 1e6 / options.faces, after[0].peak_mb,
        (after[1].cpu_s - before[1]) * 1e6 / options.faces, after[1].peak_mb,
    )  # fmt: skip


def _hear(word: str, edge: Process, store: Process, *, within: float = 120) -> None:
    """Wait for the edge's word; where it does not come, say whether the store lives, and its last words."""
    try:
        edge.hear(word, within=within)
    except BenchError as error:
        store.check()
        raise BenchError(f"{error}; the store runs, and said last: {store.last_words()}") from error


@contextmanager
def _running(
    variant: str, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[Process, Process, tuple[int, int]]]:
    broker, s3 = free_ports(2)
    first = _first_port()
    with ExitStack() as stack:
        collector = stack.enter_context(_collector())

        def start(name: str, command: list[str], *, talks: bool = False) -> Process:
            process = Process(name, command, folder / f"{name}.log", talks=talks)
            stack.callback(process.end)
            return process

        start("s3", python("bench.nulls3", s3, 0), talks=True).hear("ready")
        conf = folder / "mosquitto.conf"
        conf.write_text(_MOSQUITTO.format(port=broker))
        wait_for_port(broker, start("mosquitto", [program("mosquitto"), "-c", str(conf)]))
        more = {
            "off": "",
            "metrics": f"[metrics]\nenabled = true\nport = {first}\n",
            "traces": f'[trace]\nendpoint = "http://127.0.0.1:{collector}/v1/traces"\n',
        }[variant]
        toml = folder / "both.toml"
        toml.write_text(
            f'site = "bench"\ndirect = true\n[broker]\nurl = "mqtt://127.0.0.1:{broker}"\n'
            f'[bucket]\nurl = "s3://bucket"\nendpoint = "http://127.0.0.1:{s3}"\n'
            f'access_key = "bench"\nsecret_key = "bench-secret"\n{more}'
        )
        store = start("store", python("facerelay", "store", "-c", toml))
        words = ("bench.watching", "feed", toml, options.faces, options.rate)
        edge = start("edge", python(*words), talks=True)
        yield edge, store, (first, first + 3)


def _first_port() -> int:
    """Return a port that is free, as the store's, the third after it, is."""
    while True:
        (first,) = free_ports(1)
        with socket.socket() as probe:
            if first < 60_000 and probe.connect_ex(("127.0.0.1", first + 3)) != 0:
                return first


@contextmanager
def _scraped(ports: tuple[int, ...]) -> Iterator[None]:
    """Scrape the ports once a second while the block runs."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(1):
            for port in ports:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    assert b"facerelay_ready" in answer.read()

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(15)


@contextmanager
def _collector() -> Iterator[int]:
    """Take all spans, and do nothing with them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Taker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class _Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Take it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def _feed(config: Config, count: int, rate: float) -> None:
    tools = vitals.Instruments(config, "capture")
    await vitals.beside(_feeding(config, tools, count, rate), instruments=tools)


async def _feeding(config: Config, tools: vitals.Instruments, count: int, rate: float) -> None:
    """Feed the outbox as cameras do, first to warm up, and again when a line comes."""
    with open_outbox(config) as outbox:
        made = ready(count + _WARM, outbox=outbox.id, run=outbox.run)
        connect = running.connector(config)
        async with relaying(config, outbox, connect, meters=tools.meters, trace=tools.trace):
            for word, faces in (("warm", made[:_WARM]), ("answered", made[_WARM:])):
                begin = time.monotonic()
                for number, frozen in enumerate(faces):
                    await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
                    await asyncio.wrap_future(outbox.put(frozen, chosen=time.time()))
                while await asyncio.wrap_future(outbox.waiting()):  # noqa: ASYNC110 - the outbox has no event
                    await asyncio.sleep(0.02)
                print(word, flush=True)
                await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    if sys.argv[1:2] == ["feed"]:
        asyncio.run(_feed(settings.load(Path(sys.argv[2])), int(sys.argv[3]), float(sys.argv[4])))
    else:
        main()
