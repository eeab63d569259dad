"""The cloud side of a fleet: brokers, a bucket and stores, each started as a user starts it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench.chains import Starter, on_s3, write_toml
from bench.fleet.plan import Fleet
from bench.processes import BenchError, Usage, program, python, seaweedfs, wait_for_port
from facerelay.commands.supervise import free_ports
from facerelay.commands.supervise import ours as role
from facerelay.config import Bucket

_NODES = 3
_MOSQUITTO = (
    "set_tcp_nodelay true\nmessage_size_limit 1000000\nmax_inflight_messages 200\n"
    "max_queued_messages 100000\nmax_connections -1\n"
)


@dataclass(frozen=True, slots=True)
class Cloud:
    """A running cloud side.

    Attributes:
        ports: where sites may connect, in turn.
        bucket: its settings.
        start: has its processes, by name.
        null: address of the null S3 server, if that is the bucket.
    """

    ports: Sequence[int]
    bucket: Bucket
    start: Starter
    null: str | None

    def requests(self) -> dict[str, int]:
        """Return how many requests the bucket had, by kind; none where it does not count."""
        if self.null is None:
            return {}
        with urlopen(f"{self.null}/?requests") as answer:  # noqa: S310 - http, on loopback
            return dict(json.loads(answer.read()))


def start_cloud(fleet: Fleet, folder: Path, stack: ExitStack) -> Cloud:
    """Start all of it; its processes end with the stack.

    Raises:
        BenchError: a part did not start.
    """
    if fleet.intake == "shared" and fleet.broker != "mosquitto":
        raise BenchError("NATS has no $share: choose --intake jetstream, or --broker mosquitto")
    if fleet.intake == "jetstream" and fleet.broker == "mosquitto":
        raise BenchError("Mosquitto has no JetStream: choose --intake shared, or --broker cluster")
    start = Starter(folder, stack)
    where, null = _bucket(fleet, start, stack)
    ports, clients = _brokers(fleet, start)
    for number in range(fleet.stores):
        store: dict[str, Any] = {
            "name": f"store-{number + 1}",
            "intake": fleet.intake,
            "layout": fleet.layout,
        }
        if fleet.layout == "shards":
            store["shard_s"] = fleet.shard_s
        sections: dict[str, Mapping[str, Any]] = {
            "broker": {"url": f"mqtt://127.0.0.1:{ports[number % len(ports)]}"},
            "store": store,
            "bucket": where,
        }
        if fleet.intake == "jetstream":
            sections["jetstream"] = {"servers": [f"nats://127.0.0.1:{port}" for port in clients]}
        toml = write_toml(folder / f"{store['name']}.toml", {}, sections)
        start(store["name"], role("store", "-c", str(toml)))
    return Cloud(ports, Bucket(**where), start, null)


def _bucket(fleet: Fleet, start: Starter, stack: ExitStack) -> tuple[dict[str, str], str | None]:
    if fleet.bucket == "folder":
        return {"url": f"file://{start.folder}/bucket"}, None
    if fleet.bucket == "s3":
        s3 = stack.enter_context(seaweedfs(start.folder))
        start.processes["bucket"] = s3.process
        return on_s3(s3.endpoint, "fleet"), None
    (port,) = free_ports(1)
    start("bucket", python("bench.nulls3", port), port=port)
    return on_s3(f"http://127.0.0.1:{port}"), f"http://127.0.0.1:{port}"


def _brokers(fleet: Fleet, start: Starter) -> tuple[list[int], list[int]]:
    """Start the brokers; return their MQTT ports, and those where NATS's own protocol is spoken."""
    if fleet.broker == "mosquitto":
        (port,) = free_ports(1)
        path = start.folder / "broker.conf"
        listener = f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        path.write_text(listener + _MOSQUITTO, encoding="utf-8")
        start("broker-1", [program("mosquitto"), "-c", str(path)], port=port)
        return [port], []
    nodes = _NODES if fleet.broker == "cluster" else 1
    found = free_ports(3 * nodes)
    ports, clients, routes = found[:nodes], found[nodes : 2 * nodes], found[2 * nodes :]
    for number, (port, client, route) in enumerate(zip(ports, clients, routes, strict=True), 1):
        cluster: dict[str, Any] = {"clients": f"nats://127.0.0.1:{client}"}
        if nodes > 1:
            cluster |= {
                "node": f"node-{number}", "listen": f"nats://127.0.0.1:{route}",
                "routes": [f"nats://127.0.0.1:{each}" for each in routes],
            }  # fmt: skip
        sections = {
            "broker": {"url": f"mqtt://127.0.0.1:{port}", "data": f"broker-{number}"},
            "cluster": cluster,
        }
        toml = write_toml(start.folder / f"broker-{number}.toml", {}, sections)
        start(f"broker-{number}", role("broker", "-c", str(toml)))
    for number, port in enumerate(ports, 1):
        wait_for_port(port, start.processes[f"broker-{number}"])
    return ports, clients


def usage(processes: Mapping[str, Any]) -> dict[str, Usage]:
    """Return what each role has used so far: its processes' sum."""
    found: dict[str, Usage] = {}
    for name, process in processes.items():
        one, before = process.usage(), found.get(kind := name.partition("-")[0], Usage(0, 0))
        found[kind] = Usage(before.cpu_s + one.cpu_s, before.peak_mb + one.peak_mb)
    return found
