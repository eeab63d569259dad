"""Roles as processes of their own: started, started again when they fall, ended in order by their ids."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from facerelay.settings import ConfigError

log = logging.getLogger(__name__)

_END_S: Final = 30.0
"""A store may close shards for 20 s."""

_FALLS: Final = 20
_AGAIN_S: Final = 0.5
_LAST_BYTES: Final = 4096
_MOSQUITTO_PLACES: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"

# 1 is PR_SET_PDEATHSIG; a `preexec_fn` would run between fork and exec, where Python is not safe.
_BOUND: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class FallenError(Exception):
    """A role does not stay up; the message ends with its last words."""


@dataclass(slots=True)
class Role:
    """One process of the chain.

    Attributes:
        name: what people call it; its log is `<name>.log`.
        command: how it is started.
        log: where it speaks; None: where we do.
        lasting: whether it should run until it is told to end.
    """

    name: str
    command: Sequence[str]
    log: Path | None = None
    lasting: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    falls: int = 0

    def start(self) -> None:
        """Start it, out of reach of the terminal's Ctrl-C: it is ended in its turn."""
        with self.log.open("ab") if self.log else nullcontext() as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def look(self) -> None:
        """Start it again if it fell.

        Raises:
            FallenError: it falls again and again.
        """
        if self.process is None or self.process.poll() is None or not self.lasting:
            return
        self.falls += 1
        if self.falls > _FALLS:
            raise FallenError(f"{self.name} does not stay up: {self.last_words()}")
        log.warning("%s ended with code %s: started again", self.name, self.process.returncode)
        time.sleep(_AGAIN_S)
        self.start()

    def end(self) -> int:
        """Ask it to end, force it if it does not, and return its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(_END_S)

    def last_words(self) -> str:
        """Return the last line of its log."""
        if self.log is None:
            return "its words stand above"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LAST_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def ours(*words: str) -> list[str]:
    """Return the command line of one of our roles, which ends with this process."""
    return [sys.executable, "-m", "facerelay", "--parent", str(os.getpid()), *words]


def mosquitto(conf: Path, *, instead: str) -> list[str]:
    """Return the command line of Mosquitto, which on Linux ends with this process, too.

    Args:
        conf: its configuration.
        instead: what to do where it is not installed.

    Raises:
        ConfigError: it is not installed.
    """
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=_MOSQUITTO_PLACES)
    if program is None:
        raise ConfigError(f"mosquitto is not installed: apt-get install mosquitto, or {instead}")
    bound = [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid())]
    return [*bound, program, "-c", str(conf.absolute())]


def answers(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP set an event: an exception raised anywhere may be swallowed."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
