"""The books as they are kept: a face is in one column at a time, and counters change with it."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from typing import NamedTuple


class Kept(NamedTuple):
    """What the books hold of a face."""

    row: int
    id: str
    sha256: str
    outbox: str
    site: str
    camera: str
    state: str
    reason: str | None
    size: int


def find(db: sqlite3.Connection, face_id: str) -> Kept | None:
    """Return what is held of a face, if there is such a face."""
    query = f"SELECT {', '.join(Kept._fields)} FROM faces WHERE id = ?"  # noqa: S608 - names of ours
    found = db.execute(query, (face_id,)).fetchone()
    return Kept(*found) if found else None


class Tally:
    """Counts of one transaction, written down with it."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, str]] = Counter()

    def add(self, outbox: str, site: str, camera: str, **names: int) -> None:
        """Add to a camera's counters."""
        for name, n in names.items():
            self._counts[outbox, site, camera, name] += n

    def shift(self, db: sqlite3.Connection, kept: Kept, state: str, reason: str | None) -> bool:
        """Take a face from one column to another; returns whether it moved. `stored` is where it stays."""
        if kept.state in (state, "stored"):
            return False
        db.execute(
            "UPDATE faces SET state = ?, reason = ?, answered = ? WHERE row = ?",
            (state, reason, time.time(), kept.row),
        )
        if kept.state != "waiting":  # that column is counted from the faces themselves
            self._count(kept, kept.state, kept.reason, -1)
        self._count(kept, state, reason, 1)
        return True

    def _count(self, kept: Kept, state: str, reason: str | None, n: int) -> None:
        names = {state: n} | ({f"{state}:{reason}": n} if reason else {})
        self.add(kept.outbox, kept.site, kept.camera, **names)

    def flush(self, db: sqlite3.Connection) -> None:
        """Write the counts down."""
        db.executemany(
            "INSERT INTO counts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(*key, n) for key, n in self._counts.items() if n],
        )
        self._counts.clear()

    def clear(self) -> None:
        """Forget the counts of a transaction that did not happen."""
        self._counts.clear()
