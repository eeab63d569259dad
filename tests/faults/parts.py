"""Processes of the chain: started, killed, stopped, measured, and ended with us however we end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_END_S: Final = 10.0
# Ask Linux to kill this process when its parent dies, and become the program.
_SHIM: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Part:
    """A process, its log, and its state, which can be wiped.

    Attributes:
        expected: it should be up: nobody has broken it.
        falls: how often it ended though nobody had killed it.
    """

    name: str
    command: Sequence[str]
    log: Path
    state: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    expected: bool = False
    falls: int = 0

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *self.command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.expected = True

    def kill(self) -> None:
        """`kill -9` of it and of its children; returns when they are gone."""
        self.expected = False
        if self.process is None:
            return
        self.signal(signal.SIGKILL)
        self.process.wait(_END_S)

    def signal(self, number: int) -> None:
        """Send a signal to it and to its children."""
        for pid in reversed(self.family()):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def wipe(self) -> None:
        """Delete its state."""
        if self.state is not None:
            shutil.rmtree(self.state, ignore_errors=True)
            self.state.mkdir()

    def end(self) -> None:
        """End it politely, by force where it does not listen."""
        self.expected = False
        if self.process is None or self.process.poll() is not None:
            return
        self.signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def ended(self) -> int | None:
        """Return its exit code; None while it runs."""
        return None if self.process is None else self.process.poll()

    def family(self) -> list[int]:
        """Return its process id and those of its children; none once it has ended."""
        if self.process is None or self.process.poll() is not None:
            return []
        return _family(self.process.pid)

    def last_words(self, most: int = 2000) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-most:] if self.log.exists() else ""


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        children = []
    return [pid, *(member for child in children for member in _family(int(child)))]
