"""Who owns an outbox file: one process at a time, and never two files under one name.

The lock file beside the outbox is held while it is open, and keeps a mark that changes at every opening.
The outbox keeps the same mark and its file's inode. A copy has another inode; an older copy put back in
place has an older mark: both are noticed, and begin books of their own.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Any, Self

from facerelay.edge.schema import OutboxError


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
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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

    def release(self) -> None:
        """Let the next process have it."""
        os.close(self._fd)

    def open(self, db: sqlite3.Connection) -> tuple[str, str]:
        """Mark this opening, and return the outbox's id and the run's; a new id where the file is a copy."""
        meta = dict(db.execute("SELECT name, value FROM meta"))
        known = {"mark": self._read().get("mark"), "inode": str(self._path.stat().st_ino)}
        same = "outbox" in meta and all(meta.get(name) == value for name, value in known.items())
        outbox = meta["outbox"] if same else secrets.token_hex(16)
        run, mark = secrets.token_hex(4), secrets.token_hex(8)
        values = {"outbox": outbox, "run": run, "mark": mark, "inode": known["inode"]}
        with db:
            db.executemany("REPLACE INTO meta VALUES (?, ?)", values.items())
        self._write({"mark": mark, "pid": os.getpid()})
        return outbox, run

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, values: dict[str, Any]) -> None:
        text = json.dumps(values).encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))
        os.fsync(self._fd)
