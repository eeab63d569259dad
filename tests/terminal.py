"""A real terminal for a program, by a pair of pseudo-terminals: what is typed, and what is to be seen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conftest import need


class Terminal:
    """One program at a terminal."""

    def __init__(self, child: subprocess.Popen[bytes], screen: int) -> None:
        self.child = child
        self.screen = screen
        self.seen = ""

    def type(self, text: str) -> None:
        """Type, as a person does."""
        os.write(self.screen, text.encode())

    def until(self, text: str, timeout: float = 30) -> None:
        """Wait until something is to be seen."""
        end = time.monotonic() + timeout
        while text not in self.seen:
            assert self._read(end), f"never seen: {text!r} in {self.seen[-3000:]!r}"

    def ended(self, timeout: float = 30) -> int:
        """Wait for the end, and return the exit code."""
        end = time.monotonic() + timeout
        while self._read(end):
            pass
        return self.child.wait(max(1.0, end - time.monotonic()))

    def _read(self, until: float) -> bool:
        """Read a little more; false at the end, or when it is too late."""
        ready, _, _ = select.select([self.screen], [], [], max(0.0, until - time.monotonic()))
        try:
            more = os.read(self.screen, 65_536) if ready else b""
        except OSError:  # the other side is closed
            more = b""
        self.seen += more.decode(errors="replace")
        return bool(more)


@contextmanager
def terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    lines: int = 24,
    kind: str = "xterm-256color",
    stdout: Path | None = None,
    **more: str,
) -> Iterator[Terminal]:
    """Run a program at a terminal; its output goes into a file instead, where one is named.

    Args:
        command: the program.
        columns: of the terminal.
        lines: of the terminal.
        kind: of terminal, as TERM has it.
        stdout: a file for what the program prints; the terminal has its standard error alone then.
        more: for the environment.
    """
    screen, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FACERELAY_", "COLUMNS"))
    }
    env = kept | {"TERM": kind, **more}
    out = os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if stdout else inside
    child = subprocess.Popen(
        [need("setsid"), "--ctty", *command], stdin=inside, stdout=out, stderr=inside, env=env
    )
    for fd in {inside, out}:
        os.close(fd)
    try:
        yield Terminal(child, screen)
    finally:
        child.kill()
        child.wait(10)
        os.close(screen)
