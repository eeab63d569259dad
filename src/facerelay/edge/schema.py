"""The outbox's tables, and the books read from them: by the outbox itself, or by anybody beside it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import ItemsView, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pydantic import ValidationError

from facerelay.topics import Account, Latency, Ledger

VERSION: Final = 1
COLUMNS: Final = ("stored", "sent", "dropped", "refused", "erased")
STATES: Final = frozenset({"waiting", *COLUMNS})
"""What a captured face may be, in the books."""

PAGE: Final = 4096
_LOG_BYTES: Final = 8_388_608
"""What the write-ahead log keeps of the disk after a flood, at most."""

_SPARE_PAGES: Final = 2560
_SHRINK_PAGES: Final = 500

_TABLES_OF: Final = "SELECT name, sql FROM sqlite_schema WHERE type = 'table'"
_LATE: Final = 10_000
"""Faces that were given their numbers before another, and put after it, at most."""

_LATENCIES: Final = 10_000
"""Percentiles are those of a camera's last so many answers."""

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
CREATE INDEX IF NOT EXISTS faces_worth ON faces (CAST(quality * 64 AS INTEGER), row)
  WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS faces_refused ON faces (row) WHERE state = 'refused';
CREATE INDEX IF NOT EXISTS faces_answered ON faces (outbox, site, camera, answered, chosen, state)
  WHERE answered IS NOT NULL;
"""
"""No query reads rows in vain, however many were answered or wait; and each index grows at few places."""

_FORMER: Final = ("faces_waiting", "faces_value", "faces_camera")
"""Indices of earlier versions."""


class BrokenError(sqlite3.DatabaseError):
    """What is in the file cannot be right, though SQLite reads it."""


class OutboxError(Exception):
    """The outbox cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A face in the books: what an audit looks for in the bucket."""

    id: str
    sha256: str
    key: str
    state: str
    reason: str | None


def create(db: sqlite3.Connection) -> None:
    """Make the tables in a new file, which will give room back to the disk when it has much to spare."""
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


def open_books(path: Path) -> sqlite3.Connection:
    """Open an outbox to read its books; its owner may be at work meanwhile.

    Raises:
        OutboxError: no such file, or not an outbox.
    """
    if not path.exists():
        raise OutboxError(f"{path}: no such outbox; `facerelay capture` makes it, or set outbox.path")
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise OutboxError(f"{path}: cannot be read as an outbox: {error}") from error
    if version != VERSION:
        db.close()
        raise OutboxError(f"{path}: not an outbox of version {VERSION} (found {version})")
    db.execute("BEGIN")  # one snapshot for all that is read
    return db


def owner(db: sqlite3.Connection) -> str:
    """Return the outbox's id."""
    (value,) = db.execute("SELECT value FROM meta WHERE name = 'outbox'").fetchone()
    return str(value)


def ledger(
    db: sqlite3.Connection,
    outbox: str | None = None,
    *,
    waiting: Mapping[tuple[str, str], int] | None = None,
) -> Ledger:
    """Return the books of an outbox: its own, or those it inherited from the file it was copied from.

    Args:
        db: the file.
        outbox: whose; None for the file's own.
        waiting: how many faces of each (site, camera) wait, where that was counted already.
    """
    outbox = outbox or owner(db)
    rows = db.execute("SELECT site, camera, name, n FROM counts WHERE outbox = ?", (outbox,))
    tallies: dict[tuple[str, str], dict[str, int]] = {}
    for site, camera, name, n in rows:
        tallies.setdefault((site, camera), {})[name] = n
    if waiting is None:
        waiting = _waiting(db, outbox)
    for (site, camera), n in waiting.items():
        tallies.setdefault((site, camera), {})["waiting"] = n
    cameras = {
        f"{site}/{camera}": _account(tally, _latency(db, outbox, site, camera))
        for (site, camera), tally in sorted(tallies.items())
    }
    return Ledger(outbox=outbox, cameras=cameras)


def _waiting(db: sqlite3.Connection, outbox: str) -> Mapping[tuple[str, str], int]:
    query = "SELECT site, camera, count(*) FROM faces WHERE state = 'waiting' AND outbox = ? GROUP BY 1, 2"
    return {(site, camera): n for site, camera, n in db.execute(query, (outbox,))}


def _account(tally: Mapping[str, int], latency: Latency) -> Account:
    plain = {name: n for name, n in tally.items() if name in Account.model_fields}
    reasons: Counter[str] = Counter()
    for name, n in tally.items():
        column, _, reason = name.partition(":")
        if reason and n:
            reasons[f"gate-{reason}" if column == "gate" else reason] += n
    return Account(latency_ms=latency, reasons=dict(reasons), **plain)


def _latency(db: sqlite3.Connection, outbox: str, site: str, camera: str) -> Latency:
    """Nearest-rank percentiles of the time from the choice of a picture to its answer.

    Answers older than the choice are left out: the clock was set back between the two.
    """
    times = sorted(
        (answered - chosen) * 1000
        for answered, chosen in db.execute(
            "SELECT answered, chosen FROM faces WHERE outbox = ? AND site = ? AND camera = ?"
            " AND state IN ('stored', 'sent') AND answered >= chosen ORDER BY answered DESC LIMIT ?",
            (outbox, site, camera, _LATENCIES),
        )
    )
    if not times:
        return Latency()
    return Latency(
        p50=round(times[(len(times) - 1) // 2], 1), p99=round(times[-1 - (len(times) - 1) // 100], 1)
    )


def inherited(db: sqlite3.Connection) -> list[str]:
    """Return the outboxes whose faces came with the file when it was copied."""
    rows = db.execute("SELECT DISTINCT outbox FROM counts WHERE outbox != ?", (owner(db),))
    return [outbox for (outbox,) in rows]


def last_number(db: sqlite3.Connection, outbox: str) -> int:
    """Return the highest number that an outbox has given to a face, as far as the file knows."""
    (last,) = db.execute(
        "SELECT coalesce(max(seq), 0) FROM"
        " (SELECT seq FROM faces WHERE outbox = ? ORDER BY row DESC LIMIT ?)",
        (outbox, _LATE),
    ).fetchone()
    (counted,) = db.execute(
        "SELECT coalesce(sum(n), 0) FROM counts WHERE outbox = ? AND name = 'captured'", (outbox,)
    ).fetchone()
    return int(max(last, counted))


def shrink(db: sqlite3.Connection) -> None:
    """Give some pages back to the disk, where a quarter of the file and more is spare."""
    (spare,), (pages,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count")
    )
    if spare > max(_SPARE_PAGES, pages // 4):
        for _ in range(_SHRINK_PAGES):  # each statement is stepped once, and that is a page
            db.execute("PRAGMA incremental_vacuum(1)")


def check(db: sqlite3.Connection, waiting: Mapping[tuple[str, str, str], int]) -> None:
    """See that every outbox's books can be read, and close.

    Args:
        db: the file.
        waiting: how many faces wait, by (outbox, site, camera).

    Raises:
        BrokenError: they cannot, or don't.
    """
    owners = {outbox for (outbox,) in db.execute("SELECT DISTINCT outbox FROM counts")}
    for outbox in owners | {outbox for outbox, _, _ in waiting}:
        wait = {(site, camera): n for (owner, site, camera), n in waiting.items() if owner == outbox}
        try:
            books = ledger(db, outbox, waiting=wait)
        except ValidationError as error:
            raise BrokenError("its books cannot be read") from error
        if not books.closes:
            raise BrokenError("its books do not close")


def last_key(db: sqlite3.Connection) -> str | None:
    """Return the key of the face that was answered last."""
    last = (
        db.execute(
            "SELECT answered, key FROM faces WHERE outbox = ? AND site = ? AND camera = ?"
            " AND state IN ('stored', 'sent') AND answered IS NOT NULL ORDER BY answered DESC LIMIT 1",
            camera,
        ).fetchone()
        for camera in db.execute("SELECT DISTINCT outbox, site, camera FROM counts").fetchall()
    )
    return max((found for found in last if found), default=(0, None))[1]


def prune(db: sqlite3.Connection, before: float) -> None:
    """Forget faces that were answered before a time, in Unix seconds; the counts stay."""
    old = "outbox = ? AND site = ? AND camera = ? AND answered < ? AND state != 'waiting'"
    pictures = f"DELETE FROM pictures WHERE row IN (SELECT row FROM faces WHERE {old})"  # noqa: S608 - words of ours
    for camera in db.execute("SELECT DISTINCT outbox, site, camera FROM counts").fetchall():
        db.execute(pictures, (*camera, before))
        db.execute(f"DELETE FROM faces WHERE {old}", (*camera, before))  # noqa: S608 - as above


def entries(
    db: sqlite3.Connection, outbox: str, states: tuple[str, ...], *, since: float = 0
) -> Iterator[Entry]:
    """Yield the faces in some states, in the order of their capture.

    Args:
        db: from `open_books`.
        outbox: whose faces.
        states: `waiting`, `stored`, `sent`, `refused`, `dropped`, `erased`.
        since: leaves out faces chosen before this time, in Unix seconds.
    """
    marks = ",".join("?" * len(states))
    chosen = f"outbox = ? AND chosen >= ? AND state IN ({marks})"
    query = f"SELECT id, sha256, key, state, reason FROM faces WHERE {chosen} ORDER BY row"  # noqa: S608 - only `?`
    for row in db.execute(query, (outbox, since, *states)):
        yield Entry(*row)
