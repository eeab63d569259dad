"""The chains, put together: ours as a user starts it, and the plain one."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.bucket import Bucket, Folder, Null, Objects
from bench.faces import SITE, Phase
from bench.plain import ACCESS_KEY, BUCKET, SECRET_KEY, TOPIC
from bench.processes import S3, BenchError, Process, program, python, wait_for_port
from facerelay.commands.supervise import free_ports
from facerelay.commands.supervise import ours as role

FAR_MS = 30
_WARM_S = 30.0
_LISTENER = "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
# What `facerelay bridge mosquitto` tells to set beside the bridge.
_FOR_OURS = """\
set_tcp_nodelay true
message_size_limit 1000000
max_inflight_messages 200
max_queued_messages 100000
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A chain to measure.

    Attributes:
        level: `fast`, `broker` or `receipt` for ours; `qos0` or `qos1` for the plain one.
        brokers: `embedded` or `mosquitto`, on both sides.
        link: `forward`, or `bridge`, Mosquitto's own.
        bucket: `folder`; `s3`, SeaweedFS; `null`, an S3 server that keeps nothing; `far`, one 30 ms away;
            for the plain chain also `synced`, a folder with an fsync for each file.
    """

    level: str
    brokers: str = "embedded"
    link: str = "forward"
    bucket: str = "folder"

    @property
    def plain(self) -> bool:
        """Whether it is the plain chain."""
        return self.level.startswith("qos")

    @property
    def name(self) -> str:
        """What the table calls it."""
        if self.plain:
            saved = {
                "folder": "folder", "synced": "folder and fsync", "s3": "boto3", "far": "boto3, 30 ms",
            }[self.bucket]  # fmt: skip
            return f"plain, QoS {self.level[-1]}, {saved}"
        parts = "" if self.brokers == "embedded" else f", {self.brokers}, {self.link}"
        where = {"s3": ", S3", "null": ", null S3", "far": ", null S3 30 ms away"}.get(self.bucket, "")
        return f"facerelay, {self.level}{parts}{where}"


@dataclass(frozen=True, slots=True)
class Chain:
    """A running chain; `feeder` is told when to begin."""

    processes: Mapping[str, Process]
    feeder: Process
    bucket: Bucket
    offered: Path
    outbox: Path | None

    def warm(self) -> None:
        """Return once a face has gone all the way."""
        self.feeder.hear("ready")
        until = time.monotonic() + _WARM_S
        while not self.bucket.count():
            for process in self.processes.values():
                process.check()
            if time.monotonic() > until:
                words = {name: process.last_words()[-200:] for name, process in self.processes.items()}
                raise BenchError(f"no face came through in {_WARM_S:.0f} s: {words}")
            time.sleep(0.2)
        time.sleep(0.5)

    def receipts(self) -> dict[str, float]:
        """Return the time at which the outbox had the answer for each face, by its sha256."""
        if self.outbox is None:
            return {}
        db = sqlite3.connect(f"file:{self.outbox}?mode=ro", uri=True)
        try:
            return dict(db.execute("SELECT sha256, answered FROM faces WHERE state = 'stored'"))
        finally:
            db.close()


@contextmanager
def running(variant: Variant, phases: Sequence[Phase], folder: Path, s3: S3 | None) -> Iterator[Chain]:
    """Run a chain, ready to be warmed up; its processes end with the context."""
    with ExitStack() as stack:
        start = Starter(folder, stack)
        yield (_plain if variant.plain else _ours)(variant, phases, start, s3)


class Starter:
    """Starts processes that end with the stack, the last first."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.processes: dict[str, Process] = {}

    def __call__(
        self, name: str, command: Sequence[str], *, port: int | None = None, talks: bool = False
    ) -> Process:
        """Start a process; with a port, return once it listens."""
        process = Process(name, command, self.folder / f"{name}.log", talks=talks)
        self._stack.callback(process.end)
        self.processes[name] = process
        if port is not None:
            wait_for_port(port, process)
        return process

    def mosquitto(self, name: str, port: int, conf: str) -> Process:
        """Start a Mosquitto with more lines of configuration."""
        path = self.folder / f"{name}.conf"
        path.write_text(_LISTENER.format(port=port) + conf, encoding="utf-8")
        return self(name, [program("mosquitto"), "-c", str(path)], port=port)


def _plain(variant: Variant, phases: Sequence[Phase], start: Starter, s3: S3 | None) -> Chain:
    edge, cloud = free_ports(2)
    qos, folder, offered = variant.level[-1], start.folder, start.folder / "offered"
    start.mosquitto("cloud-broker", cloud, "")
    bridge = f"connection bench\naddress 127.0.0.1:{cloud}\ntopic {TOPIC} out {qos}\n"
    start.mosquitto("edge-broker", edge, bridge)
    (folder / "bucket").mkdir()
    bucket: Bucket = Folder(folder / "bucket")
    saver = python("bench.plain", variant.bucket, cloud, qos, folder / "bucket")
    if s3 is not None:
        bucket = Objects(s3.endpoint, folder.name, folder / "puts")
        saver = python("bench.plain", "s3", cloud, qos, s3.endpoint, folder.name, folder / "puts")
    elif variant.bucket == "far":
        bucket = _null(start, FAR_MS)
        saver = python("bench.plain", "s3", cloud, qos, bucket.endpoint, "faces", folder / "puts")
    start("store", saver, talks=True).hear("ready")
    feeder = start("feeder", python("bench.plain", "publish", edge, qos, offered, *phases), talks=True)
    return Chain(start.processes, feeder, bucket, offered, None)


def _ours(variant: Variant, phases: Sequence[Phase], start: Starter, s3: S3 | None) -> Chain:
    edge, cloud = free_ports(2)
    folder, offered = start.folder, start.folder / "offered"
    common = {"delivery": variant.level}
    bucket: Bucket = Folder(folder / "bucket" / "faces")
    where = {"url": f"file://{folder}/bucket"}
    if s3 is not None:
        bucket = Objects(s3.endpoint, f"{folder.name}/faces", folder / "none")
        where = on_s3(s3.endpoint, folder.name)
    elif variant.bucket in {"null", "far"}:
        bucket = _null(start, FAR_MS if variant.bucket == "far" else 0)
        where = on_s3(bucket.endpoint)
    edge_url, cloud_url = (f"mqtt://127.0.0.1:{port}" for port in (edge, cloud))
    edge_toml = write_toml(
        folder / "edge.toml",
        {"site": SITE, **common},
        {"broker": {"url": edge_url, "data": "edge-broker"}, "cloud": {"url": cloud_url}},
    )
    cloud_toml = write_toml(
        folder / "cloud.toml", common, {"broker": {"url": cloud_url, "data": "cloud-broker"}, "bucket": where}
    )
    _broker(start, "cloud-broker", cloud, cloud_toml, variant)
    _broker(start, "edge-broker", edge, edge_toml, variant)
    start("store", role("store", "-c", str(cloud_toml)))
    if variant.link == "forward":
        start("forwarder", role("forward", "-c", str(edge_toml)))
    feeder = start("feeder", python("bench.feed", edge_toml, offered, *phases), talks=True)
    return Chain(start.processes, feeder, bucket, offered, folder / "outbox.db")


def on_s3(endpoint: str, prefix: str = "") -> dict[str, str]:
    """Return the settings of a bucket."""
    url = f"s3://{BUCKET}/{prefix}".rstrip("/")
    return {"url": url, "endpoint": endpoint, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}


def _null(start: Starter, delay_ms: int) -> Null:
    (port,) = free_ports(1)
    start("s3", python("bench.nulls3", port, delay_ms), talks=True).hear("ready")
    del start.processes["s3"]  # what it uses is no part of a chain's
    return Null(f"http://127.0.0.1:{port}")


def _broker(start: Starter, name: str, port: int, path: Path, variant: Variant) -> None:
    if variant.brokers == "embedded":
        start(name, role("broker", "-c", str(path)), port=port)
    elif variant.link == "bridge" and name == "edge-broker":
        command = python("facerelay", "bridge", "mosquitto", "-c", path)
        bridge = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        start.mosquitto(name, port, _FOR_OURS + bridge)
    else:
        start.mosquitto(name, port, _FOR_OURS)


def write_toml(path: Path, plain: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write settings; JSON's strings are TOML's."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
