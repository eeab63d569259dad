"""Room kept back on the outbox's disk: a full disk must not keep answers from being written down.

SQLite needs room to free room. An outbox that has filled its disk could record no receipt, be opened no more,
and so never drain. The reserve is given up when the disk is full; from then on new faces are taken only into
pages that answered ones have freed, until the disk has room for a new reserve.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

BYTES: Final = 16_777_216
"""Twice what the write-ahead log grows to between two checkpoints, and more."""

_ROOM: Final = 2_097_152
_LEFT: Final = 4_194_304
"""What a reserve leaves of the disk, so that it is not given up at once."""

_AGAIN_S: Final = 1.0
_FULL: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def means_full(error: BaseException) -> bool:
    """Whether SQLite failed for want of room; a log that cannot grow is an I/O error to it."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _FULL


class Reserve:
    """A file beside the outbox; empty once it was spent, so that a later opening knows.

    Args:
        outbox: the outbox's own file.

    Attributes:
        spent: it was given up; new faces are taken into freed pages alone.
    """

    def __init__(self, outbox: Path) -> None:
        self._path = outbox.with_name(outbox.name + ".reserve")
        self._again_at = 0.0
        size = self._path.stat().st_size if self._path.exists() else None
        self._held = size == BYTES
        self.spent = size is not None and not self._held

    def make(self) -> None:
        """Keep room back, where the disk has that much and some more; Linux alone can."""
        now = time.monotonic()
        if self._held or now < self._again_at or sys.platform != "linux":
            return
        self._again_at = now + _AGAIN_S
        with suppress(OSError):  # then there is none: the outbox works without
            self._allocate()

    def _allocate(self) -> None:
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < BYTES + _LEFT:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, BYTES)
            self._held, self.spent = True, False
        except OSError:  # somebody else took the room, or a filesystem that does not know this
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def spend(self) -> bool:
        """Give the room back to the disk; returns whether there was any."""
        if not self._held:
            return False
        self._held, self.spent = False, True
        with suppress(FileNotFoundError):  # somebody has made room already
            os.truncate(self._path, 0)
        log.error(
            "%s: the disk is full: answers go on, new faces wait for room: free some", self._path.parent
        )
        return True

    def admit(self, db: sqlite3.Connection, size: int) -> None:
        """Let a picture of `size` bytes in.

        Raises:
            sqlite3.OperationalError: the room that is left is for answers.
        """
        if not self.spent:
            return
        self.make()
        (pages,), (page,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size")
        )
        if self.spent and pages * page < size + _ROOM:
            raise sqlite3.OperationalError("the disk is full: what room is left is for answers")
