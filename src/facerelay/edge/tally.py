"""The books as they are kept: a face is in one column at a time, and counters change with it."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from facerelay.edge import bulk
from facerelay.edge.schema import STATES, BrokenError


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
    """Return what is held of a face, if there is such a face.

    Raises:
        BrokenError: it is in no column.
    """
    query = f"SELECT {', '.join(Kept._fields)} FROM faces WHERE id = ?"  # noqa: S608 - names of ours
    found = db.execute(query, (face_id,)).fetchone()
    if found is None:
        return None
    kept = Kept(*found)
    if kept.state not in STATES:
        raise BrokenError("a face's row is damaged")
    return kept


class Tally:
    """Counts of one transaction, written down with it; and what waits, counted without a look at the disk.

    Attributes:
        waiting: faces that wait, by (outbox, site, camera).
        bytes: of the pictures on disk.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, str]] = Counter()
        self.waiting: Counter[tuple[str, str, str]] = Counter()
        self.bytes = 0
        self._came: Counter[tuple[str, str, str]] = Counter()
        self._came_bytes = 0

    def load(self, db: sqlite3.Connection) -> None:
        """Count what waits; once, for it grows with the backlog."""
        self.clear()
        self.waiting.clear()
        self.bytes = 0
        names = "outbox, site, camera"
        query = f"SELECT {names}, count(*), sum(size) FROM faces WHERE state = 'waiting' GROUP BY {names}"  # noqa: S608 - as above
        for outbox, site, camera, n, size in db.execute(query):
            self.waiting[outbox, site, camera] = n
            self.bytes += size
        (parked,) = db.execute(
            "SELECT coalesce(sum(size), 0) FROM faces WHERE state = 'refused'"
            " AND row IN (SELECT row FROM pictures)"
        ).fetchone()
        self.bytes += parked

    def add(self, outbox: str, site: str, camera: str, **names: int) -> None:
        """Add to a camera's counters."""
        for name, n in names.items():
            self._counts[outbox, site, camera, name] += n

    def captured(self, outbox: str, site: str, camera: str, size: int) -> None:
        """Count a face that came to wait, and its picture."""
        self.add(outbox, site, camera, captured=1)
        self._wait(outbox, site, camera, 1)
        self.picture(size)

    def picture(self, size: int) -> None:
        """Count bytes of pictures that came, or that went."""
        self.bytes += size
        self._came_bytes += size

    def shift(self, db: sqlite3.Connection, kept: Kept, state: str, reason: str | None) -> bool:
        """Take a face from one column to another; returns whether it moved. `stored` is where it stays."""
        if kept.state in (state, "stored"):
            return False
        db.execute(
            "UPDATE faces SET state = ?, reason = ?, answered = ? WHERE row = ?",
            (state, reason, time.time(), kept.row),
        )
        if kept.state == "waiting":  # that column is counted from the faces themselves
            self._wait(kept.outbox, kept.site, kept.camera, -1)
        else:
            self._count(kept, kept.state, kept.reason, -1)
        self._count(kept, state, reason, 1)
        return True

    def unpark(self, db: sqlite3.Connection, parked: Iterable[Kept]) -> None:
        """Have refused faces wait again; their pictures are there, and counted."""
        again = list(parked)
        update = "UPDATE faces SET state = 'waiting', reason = NULL, answered = NULL"
        bulk.where(db, update, [kept.row for kept in again])
        for kept in again:
            self._count(kept, kept.state, kept.reason, -1)
            self._wait(kept.outbox, kept.site, kept.camera, 1)

    def shift_all(self, db: sqlite3.Connection, waiting: Iterable[Kept], state: str) -> None:
        """Take faces that wait to one column, all at once."""
        update = "UPDATE faces SET state = ?, reason = NULL, answered = ?"
        moved = list(waiting)
        bulk.where(db, update, [kept.row for kept in moved], (state, time.time()))
        for kept in moved:
            self._wait(kept.outbox, kept.site, kept.camera, -1)
            self._counts[kept.outbox, kept.site, kept.camera, state] += 1

    def _wait(self, outbox: str, site: str, camera: str, n: int) -> None:
        self.waiting[outbox, site, camera] += n
        self._came[outbox, site, camera] += n

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

    def done(self) -> None:
        """Keep what a transaction has changed: it is on disk."""
        self._came.clear()
        self._came_bytes = 0

    def clear(self) -> None:
        """Forget what a transaction has changed: it did not happen."""
        self._counts.clear()
        self.waiting.subtract(self._came)
        self.bytes -= self._came_bytes
        self.done()
