"""An enrolled chain under attack: cloud and site as `facerelay run` runs them, and a site that was stolen.

`door` is a site as it should be, `mill` one whose device somebody else holds, with its key.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chains import eventually
from conftest import need
from enrolled import Enrolled
from facerelay.config import Broker
from facerelay.link.session import Session
from facerelay.sections.watching import ROLES
from servers import free_port

HERE = Path(__file__).parent
TESTS = HERE.parent
COUNT = re.compile(r"^(facerelay_\w+)(?:\{(.*)\})? ([\d.e+-]+)$", re.MULTILINE)


@dataclass
class Pump:
    """The victim's camera."""

    process: subprocess.Popen[str]
    outbox: str = ""

    def ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the pump has ended: see pump.log"
        found: dict[str, Any] = json.loads(line)
        return found

    def state(self, face: str) -> str:
        return str(self.ask("states")["states"][face][0])

    def ignored(self, reason: str) -> int:
        """Return how many words of stores did not count, by reason."""
        return int(self.ask("ignored")["ignored"].get(reason, 0))


@dataclass
class Besieged:
    """The chain, and what an attacker needs to know of it."""

    folder: Path
    enrolled: Enrolled
    mosquitto: bool
    token: str
    page: int
    metrics: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    pump: Pump | None = None

    @property
    def bucket(self) -> Path:
        folder: Path = self.enrolled.folder
        return folder / "bucket"

    @property
    def camera(self) -> Pump:
        assert self.pump is not None
        return self.pump

    def objects(self, prefix: str = "faces") -> set[Path]:
        """Return the files below a prefix of the bucket."""
        return {path for path in (self.bucket / prefix).rglob("*") if path.is_file()}

    def notes(self) -> list[dict[str, Any]]:
        """Return what is said of the messages in quarantine."""
        return [json.loads(path.read_text()) for path in self.objects("quarantine") if path.suffix == ".json"]

    def log(self, side: str) -> str:
        return (self.folder / f"{side}.log").read_text(errors="replace")

    def said(self, side: str, words: str) -> None:
        """Wait until a side's log says something."""
        eventually(lambda: words in self.log(side), timeout=30)

    def count(self, role: str, name: str, **labels: str) -> float:
        """Return the sum of a role's figures of a name, with these labels among theirs."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics[role]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        return sum(
            float(value)
            for found, some, value in COUNT.findall(text)
            if found == f"facerelay_{name}" and wanted <= set((some or "").split(","))
        )

    def counted(self, role: str, name: str, before: float, **labels: str) -> None:
        """Wait until a figure has risen."""
        eventually(lambda: self.count(role, name, **labels) > before, timeout=30)

    def good(self) -> dict[str, Any]:
        """See that the next good face passes, from the victim's camera to the bucket; return its facts."""
        pump, taken = self.camera, self.camera.ask("face")
        try:
            eventually(lambda: pump.state(taken["id"]) == "stored", timeout=60)
        except AssertionError:
            logs = "\n".join(f"== {side}\n{self.log(side)[-2500:]}" for side in ("cloud", "edge", "pump"))
            raise AssertionError(f"the good face did not pass: {pump.state(taken['id'])}\n{logs}") from None
        assert (self.bucket / taken["key"]).is_file()
        return taken

    def denied(self, what: str) -> float:
        """Return how often the broker has refused a `certificate`, a `publish` or a `subscribe`.

        The embedded broker counts them in its figures; Mosquitto has its log alone.
        """
        if not self.mosquitto:
            return self.count("broker", "broker_refused_total", reason=what)
        words = {"certificate": "OpenSSL Error"}.get(what, f"Denied {what.upper()} from")
        return self.log("cloud").count(words)

    def child(self, word: str) -> int:
        """Return the process id of one of the cloud's roles."""
        parent = self.processes["cloud"].pid
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    line = (entry / "cmdline").read_text().split("\0")
                    above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if above == parent and word in line:
                        return int(entry.name)
        raise AssertionError(f"{word} does not run")

    @contextmanager
    def held(self, word: str) -> Iterator[None]:
        """Stop one of the cloud's roles for as long as the block runs, so that nothing is answered."""
        pid = self.child(word)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def free_row(count: int) -> int:
    """Return the first of so many ports in a row that nobody listens on; none that the kernel hands out."""
    while True:
        base = random.SystemRandom().randrange(20_000, 30_000)
        with ExitStack() as stack, suppress(OSError):
            for port in range(base, base + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base


@contextmanager
def besieged(folder: Path, *, mosquitto: bool = True) -> Iterator[Besieged]:
    """Run the chain."""
    if mosquitto:
        need("mosquitto")
    enrolled = Enrolled.make(folder, sites=("door", "mill"), mosquitto=mosquitto)
    base = free_row(len(ROLES))
    token = secrets.token_hex(24)
    kept = folder / "token"
    kept.touch(mode=0o600)
    kept.write_text(token)
    trust = enrolled.folder / "trust"
    page = free_port()
    flags = {
        "metrics.enabled": "true", "metrics.port": str(base), "gallery.port": str(page),
        "gallery.token_file": str(kept), "gallery.cert": str(trust / "broker.pem"),
        "gallery.key": str(trust / "broker.key"), "limits.message_bytes": "200000",
    }  # fmt: skip
    ports = {role: base + ROLES.index(role) for role in ROLES}
    found = Besieged(folder, enrolled, mosquitto, token, page, ports)
    sets = [word for name, value in flags.items() for word in ("--set", f"{name}={value}")]
    edge = folder / "door" / "edge.toml"
    if mosquitto:
        with (enrolled.folder / "mosquitto.conf").open("a") as conf:
            conf.write("log_type all\n")  # so that it tells whom it refuses what
    try:
        _start(found, "cloud", "run", "-c", str(enrolled.file), *sets)
        _start(found, "edge", "run", "-c", str(edge), "--without", "capture")
        found.said("cloud", "the gallery is at")
        found.pump = _pump(found, edge)
        found.good()
        yield found
    finally:
        _end(found)


def _start(chain: Besieged, name: str, *words: str) -> None:
    with (chain.folder / f"{name}.log").open("wb") as log:
        chain.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "facerelay", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _pump(chain: Besieged, edge: Path) -> Pump:
    with (chain.folder / "pump.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "pump.py"), str(edge)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )  # fmt: skip
    pump = Pump(process)
    pump.outbox = pump.hear()["outbox"]
    return pump


def _end(chain: Besieged) -> None:
    if chain.pump is not None:
        chain.pump.process.kill()
        chain.pump.process.communicate()
    for name in ("edge", "cloud"):
        if process := chain.processes.get(name):
            process.send_signal(signal.SIGTERM)
    for name in ("edge", "cloud"):
        if process := chain.processes.get(name):
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait(10)


RESET = "connection reset by peer"


def trouble(broker: Broker, *, subscribe: tuple[tuple[str, int], ...] = (), timeout: float = 20) -> str:
    """Return what our own session says of a broker that does not take it; empty where it does."""

    async def look() -> str:
        session = Session(broker, client_id="attack", subscribe=subscribe, max_message=300_000)
        async with session:
            until = time.monotonic() + timeout
            # A reset may overtake the reason once; the next try waits for it.
            while time.monotonic() < until and not session.connected and session.trouble in {"", RESET}:
                await asyncio.sleep(0.02)
            return session.trouble

    return asyncio.run(look())
