"""Processes of a chain: started, measured and ended by their ids."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.plain import ACCESS_KEY, BUCKET, SECRET_KEY, client_s3
from facerelay.commands.supervise import free_ports

_END_S = 10.0
_ANSWER_S = 120.0
_START_S = 30.0
_PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A part of a chain did not do its part; the message has its last words."""


class Process:
    """One process, its log, its use of the machine; one that `talks` is spoken with over its pipes."""

    def __init__(self, name: str, command: Sequence[str], log: Path, *, talks: bool = False) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else out,
                stderr=out,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the bench, which ends them in its turn
            )

    def go(self) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    def hear(self, word: str, *, within: float = _ANSWER_S) -> None:
        """Wait until it says a word.

        Raises:
            BenchError: it ended, said another, or nothing for so many seconds.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], within)[0]:
            raise BenchError(f"{self.name} did not say {word!r} in {within:.0f} s: {self.last_words()}")
        said = self._process.stdout.readline().decode().strip()
        if said != word:
            raise BenchError(f"{self.name} said {said!r}, not {word!r}: {self.last_words()}")

    def check(self) -> None:
        """Raise BenchError if it ended."""
        if self._process.poll() is not None:
            raise BenchError(f"{self.name} ended with {self._process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-400:].strip() or "no word"

    def usage(self) -> Usage:
        """Return what it and its children used so far."""
        used = [_usage(pid) for pid in _family(self._process.pid)]
        return Usage(sum(u.cpu_s for u in used), sum(u.peak_mb for u in used))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def pause(self) -> None:
        """Have it stand still."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on, where it stood still."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it, by force if it does not listen; the end of its stdin is a word, too."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        else:
            self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, user and system; peak resident memory in MB."""

    cpu_s: float
    peak_mb: float


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return [pid, *(member for child in found for member in _family(child))]


def _usage(pid: int) -> Usage:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return Usage(0, 0)
    peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
    return Usage((int(stat[11]) + int(stat[12])) / _TICKS, int(peak) / 1024)


def python(module: str, *words: object) -> list[str]:
    """Return the command line of one of the bench's own programs."""
    return [sys.executable, "-m", module, *map(str, words)]


def program(name: str) -> str:
    """Return the path of a program.

    Raises:
        BenchError: it is not installed.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join((beside, os.environ.get("PATH", ""), _PLACES)))
    if found is None:
        raise BenchError(f"{name} is not installed: see `make test-setup`")
    return found


def wait_for_port(port: int, process: Process) -> None:
    """Return once somebody listens."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        process.check()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"{process.name} does not listen on {port}: {process.last_words()}")


@dataclass(frozen=True, slots=True)
class S3:
    """A running SeaweedFS: its S3 API, its process, and its filer, which knows when each object came."""

    endpoint: str
    process: Process
    filer: str


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3]:
    """Run SeaweedFS on loopback, with one bucket."""
    data = folder / "weed"
    data.mkdir()
    who = {
        "name": "bench",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [who]}), encoding="utf-8")
    s3, master, volume, filer = weed_ports()
    command = [
        program("weed"), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
        f"-s3.config={folder / 's3.json'}", f"-s3.port={s3}", f"-master.port={master}",
        f"-volume.port={volume}", f"-filer.port={filer}", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64", "-volume.max=0", "-master.resumeState=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    process = Process("seaweedfs", command, folder / "weed.log")
    try:
        wait_for_port(s3, process)
        endpoint = f"http://127.0.0.1:{s3}"
        make_bucket(endpoint, process)
        yield S3(endpoint, process, f"http://127.0.0.1:{filer}")
    finally:
        process.end()


def weed_ports() -> list[int]:
    """Return four free ports whose gRPC sisters, 10,000 above, can be ports too."""
    while True:
        ports = [port for port in free_ports(16) if port < 55_000]
        if len(ports) >= 4:
            return ports[:4]


def make_bucket(endpoint: str, process: Process) -> None:
    client = client_s3(endpoint)
    until = time.monotonic() + _START_S
    while True:
        process.check()
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="first", Body=b"1")
            client.delete_object(Bucket=BUCKET, Key="first")
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
        else:
            return
