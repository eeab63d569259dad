"""The real chain as processes, each of which a test may kill: brokers, link, store, and a feeder of faces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from conftest import need
from facerelay import settings
from facerelay.commands.bridge import bridge_config
from facerelay.config import Config
from facerelay.link.mosquitto import mosquitto_listener
from servers import answers, free_port

HERE = Path(__file__).parent
Kind = Literal["embedded", "mosquitto"]


@dataclass
class Part:
    """A process of the chain."""

    name: str
    command: list[str]
    log: Path
    state: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def restart(self, *, wipe: bool = False) -> None:
        """Start again, with its state or without."""
        if wipe and self.state is not None:
            shutil.rmtree(self.state, ignore_errors=True)
            self.state.mkdir()
        self.start()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Chain:
    """Edge and cloud on loopback, in one folder."""

    folder: Path
    edge: Config
    cloud: Config
    parts: dict[str, Part]

    def __getitem__(self, name: str) -> Part:
        return self.parts[name]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of our commands with the edge's settings."""
        return facerelay(*words, "-c", str(self.folder / "edge.toml"))

    def feed(self, count: int, rate: float) -> Part:
        """Start capturing `count` faces; ends when each has its answer."""
        path = str(self.folder / "edge.toml")
        command = [sys.executable, str(HERE / "feeder.py"), path, str(count), str(rate)]
        part = Part("feeder", command, self.folder / "feeder.log")
        part.start()
        self.parts["feeder"] = part
        return part

    def finished(self, part: Part, timeout: float = 60) -> None:
        """Wait for the end of a feeder, which must have been a good one."""
        assert part.process is not None
        try:
            code = part.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = -1
        assert code == 0, "\n".join(f"== {p.name}\n{p.text()[-3000:]}" for p in self.parts.values())

    def books(self, *, audit: bool = True) -> dict[str, Any]:
        """Return the ledger as its users read it."""
        done = self.command("ledger", "--json", *(["--audit"] if audit else []))
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found["code"] = done.returncode
        assert done.returncode >= 0, done.stderr
        return found

    def objects(self, prefix: str = "faces") -> list[Path]:
        """Return the files below a prefix of the folder bucket."""
        return sorted(p for p in (self.folder / "bucket" / prefix).rglob("*") if p.is_file())


def facerelay(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "facerelay", *words]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=150, env=env, check=False)


def eventually(true: Callable[[], object], timeout: float = 20) -> None:
    """Wait until something holds; an assertion error says that it never did."""
    until = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.05)


@contextmanager
def chain(
    folder: Path,
    *,
    edge_broker: Kind = "embedded",
    cloud_broker: Kind = "embedded",
    link: Literal["forward", "bridge"] = "forward",
    bucket: dict[str, Any] | None = None,
    sides: dict[str, dict[str, Any]] | None = None,
    **more: Any,  # noqa: ANN401 - any settings
) -> Iterator[Chain]:
    """Run the chain without cameras; faces come from `feed`, `send` or any client.

    Settings in `more` are both sides'; those in `sides` one side's alone.
    """
    urls = {side: f"mqtt://127.0.0.1:{free_port()}" for side in ("edge", "cloud")}
    common = {"bucket": bucket or {"url": "file://bucket"}, **more}
    values = {
        "edge": {"site": "home", "broker": {"url": urls["edge"], "data": "edge-broker"},
                 "cloud": {"url": urls["cloud"]}, "outbox": {"overdue_s": 2.0}, **common},
        "cloud": {"broker": {"url": urls["cloud"], "data": "cloud-broker"}, **common},
    }  # fmt: skip
    known = {"edge": (*settings.EDGE, "bucket"), "cloud": settings.CLOUD}
    for side, names in known.items():
        own = values[side] | (sides or {}).get(side, {})
        (folder / f"{side}.toml").write_text(settings.template(names, own))
    edge, cloud = (settings.load(folder / f"{side}.toml", environ={}) for side in known)
    brokers = [
        _broker(folder, cloud, "cloud", cloud_broker, ""),
        _broker(folder, edge, "edge", edge_broker, bridge_config(edge) if link == "bridge" else ""),
    ]
    roles = [
        _role(folder, "store", "cloud"),
        *([_role(folder, "forward", "edge")] if link == "forward" else []),
    ]
    found = Chain(folder, edge, cloud, {part.name: part for part in (*brokers, *roles)})
    try:
        for part, port in zip(brokers, (cloud.broker.port, edge.broker.port), strict=True):
            part.start()
            eventually(partial(answers, port))
        for part in roles:
            part.start()
        yield found
    finally:
        for part in reversed(found.parts.values()):
            part.end()


def _role(folder: Path, name: str, side: str) -> Part:
    command = [sys.executable, "-m", "facerelay", name, "-c", str(folder / f"{side}.toml")]
    return Part(name, command, folder / f"{name}.log")


def _broker(folder: Path, config: Config, side: str, kind: Kind, bridge: str) -> Part:
    state = folder / f"{side}-broker"
    if kind == "embedded":
        part = _role(folder, "broker", side)
        return Part(f"{side}-broker", part.command, folder / f"{side}-broker.log", state)
    program = need("mosquitto")
    state.mkdir()
    conf = folder / f"{side}-mosquitto.conf"
    listener = mosquitto_listener(config.broker, data=state, max_message=config.limits.message_bytes)
    conf.write_text(listener + bridge)
    return Part(f"{side}-broker", [program, "-c", str(conf)], folder / f"{side}-broker.log", state)
