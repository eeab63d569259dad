"""What is done to the outbox's tables, in the thread that owns them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import ValidationError

from facerelay.edge import ageing, bulk, erasing, parked, reading, schema
from facerelay.edge.reserve import Reserve
from facerelay.edge.tally import Kept, Tally, find
from facerelay.edge.waiting import SELECT_WAITING, News, Waiting, is_sound
from facerelay.erasures import Erasure
from facerelay.face import Frozen
from facerelay.messages import Ledger, Receipt
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_FINAL: Final = {"stored": "stored", "erased": "erased", "expired": "dropped"}
"""What an outcome makes of a face in the books; a refusal is parked, with its picture."""

_KNOWN: Final = 4096
"""Waiting faces whose rows are known without a look: more than a window holds."""

_FACES: Final = "faces (row, outbox, run, seq, id, site, camera, sha256, key, size, quality, chosen)"
_LAST_ROW: Final = (
    "SELECT max(coalesce((SELECT max(row) FROM faces), 0), coalesce((SELECT max(row) FROM pictures), 0))"
)


class Jobs:
    """Inserts, moves and reads faces, each in a transaction of the caller's.

    Args:
        max_bytes: of pictures; past it refused ones go first, then the least valuable, counted as dropped.
        reserve: says whether there is room for another.

    Attributes:
        wiped: pictures were erased, or were past their time: no byte is to stay in the log.
    """

    def __init__(self, *, max_bytes: int, reserve: Reserve) -> None:
        self._max_bytes = max_bytes
        self._reserve = reserve
        self._arrived: list[Waiting] = []
        self._gone: list[str] = []
        self._again: int | None = None
        self._new: list[tuple[Waiting, tuple[object, ...]]] = []
        self._row = self._kept_row = 0
        self._known: dict[str, Kept] = {}
        self._patience = ageing.Patience()
        self.wiped = False
        self.tally = Tally()
        self._seldom = Seldom(log)

    def load(self, db: sqlite3.Connection) -> None:
        """Begin with what is in a file that was just opened."""
        self.tally.load(db)
        self.undo()
        (self._row,) = db.execute(_LAST_ROW).fetchone()
        self._kept_row = self._row

    def done(self) -> News:
        """Return what a transaction has changed, now that it is on disk."""
        news = News(self._arrived, self._gone, self._again)
        self._arrived, self._gone, self._again = [], [], None
        self._kept_row = self._row
        self.tally.done()
        return news

    def undo(self) -> None:
        """Forget what a transaction has changed: it did not happen."""
        self.tally.clear()
        self._arrived, self._gone, self._new, self._again = [], [], [], None
        self._known.clear()
        self._row = self._kept_row
        self._patience.forget()

    def insert(self, db: sqlite3.Connection, frozen: Frozen, chosen: float) -> None:
        """Keep a face; it is written with others at the next `flush`."""
        face, size = frozen.face, len(frozen.data)
        self._reserve.admit(db, size)
        self._row += 1
        waiting = Waiting(
            self._row, face.id, frozen.sha256, face.site, face.camera, face.outbox, frozen.data, face.quality
        )
        values = (
            self._row, face.outbox, face.run, face.seq, face.id, face.site, face.camera,
            frozen.sha256, frozen.key, size, face.quality, chosen,
        )  # fmt: skip
        self._new.append((waiting, values))
        self.tally.captured(face.outbox, face.site, face.camera, size)
        if self._reserve.spent:
            self.flush(db)  # the next one is admitted by the room that this one leaves

    def flush(self, db: sqlite3.Connection) -> None:
        """Write the faces that came, and make room for them within the budget; before any other job."""
        if not self._new:
            return
        new, self._new = self._new, []
        bulk.insert(db, _FACES, [values for _, values in new])
        bulk.insert(db, "pictures (row, data)", [(face.row, face.data) for face, _ in new])
        self._arrived += [face for face, _ in new]
        self._remember(face for face, _ in new)
        while self.tally.bytes > self._max_bytes:
            self._evict(db)

    def _remember(self, faces: Iterable[Waiting]) -> None:
        """Know what waits without a look, for it is what will be asked for next; so many, and no more."""
        for face in faces:
            if len(self._known) >= _KNOWN:
                del self._known[next(iter(self._known))]
            self._known[face.id] = Kept(
                face.row, face.id, face.sha256, face.outbox, face.site, face.camera,
                "waiting", None, len(face.data),
            )  # fmt: skip

    def _evict(self, db: sqlite3.Connection) -> None:
        """Make room: the oldest picture that was refused first, then the least valuable that waits."""
        parked = db.execute(
            "SELECT row, size FROM faces JOIN pictures USING (row)"
            " WHERE state = 'refused' ORDER BY row LIMIT 1"
        ).fetchone()
        if parked:
            db.execute("DELETE FROM pictures WHERE row = ?", (parked[0],))
            self.tally.picture(-parked[1])
            return
        (face_id,) = db.execute(
            "SELECT id FROM faces WHERE state = 'waiting' ORDER BY CAST(quality * 16 AS INTEGER), row LIMIT 1"
        ).fetchone()
        self.move(db, face_id, "dropped", "evicted")

    def backlog(self, db: sqlite3.Connection, after: int, most: int) -> list[Waiting]:
        """Return waiting faces from behind a row; a damaged picture is dropped, and counted.

        Raises:
            BrokenError: a row is damaged.
        """
        self.flush(db)
        rows = db.execute(f"{SELECT_WAITING} AND row > ? ORDER BY row LIMIT ?", (after, most)).fetchall()
        sound = self._sound(db, rows)
        return sound if sound or not rows else self.backlog(db, rows[-1][0], most)

    def those(self, db: sqlite3.Connection, rows: Sequence[int]) -> list[Waiting]:
        """Return what waits in some rows; a damaged picture is dropped, and counted.

        Raises:
            BrokenError: a row is damaged.
        """
        self.flush(db)
        places = ", ".join("?" * len(rows))
        return self._sound(
            db, db.execute(f"{SELECT_WAITING} AND row IN ({places}) ORDER BY row", rows).fetchall()
        )

    def _sound(self, db: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> list[Waiting]:
        sound = []
        for row in rows:
            face = Waiting(*row)
            if is_sound(face):
                sound.append(face)
            elif find(db, face.id):
                log.error("face %s was damaged on the disk: dropped, and counted", face.id)
                self.move(db, face.id, "dropped", "damaged")
            else:
                raise schema.BrokenError("a face cannot be found by its id")
        self._remember(sound)
        return sound

    def expire(self, db: sqlite3.Connection, before: float, most: int) -> int:
        """Drop what waits and was chosen before a time; returns how many, of `most`."""
        self.flush(db)
        old = self._patience.due(db, before, most)
        for face_id in old:
            self.move(db, face_id, "dropped", "expired")
        return len(old)

    def reclock(self, db: sqlite3.Connection, run: str, *, now: float, by: float) -> None:
        """Keep the age of a run's pictures where the clock was set; see `ageing.reclock`."""
        self.flush(db)
        ageing.reclock(db, run, now=now, by=by)
        self._patience.forget()

    def clear_old(self, db: sqlite3.Connection, before: float, most: int) -> int:
        """Delete pictures that were chosen before a time, whatever became of their faces; returns how many.

        All pictures are looked at, since a clock that was set may have brought them out of order. A face
        that waited is dropped; one that was refused stays so in the books.
        """
        self.flush(db)
        rows = ageing.pictures(db, before, most)
        self.wiped |= bool(rows)
        for row, face_id, state, size in rows:
            if state == "waiting":
                self.move(db, face_id, "dropped", "expired")
            else:
                db.execute("DELETE FROM pictures WHERE row = ?", (row,))
                self.tally.picture(-size)
        return len(rows)

    def erase(self, db: sqlite3.Connection, rules: Sequence[Erasure], after: int, most: int) -> list[Kept]:
        """Delete pictures that rules cover, from behind a row, and count their faces as erased."""
        self.flush(db)
        found = erasing.find(db, rules, after, most)
        for kept in found:
            self._shift(db, kept, "erased", None)
        return found

    def resend(
        self, db: sqlite3.Connection, reason: str | None, owner: tuple[str, str] | None, after: int, most: int
    ) -> list[Kept]:
        """Have parked faces wait again, from behind a row; returns them, `most` at most.

        Args:
            db: in a transaction.
            reason: why they were refused; None takes all.
            owner: the outbox and site that they are of; None takes all.
            after: the row.
            most: how many.
        """
        self.flush(db)
        found = parked.find(db, reason, owner, after, most)
        if found:
            self.tally.unpark(db, found)
            self._again = min(found[0].row, self._again or found[0].row)
            self._patience.forget()
        return found

    def answer(self, db: sqlite3.Connection, receipts: Sequence[Receipt]) -> None:
        """Act on receipts: only on those whose hash is the face's own."""
        self.flush(db)
        stored: dict[str, Kept] = {}
        for receipt in receipts:
            if receipt.id in stored:
                self._let_go(db, stored, "stored")
            kept = self._known.get(receipt.id) or find(db, receipt.id)
            if kept is None or kept.sha256 != receipt.sha256:
                form = "a receipt for %s, no face of this outbox with that hash: ignored"
                self._seldom.say(logging.WARNING, "unknown", form, receipt.id)
                continue
            if receipt.duplicate:
                self.tally.add(kept.outbox, kept.site, kept.camera, duplicates=1)
            outcome, _, reason = receipt.outcome.partition(":")
            if outcome == "stored" and receipt.id in self._known:
                stored[receipt.id] = kept
            elif outcome == "refused":
                self._shift(db, kept, "refused", reason)
            elif outcome in _FINAL:
                self._shift(db, kept, _FINAL[outcome], "expired" if outcome == "expired" else None)
        self._let_go(db, stored, "stored")

    def sent(self, db: sqlite3.Connection, ids: Iterable[str]) -> None:
        """Let faces go on a broker's word alone."""
        self.flush(db)
        known = {face_id: kept for face_id in ids if (kept := self._known.get(face_id))}
        for face_id in ids:
            if face_id not in known:
                self.move(db, face_id, "sent", None)
        self._let_go(db, known, "sent")

    def move(self, db: sqlite3.Connection, face_id: str, state: str, reason: str | None) -> None:
        """Take a face to another column, if there is such a face."""
        self.flush(db)
        if kept := self._known.get(face_id) or find(db, face_id):
            self._shift(db, kept, state, reason)

    def _let_go(self, db: sqlite3.Connection, waiting: dict[str, Kept], state: str) -> None:
        """Take faces that wait to a column without pictures, all at once; none is left in `waiting`."""
        self.tally.shift_all(db, waiting.values(), state)
        bulk.where(db, "DELETE FROM pictures", [kept.row for kept in waiting.values()])
        for kept in waiting.values():
            del self._known[kept.id]
            self._gone.append(kept.id)
            self.tally.picture(-kept.size)
        waiting.clear()

    def _shift(self, db: sqlite3.Connection, kept: Kept, state: str, reason: str | None) -> None:
        """Take a face to another column, and its picture off the disk unless somebody may want to look."""
        self._known.pop(kept.id, None)
        self.wiped |= state == "erased" or reason == "expired"
        if not self.tally.shift(db, kept, state, reason):
            return
        if kept.state == "waiting":
            self._gone.append(kept.id)
        if state != "refused" and db.execute("DELETE FROM pictures WHERE row = ?", (kept.row,)).rowcount:
            self.tally.picture(-kept.size)

    def ledger(self, db: sqlite3.Connection, outbox: str) -> Ledger:
        """Return an outbox's books, with the jobs before this one in the same transaction.

        Raises:
            BrokenError: what is on disk cannot be read as books.
        """
        self.flush(db)
        self.tally.flush(db)
        waiting = {
            (site, camera): n for (owner, site, camera), n in self.tally.waiting.items() if owner == outbox
        }
        try:
            return reading.ledger(db, outbox, waiting=waiting)
        except ValidationError as error:
            raise schema.BrokenError("its books cannot be read") from error
