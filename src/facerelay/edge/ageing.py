"""Which pictures in the outbox are past their time, and what becomes of their age when the clock is set."""

from __future__ import annotations

import itertools
import sqlite3

Aged = tuple[int, str, str, int]
"""Row, id, state and size of a face whose picture is past its time."""


class Patience:
    """Finds faces that waited too long, without looking twice at those that are young."""

    def __init__(self) -> None:
        self._behind = 0

    def forget(self) -> None:
        """Begin anew: what was found may not have been done, or ages have changed."""
        self._behind = 0

    def due(self, db: sqlite3.Connection, before: float, most: int) -> list[str]:
        """Return the ids of those chosen before a time, `most` at most, in the order of their rows."""
        rows = db.execute(
            "SELECT row, id, chosen FROM faces WHERE state = 'waiting' AND row > ? ORDER BY row LIMIT ?",
            (self._behind, most),
        ).fetchall()
        old = [face_id for _, face_id, _ in itertools.takewhile(lambda row: row[2] < before, rows)]
        if len(old) < len(rows):
            self._behind = rows[len(old)][0] - 1
        elif len(rows) < most:
            (self._behind,) = db.execute("SELECT coalesce(max(row), 0) FROM faces").fetchone()
        return old


def pictures(db: sqlite3.Connection, before: float, most: int) -> list[Aged]:
    """Return faces with a picture that was chosen before a time, in any state; all pictures are looked at."""
    return db.execute(
        "SELECT faces.row, id, state, size FROM pictures CROSS JOIN faces USING (row)"
        " WHERE chosen < ? LIMIT ?",
        (before, most),
    ).fetchall()


def reclock(db: sqlite3.Connection, run: str, *, now: float, by: float) -> None:
    """Count pictures of a run that were chosen before the clock was set from when they truly were.

    Args:
        db: the outbox's.
        run: the opening of the outbox that numbered them; what is from before it has its time by another
            clock, perhaps a right one.
        now: Unix seconds, by the new clock.
        by: seconds by which it was set, forward or (less than 0) back.
    """
    wrong = "chosen < ?" if by > 0 else "chosen > ?"
    db.execute(
        "UPDATE faces SET chosen = chosen + ?"  # noqa: S608 - words of ours and `?`
        f" WHERE row IN (SELECT row FROM pictures) AND run = ? AND {wrong}",
        (by, run, now - by / 2),
    )
