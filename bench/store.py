"""The store alone: ready faces at a Mosquitto of its own, into a null S3 server or a folder.

`python -m bench.store [--bucket null|folder] [--source PATH …]`: each PATH is the root of a checkout, and
they take turns, so that two versions can be compared in one run. The measure is the store's CPU per face.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.faces import CAMERA, SITE, ready
from bench.processes import Process, program, python, wait_for_port
from facerelay import messages, topics
from facerelay.commands.supervise import free_ports
from facerelay.config import Broker
from facerelay.link.session import Session

_OUTBOX = "0" * 32
_WARM = 500
_MOSQUITTO = (
    "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n"
    "max_inflight_messages 200\nmax_queued_messages 100000\n"
)


def main() -> None:
    """Run the sources in turn, and print a line for each."""
    options = _options()
    found: dict[str, list[tuple[float, float, float]]] = {source: [] for source in options.source}
    for _ in range(options.repeats):
        for source in options.source:
            with tempfile.TemporaryDirectory(prefix="facerelay-bench-") as folder:
                found[source].append(_measure(source, Path(folder), options))
    for source, runs in found.items():
        cpu, rate, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        each = " ".join(f"{run[0]:.0f}" for run in runs)
        print(f"{source}: {cpu:.0f} us of CPU a face ({each}), {rate:.0f} faces/s, {peak:.0f} MB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.store", description=__doc__)
    parser.add_argument("--bucket", choices=("null", "folder"), default="null")
    parser.add_argument("--source", action="append", help="root of a checkout (this one)")
    parser.add_argument("--faces", type=int, default=5000, help="in each run (5,000)")
    parser.add_argument("--window", type=int, default=56, help="faces without receipt (56, of 512 kB)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0, help="ms that a PUT takes (0)")
    options = parser.parse_args()
    options.source = options.source or ["."]
    return options


def _measure(source: str, folder: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    with _running(source, folder, options) as (store, port):
        return asyncio.run(_feed(store, port, options))


@contextmanager
def _running(source: str, folder: Path, options: argparse.Namespace) -> Iterator[tuple[Process, int]]:
    broker, s3 = free_ports(2)
    where = f'url = "file://{folder}/bucket"\n'
    with ExitStack() as stack:

        def start(name: str, command: list[str], *, talks: bool = False) -> Process:
            process = Process(name, command, folder / f"{name}.log", talks=talks)
            stack.callback(process.end)
            return process

        if options.bucket == "null":
            start("s3", python("bench.nulls3", s3, options.delay), talks=True).hear("ready")
            where = f'url = "s3://bucket"\nendpoint = "http://127.0.0.1:{s3}"\n'
            where += 'access_key = "bench"\nsecret_key = "bench-secret"\n'
        conf = folder / "mosquitto.conf"
        conf.write_text(_MOSQUITTO.format(port=broker))
        wait_for_port(broker, start("mosquitto", [program("mosquitto"), "-c", str(conf)]))
        toml = folder / "cloud.toml"
        toml.write_text(f'[broker]\nurl = "mqtt://127.0.0.1:{broker}"\n[bucket]\n{where}')
        path = f"PYTHONPATH={Path(source).resolve()}/src"
        command = ["env", path, sys.executable, "-m", "facerelay", "store", "-c", str(toml)]
        yield start("store", command), broker


async def _feed(store: Process, port: int, options: argparse.Namespace) -> tuple[float, float, float]:
    """Publish all faces within the window; return CPU us a face, faces/s, and peak MB."""
    faces = ready(options.faces + _WARM, outbox=_OUTBOX)
    topic = topics.FaceTopic("faces/{site}/{camera}").publish(SITE, CAMERA)
    filters = [(topics.HELLOS, 1), (topics.receipts(SITE, _OUTBOX), 1)]
    broker = Broker(url=f"mqtt://127.0.0.1:{port}")
    async with Session(broker, client_id="bench", subscribe=filters, max_message=10**6) as session:
        await session.wait_connected()
        room = asyncio.Semaphore(options.window)
        hello = asyncio.Event()
        answered = 0

        async def listen() -> None:
            nonlocal answered
            async for message in session:
                if message.topic.startswith("stores/"):
                    hello.set()
                else:
                    batch = messages.Receipts.from_bytes(message.payload).receipts
                    assert all(receipt.outcome == "stored" for receipt in batch), batch
                    answered += len(batch)
                    for _ in batch:
                        room.release()
                message.ack()

        async def play(lot: list[bytes]) -> None:
            async with asyncio.TaskGroup() as group:
                for data in lot:
                    await room.acquire()
                    group.create_task(session.publish(topic, data, qos=1))

        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            listening = group.create_task(listen())
            await hello.wait()
            data = [frozen.data for frozen in faces]
            await play(data[:_WARM])
            await _until(lambda: answered == _WARM)
            before, begin = store.usage().cpu_s, time.monotonic()
            await play(data[_WARM:])
            await _until(lambda: answered == len(data))
            took = time.monotonic() - begin
            after = store.usage()
            listening.cancel()
    return (after.cpu_s - before) * 1e6 / options.faces, options.faces / took, after.peak_mb


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - a look now and then costs the bench least
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    main()
