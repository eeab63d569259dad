"""The outbox's tables: made, looked over, pruned, and given back to the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import ItemsView
from contextlib import closing
from pathlib import Path
from typing import Final

VERSION: Final = 1
COLUMNS: Final = ("stored", "sent", "dropped", "refused", "erased")
STATES: Final = frozenset({"waiting", *COLUMNS})
"""What a captured face may be, in the books."""

PAGE: Final = 4096
_LOG_BYTES: Final = 8_388_608
"""What the write-ahead log keeps of the disk after a flood, at most."""

_BUSY_MS: Final = 5_000
"""For how long a statement waits for another process, as Python has it."""

_SPARE_PAGES: Final = 2560
_SHRINK_PAGES: Final = 500

_TABLES_OF: Final = "SELECT name, sql FROM sqlite_schema WHERE type = 'table'"
TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE faces (
  row INTEGER PRIMARY KEY,
  outbox TEXT NOT NULL, run TEXT NOT NULL, seq INTEGER NOT NULL,
  id TEXT NOT NULL UNIQUE, site TEXT NOT NULL, camera TEXT NOT NULL,
  sha256 TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, quality REAL NOT NULL,
  chosen REAL NOT NULL, answered REAL,
  state TEXT NOT NULL DEFAULT 'waiting', reason TEXT
);
CREATE TABLE pictures (row INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE counts (
  outbox TEXT, site TEXT, camera TEXT, name TEXT, n INTEGER NOT NULL,
  PRIMARY KEY (outbox, site, camera, name)
) WITHOUT ROWID;
"""

INDICES: Final = """
CREATE INDEX IF NOT EXISTS faces_line ON faces (row, outbox, site, camera, size, state)
  WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS faces_rank ON faces (CAST(quality * 16 AS INTEGER), row)
  WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS faces_refused ON faces (row) WHERE state = 'refused';
CREATE INDEX IF NOT EXISTS faces_answered ON faces (outbox, site, camera, answered, chosen, state)
  WHERE answered IS NOT NULL;
"""
"""No query reads rows in vain, however many were answered or wait; and each index grows at few places."""

_FORMER: Final = ("faces_waiting", "faces_value", "faces_camera", "faces_worth")
"""Indices of earlier versions."""


class BrokenError(sqlite3.DatabaseError):
    """What is in the file cannot be right, though SQLite reads it."""


class OutboxError(Exception):
    """The outbox cannot be used; the message names the file and says what to do."""


def create(db: sqlite3.Connection) -> None:
    """Make the tables in a new file, which will give room back to the disk when it has much to spare."""
    db.execute("PRAGMA secure_delete = ON")
    db.execute(f"PRAGMA page_size = {PAGE}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.executescript(f"BEGIN; {TABLES} {INDICES} PRAGMA user_version = {VERSION}; COMMIT;")


def prepare(db: sqlite3.Connection, path: Path, *, sync: str = "full") -> None:
    """Make the tables in a new file, and check those of an old one.

    Args:
        db: the file, just opened.
        path: its name, for messages.
        sync: `full`, or `normal`: a power cut may take the last commits.

    Raises:
        BrokenError: the version is ours, the tables are not.
        OutboxError: another program's file, or a later version's.
    """
    db.text_factory = _text
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version == 0 and tables == 0:
        create(db)
    elif version != VERSION:
        raise OutboxError(
            f"{path}: not an outbox of version {VERSION} (found {version}): choose another file"
        )
    elif not _tables() <= dict(db.execute(_TABLES_OF)).items():
        raise BrokenError("its tables are not an outbox's")
    db.execute("PRAGMA secure_delete = ON")  # what leaves is overwritten, whatever SQLite was built with
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {sync}")
    db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    for name in _FORMER:
        db.execute(f"DROP INDEX IF EXISTS {name}")
    db.executescript(INDICES)


def _text(raw: bytes) -> str:
    """Read a text whatever its bytes: damage must not stop a query."""
    return raw.decode(errors="replace")


def _tables() -> ItemsView[str, str]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        return dict(db.execute(_TABLES_OF)).items()


def shrink(db: sqlite3.Connection) -> None:
    """Give some pages back to the disk, where a quarter of the file and more is spare."""
    (spare,), (pages,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count")
    )
    if spare > max(_SPARE_PAGES, pages // 4):
        for _ in range(_SHRINK_PAGES):  # each statement is stepped once, and that is a page
            db.execute("PRAGMA incremental_vacuum(1)")


def empty_log(db: sqlite3.Connection) -> bool:
    """Write all into the file itself, and leave no byte in the log; returns whether nobody was in the way."""
    db.execute("PRAGMA busy_timeout = 0")
    try:
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:  # the next commit meets it too, and deals with it
        return False
    finally:
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    return not busy


def prune(db: sqlite3.Connection, before: float) -> None:
    """Forget faces that were answered before a time, in Unix seconds; the counts stay."""
    old = "outbox = ? AND site = ? AND camera = ? AND answered < ? AND state != 'waiting'"
    pictures = f"DELETE FROM pictures WHERE row IN (SELECT row FROM faces WHERE {old})"  # noqa: S608 - words of ours
    for camera in db.execute("SELECT DISTINCT outbox, site, camera FROM counts").fetchall():
        db.execute(pictures, (*camera, before))
        n = db.execute(f"DELETE FROM faces WHERE {old}", (*camera, before)).rowcount  # noqa: S608 - as above
        if n:
            db.execute(
                "INSERT INTO counts VALUES (?, ?, ?, 'pruned', ?)"
                " ON CONFLICT DO UPDATE SET n = n + excluded.n",
                (*camera, n),
            )
