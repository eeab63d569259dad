"""Stores that share the work: how many faces a second with one, two and four, and what limits them.

`python -m bench.stores [--intake shared,jetstream] [--stores 1,2,4] [--delay 0,30] [--rounds 5]`

One process offers ready faces as fast as receipts come back, at Mosquitto (`shared`: `$share`) or at the
embedded broker (`jetstream`: one NATS node). Stores put them into a null S3 server that answers at once or
after so many milliseconds. Settings take turns; medians are printed, and written with all rounds to
`bench/results/stores.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from bench.faces import CAMERA, SITE, ready
from bench.processes import BenchError, Process, program, python, wait_for_port
from facerelay import messages, topics
from facerelay.commands.supervise import free_ports
from facerelay.config import Broker
from facerelay.link.session import Session

Intake = Literal["shared", "jetstream"]

_RESULTS: Final = Path(__file__).parent / "results" / "stores.json"
_OUTBOXES: Final = 8
_WARM: Final = 500
_WINDOW: Final = 256
_BUSY: Final = 0.9
"""Of a core, or of all of them: from there on it is what limits."""

_LONGEST_S: Final = 120.0
_MOSQUITTO: Final = (
    "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n"
    "max_inflight_messages 200\nmax_queued_messages 100000\n"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: by which intake, by how many stores, with a bucket so many milliseconds away."""

    intake: Intake
    stores: int
    delay_ms: float

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.intake:9} {self.stores} stores, PUT {self.delay_ms:g} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run gave.

    Attributes:
        rate: faces a second that were answered `stored`.
        duplicates: faces that a store found in the bucket already.
        busy: cores that each kind of process kept busy; `store` is the busiest one, `stores` all together,
            `machine` all that ran on this machine.
        shares: of the stores' work, in percent, that of the idlest and that of the busiest one.
        limit: what stood at its limit.
    """

    rate: float
    duplicates: int
    busy: Mapping[str, float]
    shares: tuple[int, int]
    limit: str


def main() -> None:
    """Run all settings in turn, print a line for each, and write them down."""
    options = _options()
    settings = [
        Setting(intake, stores, delay)
        for intake, stores, delay in itertools.product(options.intake, options.stores, options.delay)
    ]
    found: dict[Setting, list[Result]] = {setting: [] for setting in settings}
    for _ in range(options.rounds):
        for setting in settings:
            with tempfile.TemporaryDirectory(prefix="facerelay-bench-") as folder:
                result = _measure(setting, Path(folder), options)
            found[setting].append(result)
            print(f"{setting}: {result.rate:.0f} faces/s, limited by {result.limit}", file=sys.stderr)
    rows = [_row(setting, results) for setting, results in found.items()]
    for row in rows:
        print(f"{row['setting']}: {row['rate']} faces/s, cores {row['busy']}, limited by {row['limit']}")
    written = json.dumps({"cores": _cores(), "faces": options.faces, "rows": rows}, indent=1)
    options.out.write_text(f"{written}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.stores", description=__doc__)
    parser.add_argument("--intake", type=lambda text: text.split(","), default=["shared", "jetstream"])
    parser.add_argument("--stores", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--delay", type=lambda text: [float(n) for n in text.split(",")], default=[0.0, 30.0])
    parser.add_argument("--faces", type=int, default=12_000, help="in each run (12,000)")
    parser.add_argument("--concurrency", type=int, default=128, help="PUTs at once of each store (128)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=_RESULTS)
    return parser.parse_args()


def _row(setting: Setting, results: Sequence[Result]) -> dict[str, object]:
    kinds = results[0].busy
    return {
        "setting": str(setting),
        **asdict(setting),
        "rate": round(statistics.median(result.rate for result in results)),
        "rates": [round(result.rate) for result in results],
        "duplicates": [result.duplicates for result in results],
        "busy": {kind: round(statistics.median(each.busy[kind] for each in results), 2) for kind in kinds},
        "shares": [result.shares for result in results],
        "limit": statistics.mode(result.limit for result in results),
    }


def _measure(setting: Setting, folder: Path, options: argparse.Namespace) -> Result:
    with _running(setting, folder, options) as (processes, port):
        return asyncio.run(_feed(setting, processes, port, options))


@contextmanager
def _running(
    setting: Setting, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[dict[str, Process], int]]:
    """Run bucket, broker and stores; yields the processes by name, and the broker's port."""
    broker, s3, nats = free_ports(3)
    (folder / "cloud.toml").write_text(_SETTINGS.format(
        broker=broker, s3=s3, nats=nats, intake=setting.intake, folder=folder,
        concurrency=options.concurrency,
    ))  # fmt: skip
    processes: dict[str, Process] = {}
    with ExitStack() as stack:

        def start(name: str, command: Sequence[str], *, talks: bool = False) -> Process:
            process = processes[name] = Process(name, command, folder / f"{name}.log", talks=talks)
            stack.callback(process.end)
            return process

        start("s3", python("bench.nulls3", s3, setting.delay_ms), talks=True).hear("ready")
        wait_for_port(broker, start("broker", _broker(setting.intake, broker, folder)))
        for n in range(setting.stores):
            start(f"store-{n}", _role("store", folder, f"--set=store.instance=n{n}"))
        yield processes, broker


_SETTINGS: Final = """
[broker]
url = "mqtt://127.0.0.1:{broker}"
data = "{folder}/broker"
[cluster]
clients = "nats://127.0.0.1:{nats}"
[jetstream]
servers = ["nats://127.0.0.1:{nats}"]
[store]
intake = "{intake}"
concurrency = {concurrency}
[bucket]
url = "s3://bucket"
endpoint = "http://127.0.0.1:{s3}"
access_key = "bench"
secret_key = "bench-secret"
"""


def _broker(intake: Intake, port: int, folder: Path) -> list[str]:
    if intake == "jetstream":
        return _role("broker", folder)
    conf = folder / "mosquitto.conf"
    conf.write_text(_MOSQUITTO.format(port=port))
    return [program("mosquitto"), "-c", str(conf)]


def _role(name: str, folder: Path, *more: str) -> list[str]:
    return python("facerelay", name, "-c", folder / "cloud.toml", *more)


class _Feeder:
    """Publishes faces within a window, and counts their receipts."""

    def __init__(self, session: Session, window: int) -> None:
        self._session = session
        self._room = asyncio.Semaphore(window)
        self._answered: set[str] = set()
        self.beats: set[str] = set()
        self.duplicates = 0

    async def listen(self) -> None:
        """Take what comes until cancelled."""
        async for message in self._session:
            if message.topic.startswith("stores/"):
                self.beats.add(message.topic)
            else:
                self._take(messages.Receipts.from_bytes(message.payload).receipts)
            message.ack()

    def _take(self, batch: Sequence[messages.Receipt]) -> None:
        for receipt in batch:
            if receipt.outcome != "stored":
                raise BenchError(f"a face was {receipt.outcome}")
            self.duplicates += receipt.duplicate
            if receipt.id not in self._answered:
                self._answered.add(receipt.id)
                self._room.release()

    async def play(self, lot: Sequence[tuple[str, bytes]]) -> float:
        """Publish all, and return once each has its receipt; returns the seconds that it took."""
        begin, expected = time.monotonic(), len(self._answered) + len(lot)
        async with asyncio.TaskGroup() as group:
            for topic, data in lot:
                await self._room.acquire()
                group.create_task(self._session.publish(topic, data, qos=1))
        await _until(lambda: len(self._answered) >= expected, "a receipt for each face")
        return time.monotonic() - begin


async def _feed(
    setting: Setting, processes: Mapping[str, Process], port: int, options: argparse.Namespace
) -> Result:
    count = options.faces + _WARM
    topic = topics.FaceTopic("faces/{site}/{camera}").publish(SITE, CAMERA)
    each = -(-count // _OUTBOXES)
    lots = [ready(each, outbox=f"{n:032x}") for n in range(_OUTBOXES)]
    faces = [(topic, frozen.data) for lot in zip(*lots, strict=True) for frozen in lot][:count]
    filters = [(topics.BEATS, 0), (f"receipts/{SITE}/+", 1)]
    broker = Broker(url=f"mqtt://127.0.0.1:{port}")
    async with (
        asyncio.timeout(_LONGEST_S),
        Session(broker, client_id="bench", subscribe=filters, max_message=10**6) as session,
        asyncio.TaskGroup() as group,
    ):
        feeder = _Feeder(session, _WINDOW * setting.stores)
        listening = group.create_task(feeder.listen())
        await _until(lambda: len(feeder.beats) == setting.stores, "a beat of each store", processes)
        await feeder.play(faces[:_WARM])
        before, own = {name: one.usage().cpu_s for name, one in processes.items()}, time.process_time()
        machine = _machine_s()
        took = await feeder.play(faces[_WARM:])
        own, machine = time.process_time() - own, _machine_s() - machine
        used = {name: one.usage().cpu_s - before[name] for name, one in processes.items()}
        listening.cancel()
    busy = _busy({**used, "feeder": own, "machine": machine}, took)
    return Result(
        rate=options.faces / took, duplicates=feeder.duplicates, busy=busy, limit=_limit(busy),
        shares=_shares(used),
    )  # fmt: skip


def _busy(used: Mapping[str, float], took: float) -> dict[str, float]:
    """Return the cores that each kind of process kept busy."""
    stores = [seconds for name, seconds in used.items() if name.startswith("store-")]
    others = {name: used[name] / took for name in ("broker", "s3", "feeder", "machine")}
    return {"store": max(stores) / took, "stores": sum(stores) / took, **others}


def _shares(used: Mapping[str, float]) -> tuple[int, int]:
    """Return what the idlest and the busiest store did of all stores' work, in percent."""
    stores = Counter({name: seconds for name, seconds in used.items() if name.startswith("store-")})
    shares = [round(100 * seconds / stores.total()) for seconds in stores.values()]
    return min(shares), max(shares)


def _limit(busy: Mapping[str, float]) -> str:
    """Return what stood at its limit: one process that fills a core, the machine, or the bucket's delay."""
    single = {name: busy[name] for name in ("store", "s3", "feeder")}
    busiest = max(single, key=lambda name: single[name])
    if busy["machine"] > _BUSY * _cores():
        return "the machine"
    return busiest if single[busiest] > _BUSY else "waiting for the bucket"


def _machine_s() -> float:
    """Return the seconds that all cores together were not idle."""
    times = [int(n) for n in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return (sum(times) - times[3] - times[4]) / os.sysconf("SC_CLK_TCK")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


async def _until(true: Callable[[], bool], what: str, processes: Mapping[str, Process] | None = None) -> None:
    begin = time.monotonic()
    while not true():
        for process in (processes or {}).values():
            process.check()
        if time.monotonic() - begin > _LONGEST_S:
            raise BenchError(f"there was not {what} in {_LONGEST_S:.0f} s")
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    main()
