"""Three NATS nodes, four stores, SeaweedFS: a node and two stores are killed under load; then the audit.

`python -m bench.cluster [--rate 1000] [--seconds 60] [--sites 4] [--stores 4] [--bucket seaweed|folder]
[--layout shards|objects]`. A shard is closed at a megabyte or after two seconds, so that a pause shows.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.chains import Starter, on_s3, write_toml
from bench.faces import SITE, Phase, read_offered
from bench.plain import ACCESS_KEY, SECRET_KEY
from bench.processes import BenchError, Process, make_bucket, program, python, wait_for_port, weed_ports
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.shards import names
from facerelay.cloud.shards.reading import listed
from facerelay.commands.supervise import free_ports
from facerelay.commands.supervise import ours as role
from facerelay.config import Bucket

_NODES: Final = 3
_VOLUMES: Final = 3
_PHASE: Final = "load"
_AFTER_S: Final = 120.0
_SHARD_BYTES: Final = 1_000_000
_QUORUM_S: Final = 60.0
_RESULTS: Final = Path(__file__).parent / "results" / "cluster.json"


def weed_cluster(start: Starter) -> dict[str, str]:
    """Run SeaweedFS with a master, three volume servers that keep each object twice, a filer and its S3."""
    folder = start.folder
    who = {
        "name": "bench",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [who]}), encoding="utf-8")
    s3, master, filer, *_ = weed_ports()
    weed, here = program("weed"), ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    (folder / "master").mkdir()
    start(
        "weed-master",
        [weed, "master", *here, f"-port={master}", f"-mdir={folder}/master", "-telemetry=false",
         "-volumeSizeLimitMB=64", "-defaultReplication=001", "-resumeState=false"],
        port=master,
    )  # fmt: skip
    wait_for_port(master, start.processes["weed-master"])
    for number in range(_VOLUMES):
        port, data = weed_ports()[3], folder / f"volume-{number}"
        data.mkdir()
        command = [
            weed,
            "volume",
            *here,
            f"-port={port}",
            f"-dir={data}",
            "-max=0",
            f"-master=127.0.0.1:{master}",
        ]
        wait_for_port(port, start(f"weed-volume-{number}", command, port=port))
    filer_data = folder / "filer"
    filer_data.mkdir()
    process = start(
        "weed-filer",
        [weed, "filer", *here, f"-master=127.0.0.1:{master}", f"-port={filer}", "-s3", f"-s3.port={s3}",
         f"-defaultStoreDir={filer_data}", "-defaultReplicaPlacement=001", f"-s3.config={folder}/s3.json",
         "-s3.port.iceberg=0", "-s3.port.lance=0"],
        port=s3,
    )  # fmt: skip
    wait_for_port(s3, process)
    make_bucket(f"http://127.0.0.1:{s3}", process)
    return on_s3(f"http://127.0.0.1:{s3}", "cluster")


def brokers(start: Starter) -> tuple[list[int], list[int]]:
    """Run three nodes; returns the ports of MQTT and of the NATS protocol."""
    found = free_ports(3 * _NODES)
    mqtt, clients, routes = (found[at : at + _NODES] for at in range(0, 3 * _NODES, _NODES))
    for number in range(_NODES):
        sections: dict[str, dict[str, Any]] = {
            "broker": {"url": f"mqtt://127.0.0.1:{mqtt[number]}", "data": f"node-{number}"},
            "cluster": {
                "node": f"node-{number}", "listen": f"nats://127.0.0.1:{routes[number]}",
                "routes": [f"nats://127.0.0.1:{each}" for each in routes],
                "clients": f"nats://127.0.0.1:{clients[number]}",
            },
        }  # fmt: skip
        toml = write_toml(start.folder / f"node-{number}.toml", {}, sections)
        start(f"node-{number}", role("broker", "-c", str(toml)))
    until = time.monotonic() + _QUORUM_S
    logs = [start.folder / f"node-{number}.log" for number in range(_NODES)]
    while not all("it serves" in log.read_text() for log in logs):
        if time.monotonic() > until:
            raise BenchError("the nodes did not find each other")
        time.sleep(0.2)
    return mqtt, clients


def stores(
    start: Starter, options: argparse.Namespace, url: str, clients: list[int], bucket: dict[str, str]
) -> None:
    """Run stores of one group, and return when all of them pull."""
    count = options.stores
    for number in range(count):
        sections: dict[str, dict[str, Any]] = {
            "broker": {"url": url},
            "store": {
                "name": f"store-{number}",
                "intake": "jetstream",
                "retention_days": "forever",
                "layout": options.layout,
                "shard_bytes": _SHARD_BYTES,
                "shard_s": 2,
            },
            "jetstream": {"servers": [f"nats://127.0.0.1:{port}" for port in clients]},
            "bucket": dict(bucket),
        }
        toml = write_toml(start.folder / f"store-{number}.toml", {"qos": options.qos}, sections)
        start(f"store-{number}", role("store", "-c", str(toml)))
    until = time.monotonic() + _QUORUM_S
    while not all("pulls from" in (start.folder / f"store-{n}.log").read_text() for n in range(count)):
        if time.monotonic() > until:
            raise BenchError("the stores do not pull")
        time.sleep(0.2)


def sites(start: Starter, options: argparse.Namespace, url: str) -> list[Process]:
    """Run outboxes that wait for the word to begin."""
    count = options.rate * options.seconds // options.sites
    phase = Phase(_PHASE, count, options.rate / options.sites)
    found = []
    for number in range(options.sites):
        folder = start.folder / f"site-{number}"
        folder.mkdir()
        sections: dict[str, dict[str, Any]] = {
            "broker": {"url": url}, "outbox": {"path": "outbox.db", "overdue_s": 2.0, "sync": "normal"},
        }  # fmt: skip
        toml = write_toml(folder / "edge.toml", {"site": SITE, "direct": True, "qos": options.qos}, sections)
        command = python("bench.feed", toml, folder / "offered", phase)
        found.append(start(f"site-{number}", command, talks=True))
    for each in found:
        each.hear("ready")
    return found


def kill(process: Process) -> None:
    """`kill -9`; a node's server dies with it."""
    os.kill(process.pid, signal.SIGKILL)


def play(start: Starter, feeders: list[Process], options: argparse.Namespace) -> dict[str, float]:
    """Play the load, kill a node and two stores midway; returns when what was done."""
    for each in feeders:
        each.go()
    for each in feeders:
        each.hear("begin")
    told = {"begin": time.time()}
    if options.kill:
        time.sleep(options.seconds / 2)
        told["killed"] = time.time()
        for name in ["node-0", *(f"store-{number}" for number in range(min(2, options.stores - 1)))]:
            kill(start.processes[name])
    for each in feeders:
        each.hear("given", within=options.seconds + _AFTER_S)
    told["given"] = time.time()
    for each in feeders:
        each.hear("answered", within=_AFTER_S)
    told["answered"] = time.time()
    return told


def audit(folder: Path, bucket: dict[str, str], told: dict[str, float], count: int) -> dict[str, Any]:
    """Compare what was offered with what lies in the bucket, and find the longest pause between receipts."""
    offered: set[str] = set()
    answered: list[float] = []
    states: Counter[str] = Counter()
    duplicates = 0
    for number in range(count):
        site = folder / f"site-{number}"
        offered |= {name for name, (phase, _) in read_offered(site / "offered").items() if phase == _PHASE}
        db = sqlite3.connect(f"file:{site / 'outbox.db'}?mode=ro", uri=True)
        states.update(dict(db.execute("SELECT state, count(*) FROM faces GROUP BY state")))
        answered += [at for (at,) in db.execute("SELECT answered FROM faces WHERE state = 'stored'")]
        db.close()
        done = subprocess.run(
            [sys.executable, "-m", "facerelay", "ledger", "--json", "-c", str(site / "edge.toml")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        books = json.loads(done.stdout.splitlines()[-1])
        duplicates += sum(account["duplicates"] for account in books["cameras"].values())
    keys = asyncio.run(_keys(bucket))
    hashes = Counter(key.rpartition("-")[2].partition(".")[0] for key in keys)
    ids = Counter(key.rpartition("/")[2].split("-", 1)[1].rpartition("-")[0] for key in keys)
    window = sorted(at for at in answered if told["begin"] <= at <= told["given"] + 1)
    gaps = [(after - before, before) for before, after in itertools.pairwise(window)]
    longest, at = max(gaps, default=(0.0, 0.0))
    return {
        "offered": len(offered),
        "missing": sum(1 for name in offered if name[:8] not in hashes),
        "twice": sum(n - 1 for n in ids.values()),
        "states": dict(states),
        "duplicates_counted": duplicates,
        "longest_pause_s": round(longest, 2),
        "pause_begins_after_kill_s": round(at - told["killed"], 2) if "killed" in told else None,
        "answered_after_the_last_offer_s": round(told["answered"] - told["given"], 2),
        "per_second": round(len(window) / (told["given"] - told["begin"])),
    }


async def _keys(where: dict[str, str]) -> list[str]:
    """Return the keys of all faces that lie there, each as often as it does."""
    bucket = open_bucket(Bucket(**where))
    try:
        found = [entry.key async for entry in bucket.list("faces")]
        async for entry in bucket.list(names.CATALOGUE):
            if shard := names.parse(entry.key):
                found += [row.key for row in await listed(bucket, shard) or ()]
        return found
    finally:
        await bucket.close()


def main() -> None:
    """Run it, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rate", 1000), ("seconds", 60), ("sites", 4), ("stores", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bucket", choices=["seaweed", "folder"], default="seaweed")
    parser.add_argument("--layout", choices=["shards", "objects"], default="shards")
    parser.add_argument("--qos", type=int, choices=[0, 1], default=0, help="of edges and stores (0)")
    parser.add_argument("--no-kill", dest="kill", action="store_false")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made, ExitStack() as stack:
        folder = Path(made)
        start = Starter(folder, stack)
        bucket = {"url": f"file://{folder}/bucket"} if options.bucket == "folder" else weed_cluster(start)
        mqtt, clients = brokers(start)
        (port,) = free_ports(1)
        start("balancer", python("bench.balancer", port, *mqtt), talks=True).hear("ready")
        url = f"mqtt://127.0.0.1:{port}"
        stores(start, options, url, clients, bucket)
        feeders = sites(start, options, url)
        before = {name: process.usage().cpu_s for name, process in start.processes.items()}
        told = play(start, feeders, options)
        used: dict[str, float] = {}
        for name, process in start.processes.items():
            kind = name.rstrip("0123456789-")
            used[kind] = used.get(kind, 0.0) + max(0.0, process.usage().cpu_s - before[name])
        found = audit(folder, bucket, told, options.sites)
        found["cpu_us_per_face"] = {name: round(s / found["offered"] * 1e6) for name, s in used.items()}
        found["options"] = {name: str(value) for name, value in vars(options).items() if name != "out"}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
