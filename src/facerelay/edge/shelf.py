"""The outbox's file: opened, kept to one process, and replaced when it is broken."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from facerelay.edge import schema
from facerelay.edge.claim import Claim
from facerelay.edge.pages import log_is_whole
from facerelay.edge.rescue import Rescued, RescueError, finish, rescue
from facerelay.edge.reserve import Reserve, means_full
from facerelay.edge.schema import BrokenError, OutboxError

log = logging.getLogger(__name__)

_BROKEN: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_UNREADABLE: Final = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ}
_LOOK_S: Final = 20.0
"""For how long an outbox is looked over after a bad end; damage that this misses is met at work."""

_AGAIN_S: Final = 10.0
_STEPS: Final = 100_000


def means_broken(error: BaseException) -> bool:
    """Whether the file itself is damaged."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, BrokenError) or code & 0xFF in _BROKEN or code in _UNREADABLE


class Shelf:
    """One outbox file, locked from its making to `close`.

    Args:
        path: the file; made where there is none.
        sync: `full` or `normal`.

    Attributes:
        id: the outbox's; a broken file's faces keep theirs, and the new file has one of its own.
        run: this opening's.
        reserve: room kept back on its disk.

    Raises:
        OutboxLockedError: another process has it.
        OutboxError: its folder cannot be written.
    """

    def __init__(self, path: Path, *, sync: str) -> None:
        self._path = path
        self._sync = sync
        self._claim = Claim(path)
        self._sound = self._replaced = False
        self._mended_at = -_AGAIN_S
        self.reserve = Reserve(path)
        self.id = self.run = ""

    def close(self) -> None:
        """Let the next process have it."""
        self._claim.release(clean=self._sound)

    def open(self, begin: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        """Open the file, in the thread that will own the connection.

        Args:
            begin: called with the connection; damage that it meets is mended, and it is called again.

        Raises:
            OutboxError: it is no outbox, or is broken and cannot be replaced.
            sqlite3.Error: it cannot be opened.
        """
        finish(self._path)
        try:
            db = self._open_with_room(begin)
        except sqlite3.DatabaseError as error:
            if not means_broken(error):
                raise
            self._replace(error)
            db = self._open(begin)
        self._sound = True
        return db

    def mend(
        self, db: sqlite3.Connection, error: BaseException, begin: Callable[[sqlite3.Connection], None]
    ) -> sqlite3.Connection | None:
        """Replace a file that turned out to be broken at work; it stays the same outbox.

        Args:
            db: its connection; closed if it is replaced.
            error: what a transaction failed with.
            begin: called with the new connection.

        Returns:
            a connection to the new file; None if the fault is another one.

        Raises:
            sqlite3.OperationalError: it is broken, and cannot be replaced at present.
        """
        if not self._replaced:
            if not means_broken(error):
                return None
            if time.monotonic() - self._mended_at < _AGAIN_S:
                raise sqlite3.OperationalError(f"{self._path} is damaged again: see to its disk") from error
            self._mended_at = time.monotonic()
            try:
                self._replace(error)
            except OutboxError as worse:
                raise sqlite3.OperationalError(str(worse)) from error
            db.close()
            self._replaced = True
        mended = self._reopen(begin)
        self._replaced = False
        return mended

    def _reopen(self, begin: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        """Open a file that has taken the place of a broken one."""
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            self._prepare(db)
            self._claim.keep(db, self.id, self.run)
            begin(db)
        except BaseException as error:
            db.close()
            if isinstance(error, sqlite3.Error):
                raise sqlite3.OperationalError(f"{self._path}: {error}") from error
            raise
        return db

    def _open_with_room(self, begin: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        try:
            return self._open(begin)
        except sqlite3.OperationalError as error:
            if not (means_full(error) and not means_broken(error) and self.reserve.spend()):
                raise
            return self._open(begin)

    def _open(self, begin: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        doubtful = self._claim.ours and not self._claim.clean
        self._look_before(doubtful=doubtful)
        # SQLite would make it for all to open, and whoever did in that moment could go on reading.
        os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            self._path.chmod(0o600)
            self._prepare(db)
            if doubtful:
                _look_over(db)
            self.id, self.run = self._claim.open(db)
            begin(db)
        except BaseException:
            db.close()
            raise
        return db

    def _look_before(self, *, doubtful: bool) -> None:
        """Find what SQLite would take for a new file, or pass over.

        Raises:
            BrokenError: so it is.
        """
        wal = self._path.with_name(self._path.name + "-wal")
        there = self._path.exists()
        empty = not (there and self._path.stat().st_size)
        if empty and ((wal.exists() and wal.stat().st_size) or (there and self._claim.ours)):
            raise BrokenError("it is empty")
        if doubtful and not log_is_whole(self._path):
            raise BrokenError("its log is damaged")

    def _prepare(self, db: sqlite3.Connection) -> None:
        try:
            schema.prepare(db, self._path, sync=self._sync)
        except OutboxError as error:
            if self._claim.version == schema.VERSION:  # it was one of this version when it was last opened
                raise BrokenError("its header is damaged") from error
            raise

    def _replace(self, error: BaseException) -> None:
        log.error("%s: the outbox is damaged (%s): recovering what can be read", self._path, error)
        try:
            found = rescue(self._path, anything=self._claim.ours)
        except RescueError as worse:
            self.reserve.spend()  # for the next attempt
            raise OutboxError(str(worse)) from worse
        if found is None:
            raise OutboxError(f"{self._path}: not an outbox: {error}: choose another file") from error
        _tell(self._path, found)


def _look_over(db: sqlite3.Connection) -> None:
    """Look over a file's pages, after a bad end.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    until = time.monotonic() + _LOOK_S
    db.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
    try:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise BrokenError(found)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
            raise
    finally:
        db.set_progress_handler(None, 0)


def _tell(path: Path, found: Rescued) -> None:
    log.error(
        "%s: a new outbox was begun with the %d faces that could be read and wait again; %d could not, and"
        " are counted as damaged; the broken file is kept as %s",
        path, found.waiting, found.damaged, found.aside.name,
    )  # fmt: skip
    if found.left:
        log.error(
            "%s: for %d sound faces the disk had no room: they are in %s", path, found.left, found.aside.name
        )
