"""What a webhook has still to tell, on disk: it survives the store, has a bound, and knows what was told."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
_Job = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]

REMEMBERED_S: Final = 7 * 86_400.0
"""For so long it is known that a face was told: a receipt that was lost must not have it told again."""

_MOST_REMEMBERED: Final = 1_000_000
_MOST_EXPIRED: Final = 10_000
_PRUNE_EVERY_S: Final = 600.0
_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE waiting (
  row INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE, body BLOB NOT NULL, since REAL NOT NULL, due REAL NOT NULL, tries INTEGER NOT NULL
);
CREATE INDEX waiting_due ON waiting (due);
CREATE TABLE told (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX told_at ON told (at);
CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""


class SpoolError(Exception):
    """The spool cannot be used; the message names the file and says what to do."""


class Waiting(NamedTuple):
    """A message that is still to be taken.

    Attributes:
        id: the face's.
        body: what is posted.
        since: when it came, in Unix seconds.
        tries: how often it was tried in vain.
    """

    id: str
    body: bytes
    since: float
    tries: int


class Spool:
    """Messages that wait, in the order in which they are due; all changes of one moment share a commit.

    Args:
        path: the file; made where there is none. A damaged one is put aside.
        most: messages that wait, at most; past it the oldest goes, counted as `overflow`.
        clock: Unix seconds.

    Raises:
        SpoolError: it cannot be opened, or another store has it.
    """

    def __init__(self, path: Path, *, most: int, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self._jobs: list[_Job] = []
        self._work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhook")
        self._pruned_at = clock()
        self._db = _open(path)
        (self.waiting,) = self._db.execute("SELECT count(*) FROM waiting").fetchone()
        self.counts: dict[str, int] = dict(self._db.execute("SELECT name, n FROM counts"))

    async def close(self) -> None:
        """Finish what is queued."""
        if self._work is not None:
            with suppress(sqlite3.Error):
                await self._work
        self._thread.shutdown()
        self._db.close()

    async def add(self, face_id: str, body: bytes) -> bool:
        """Take a message; it is on disk when this returns. False where it waits, or was told, already.

        Raises:
            sqlite3.Error: the disk does not take it.
        """
        now = self._clock()

        def insert(db: sqlite3.Connection) -> bool:
            if db.execute("SELECT 1 FROM told WHERE id = ?", (face_id,)).fetchone():
                return False
            values = (face_id, body, now, now, 0)
            new = db.execute(
                "INSERT OR IGNORE INTO waiting (id, body, since, due, tries) VALUES (?, ?, ?, ?, ?)", values
            )
            if new.rowcount <= 0:
                return False
            self.waiting += 1
            while self.waiting > self._most:
                (oldest,) = db.execute("SELECT id FROM waiting ORDER BY row LIMIT 1").fetchone()
                self._leave(db, oldest, "overflow")
            return True

        return await self._do(insert)

    async def due(self, most: int, *, longest_s: float) -> list[Waiting]:
        """Return messages whose time has come, those first that are due longest.

        Args:
            most: of them.
            longest_s: nothing is due later than in so many seconds, unless a clock was set back.
        """
        now = self._clock()
        query = (
            "SELECT id, body, since, tries FROM waiting WHERE due <= ? OR due > ? ORDER BY due, row LIMIT ?"
        )

        def read(db: sqlite3.Connection) -> list[Waiting]:
            return [Waiting(*row) for row in db.execute(query, (now, now + longest_s, most))]

        return await self._do(read)

    async def next_due(self) -> float | None:
        """Return when the next message is due, in Unix seconds; None where none waits."""
        query = "SELECT min(due) FROM waiting"

        def read(db: sqlite3.Connection) -> float | None:
            (found,) = db.execute(query).fetchone()
            return None if found is None else float(found)

        return await self._do(read)

    async def done(self, face_id: str, outcome: str) -> None:
        """Let a message go, and count what became of it."""
        await self._do(lambda db: self._leave(db, face_id, outcome))

    async def later(self, face_id: str, seconds: float) -> None:
        """Try a message again, in so many seconds."""
        update = "UPDATE waiting SET due = ?, tries = tries + 1 WHERE id = ?"
        due = self._clock() + seconds
        await self._do(lambda db: db.execute(update, (due, face_id)).rowcount)

    async def expire(self, before: float, outcome: str) -> None:
        """Let go of what came before a time, in Unix seconds, and count it."""

        def leave(db: sqlite3.Connection) -> None:
            old = db.execute(
                "SELECT id FROM waiting WHERE since < ? LIMIT ?", (before, _MOST_EXPIRED)
            ).fetchall()
            for (face_id,) in old:
                self._leave(db, face_id, outcome)

        await self._do(leave)

    def _leave(self, db: sqlite3.Connection, face_id: str, outcome: str) -> None:
        if not db.execute("DELETE FROM waiting WHERE id = ?", (face_id,)).rowcount:
            return
        self.waiting -= 1
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        db.execute("REPLACE INTO told VALUES (?, ?)", (face_id, self._clock()))
        db.execute("REPLACE INTO counts VALUES (?, ?)", (outcome, self.counts[outcome]))

    async def _do(self, job: Callable[[sqlite3.Connection], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Run what is queued, each time all of it; what comes meanwhile shares the next turn."""
        loop = asyncio.get_running_loop()
        while self._jobs:
            jobs, self._jobs = self._jobs, []
            try:
                results = await loop.run_in_executor(self._thread, self._transact, [job for job, _ in jobs])
            except Exception as error:  # noqa: BLE001 - it is the job's future's to raise
                for _, future in jobs:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(jobs, results, strict=True):
                if not future.done():  # who waited may be gone
                    future.set_result(result)

    def _transact(self, jobs: Iterable[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        before = self.waiting, dict(self.counts)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = [job(self._db) for job in jobs]
            self._prune()
            self._db.execute("COMMIT")
        except BaseException:
            self.waiting, self.counts = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

    def _prune(self) -> None:
        now = self._clock()
        if abs(now - self._pruned_at) < _PRUNE_EVERY_S:
            return
        self._pruned_at = now
        self._db.execute("DELETE FROM told WHERE at < ?", (now - REMEMBERED_S,))
        self._db.execute(
            "DELETE FROM told WHERE at < (SELECT at FROM told ORDER BY at DESC LIMIT 1 OFFSET ?)",
            (_MOST_REMEMBERED,),
        )


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError as error:
        raise SpoolError(
            f"{path}: cannot be opened: {error}; is its folder writable, and has each store a"
            " webhook.spool of its own?"
        ) from error
    except OSError as error:
        raise SpoolError(f"{path}: cannot be opened: {error.strerror}; see webhook.spool") from error
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.broken-{int(time.time())}")
        form = "%s is damaged (%s): put aside as %s; what waited in it is not told"
        log.error(form, path, error, aside.name)  # noqa: TRY400 - the message is for a user
        path.rename(aside)
        for ending in ("-wal", "-shm"):
            path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file for us alone, readable by its owner alone."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version == 0 and tables == 0:
            db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise SpoolError(f"{path}: not a webhook's spool of version {_VERSION}: choose another file")  # noqa: TRY301 - closed below
        db.execute("SELECT id, body, since, due, tries FROM waiting LIMIT 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db
