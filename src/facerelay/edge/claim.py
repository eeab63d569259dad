"""Who owns an outbox file: one process at a time, and never two files under one name.

The lock file beside the outbox is held while it is open, and keeps a mark that changes at every opening.
The outbox keeps the same mark and its file's inode. A copy has another inode; an older copy put back in
place has an older mark: both are noticed, and begin books of their own. The mark changes in three steps
(the lock file says from which to which, the outbox takes it, the lock file forgets the old one), so that
an opening that a crash or a full disk cut short leaves no outbox that looks like a copy.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from facerelay.edge.schema import VERSION, OutboxError

_RECORD_BYTES: Final = 256


class OutboxLockedError(OutboxError):
    """Another process has the outbox.

    Attributes:
        pid: that process's id, where it could be read.
    """

    def __init__(self, path: Path, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path}: {who} uses this outbox: one capture at a time; give the second its own file"
        )
        self.pid = pid


class Claim:
    """The lock of one outbox file, held from its making to `release`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lock = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutboxError(
                f"{lock}: {error.strerror}: the outbox's folder must be writable: see outbox.path"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = self._read().get("pid")
            os.close(self._fd)
            raise OutboxLockedError(path, pid if isinstance(pid, int) else None) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self, *, clean: bool = False) -> None:
        """Let the next process have it; `clean` says that all is on disk, and nothing was amiss."""
        if clean:
            with suppress(OSError):  # then the next opening looks closer
                self._write(self._read() | {"clean": True})
        os.close(self._fd)

    @property
    def ours(self) -> bool:
        """Whether an outbox was opened under this name before."""
        return "mark" in self._read()

    @property
    def clean(self) -> bool:
        """Whether the last one to have it came to a good end."""
        return self._read().get("clean") is True

    @property
    def version(self) -> int | None:
        """Of the outbox that was opened under this name, where that is known."""
        found = self._read().get("version")
        return found if isinstance(found, int) else None

    def open(self, db: sqlite3.Connection) -> tuple[str, str]:
        """Mark this opening, and return the outbox's id and the run's; a new id where the file is a copy."""
        meta, lock = dict(db.execute("SELECT name, value FROM meta")), self._read()
        inode, before = str(self._path.stat().st_ino), meta.get("mark")
        known = before is not None and before in {lock.get("mark"), lock.get("before")}
        same = known and meta.get("inode") == inode and re.fullmatch(r"[0-9a-f]{32}", meta.get("outbox", ""))
        outbox, run = meta["outbox"] if same else secrets.token_hex(16), secrets.token_hex(4)
        self._mark(db, outbox, run, {"before": before} if known else {})
        return outbox, run

    def keep(self, db: sqlite3.Connection, outbox: str, run: str) -> None:
        """Mark a file that has taken the place of the one that is open, and is the same outbox."""
        self._mark(db, outbox, run, {})

    def _mark(self, db: sqlite3.Connection, outbox: str, run: str, before: dict[str, Any]) -> None:
        mark = secrets.token_hex(8)
        inode = str(self._path.stat().st_ino)
        values = {"outbox": outbox, "run": run, "mark": mark, "inode": inode}
        record = {"mark": mark, "pid": os.getpid(), "version": VERSION}
        self._write(record | before)
        with db:
            db.executemany("REPLACE INTO meta VALUES (?, ?)", values.items())
        self._write(record)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, values: dict[str, Any]) -> None:
        os.pwrite(self._fd, json.dumps(values).encode().ljust(_RECORD_BYTES), 0)  # one write: never a mixture
        os.fsync(self._fd)
