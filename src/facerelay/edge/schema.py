"""The outbox's tables, and the books read from them: by the outbox itself, or by anybody beside it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from facerelay.topics import Account, Latency, Ledger

VERSION: Final = 1
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
CREATE INDEX faces_waiting ON faces (outbox, site, camera) WHERE state = 'waiting';
CREATE INDEX faces_value ON faces (quality, row) WHERE state = 'waiting';
CREATE INDEX faces_refused ON faces (row) WHERE state = 'refused';
CREATE INDEX faces_camera ON faces (outbox, site, camera, row);
"""


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


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables in a new file, and check the version of an old one.

    Raises:
        OutboxError: another program's file, or a later version's.
    """
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version == 0 and tables == 0:
        db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise OutboxError(
            f"{path}: not an outbox of version {VERSION} (found {version}): choose another file"
        )


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


def ledger(db: sqlite3.Connection, outbox: str | None = None) -> Ledger:
    """Return the books of an outbox: its own, or those it inherited from the file it was copied from."""
    outbox = outbox or owner(db)
    rows = db.execute("SELECT site, camera, name, n FROM counts WHERE outbox = ?", (outbox,))
    tallies: dict[tuple[str, str], dict[str, int]] = {}
    for site, camera, name, n in rows:
        tallies.setdefault((site, camera), {})[name] = n
    waiting = db.execute(
        "SELECT site, camera, count(*) FROM faces WHERE state = 'waiting' AND outbox = ? GROUP BY 1, 2",
        (outbox,),
    )
    for site, camera, n in waiting:
        tallies.setdefault((site, camera), {})["waiting"] = n
    cameras = {
        f"{site}/{camera}": _account(tally, _latency(db, outbox, site, camera))
        for (site, camera), tally in sorted(tallies.items())
    }
    return Ledger(outbox=outbox, cameras=cameras)


def _account(tally: Mapping[str, int], latency: Latency) -> Account:
    plain = {name: n for name, n in tally.items() if name in Account.model_fields}
    reasons: Counter[str] = Counter()
    for name, n in tally.items():
        column, _, reason = name.partition(":")
        if reason and n:
            reasons[f"gate-{reason}" if column == "gate" else reason] += n
    return Account(latency_ms=latency, reasons=dict(reasons), **plain)


def _latency(db: sqlite3.Connection, outbox: str, site: str, camera: str) -> Latency:
    """Nearest-rank percentiles of the time from the choice of a picture to its answer."""
    times = sorted(
        (answered - chosen) * 1000
        for answered, chosen in db.execute(
            "SELECT answered, chosen FROM faces WHERE outbox = ? AND site = ? AND camera = ?"
            " AND state IN ('stored', 'sent') ORDER BY row DESC LIMIT ?",
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


def last_key(db: sqlite3.Connection) -> str | None:
    """Return the key of the face that was answered last."""
    found = db.execute(
        "SELECT key FROM faces WHERE state IN ('stored', 'sent') ORDER BY row DESC LIMIT 1"
    ).fetchone()
    return str(found[0]) if found else None


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
