"""Real servers for tests, on free loopback ports: started, killed, started again, ended by their pid.

Each is a context manager that yields a `Server` whose `kill()` is `kill -9`, and whose `restart(wipe=True)`
begins anew without its state. `url` and `port` stay the same over a restart.
"""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
START_S = 20.0


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Server:
    """A server process and how to start it."""

    command: Sequence[str]
    port: int
    state: Path
    log: Path
    url: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start, and return once the port answers."""
        self.state.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._wait()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """`kill -9`, or another signal; returns when the process is gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(START_S)
            self.process = None
            self._wait_closed()

    def stop(self) -> None:
        """End it politely, by force if it does not listen."""
        if self.process is None:
            return
        try:
            self.kill(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self, *, wipe: bool = False) -> None:
        """Start again after `kill -9` (done here if it still runs), with its state or without."""
        self.kill()
        if wipe:
            shutil.rmtree(self.state, ignore_errors=True)
        self.start()

    def text(self) -> str:
        """What it logged."""
        return self.log.read_text(errors="replace")

    def _wait_closed(self) -> None:
        """The embedded broker's own child dies just after its parent."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return
            time.sleep(0.01)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.command[0]} ended:\n{self.text()}"
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                    probe.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x05\x00\x02up")
                    if probe.recv(4).startswith(b"\x20\x02"):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{self.command[0]} does not answer on port {self.port}:\n{self.text()}")


@contextmanager
def mosquitto(
    port: int | None = None, extra_conf: str = "", folder: Path | None = None, *, listener: str | None = None
) -> Iterator[Server]:
    """Mosquitto with anonymous access, persistence on disk, and `extra_conf`.

    `listener` replaces the lines that open the port.
    """
    assert MOSQUITTO, "tests need Mosquitto: apt-get install mosquitto"
    with _folder(folder) as here:
        port = port or free_port()
        state = here / "state"
        first = listener or f"listener {port} 127.0.0.1\nallow_anonymous true\n"
        conf = here / "mosquitto.conf"
        # It drops to `mosquitto` when started by root, who alone can read our temporary folders.
        user = getpass.getuser()
        conf.write_text(
            f"{first}\npersistence true\npersistence_location {state}/\nuser {user}\n{extra_conf}\n"
        )
        server = Server(
            [MOSQUITTO, "-c", str(conf)], port, state, here / "mosquitto.log", f"mqtt://127.0.0.1:{port}"
        )
        yield from _served(server)


_ROLE = """
import asyncio, json, logging, sys
from facerelay.config import Broker
from facerelay.link.broker import run_broker
from facerelay.sections import Cluster
logging.basicConfig(level=logging.DEBUG)
broker, cluster = Broker(**json.loads(sys.argv[1])), Cluster(**json.loads(sys.argv[3]))
asyncio.run(run_broker(broker, max_message=int(sys.argv[2]), cluster=cluster))
"""


@contextmanager
def nats(
    port: int | None = None,
    settings: Mapping[str, object] | None = None,
    folder: Path | None = None,
    *,
    max_message: int = 1_000_000,
    cluster: Mapping[str, object] | None = None,
) -> Iterator[Server]:
    """The embedded broker in a process of its own, state on disk; `settings` are more fields of `Broker`.

    `cluster` are the fields of `Cluster`.
    """
    with _folder(folder) as here:
        port = port or free_port()
        state = here / "state"
        broker = {"url": f"mqtt://127.0.0.1:{port}", "data": str(state), **(settings or {})}
        command = [
            sys.executable,
            "-c",
            _ROLE,
            json.dumps(broker),
            str(max_message),
            json.dumps(cluster or {}),
        ]
        yield from _served(Server(command, port, state, here / "nats.log", f"mqtt://127.0.0.1:{port}"))


def _served(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="facerelay-", ignore_cleanup_errors=True) as made:
        yield Path(made)
