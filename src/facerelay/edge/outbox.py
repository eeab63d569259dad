"""The outbox: the only queue, on the edge's disk. A face is captured once it is in here.

SQLite in WAL mode, committed in groups with an fsync each (`synchronous = FULL`); locked to one process.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from facerelay.edge import schema
from facerelay.edge.claim import Claim
from facerelay.edge.schema import OutboxError
from facerelay.edge.tally import Kept, Tally, find
from facerelay.edge.writer import GroupWriter
from facerelay.face import SLUG, Sealed
from facerelay.topics import Ledger, Receipt

log = logging.getLogger(__name__)

_DAY: Final = 86_400.0
_FINAL: Final = {"stored": "stored", "erased": "erased", "expired": "dropped"}
"""What an outcome makes of a face in the books; a refusal is parked, with its picture."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A face that waits to be sent: its frozen bytes and where they go."""

    row: int
    id: str
    sha256: str
    site: str
    camera: str
    outbox: str
    data: bytes


@dataclass(frozen=True, slots=True)
class News:
    """What one commit changed: faces that came to wait, and ids that wait no longer."""

    arrived: Sequence[Waiting]
    gone: Sequence[str]


class Outbox:
    """Faces on disk until a store has answered for them, and the books of all that were captured.

    Args:
        path: the file; made where there is none.
        max_bytes: of pictures; past it refused ones go first, then the least valuable, counted as dropped.
        max_message: a larger picture is refused by `put`.
        keep_days: for how long ids of answered faces are kept for an audit.

    Raises:
        OutboxLockedError: another process has it.
        OutboxError: the file is no outbox, or cannot be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_message: int, keep_days: float = 30) -> None:
        self.path = path
        self.max_message = max_message
        self._max_bytes = max_bytes
        self._keep_days = keep_days
        self._tally = Tally()
        self._arrived: list[Waiting] = []
        self._gone: list[str] = []
        self._bytes = 0
        self.listener: Callable[[News], None] | None = None
        self._claim = Claim(path)
        try:
            self._writer = GroupWriter(
                self._connect,
                before_commit=self._tally.flush,
                after_commit=self._tell,
                after_rollback=self._forget,
            )
        except (sqlite3.Error, OutboxError) as error:
            self._claim.release()
            if isinstance(error, OutboxError):
                raise
            raise OutboxError(
                f"{path}: cannot be opened: {error}; is it an outbox, and its folder writable?"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued, and let the next process have it."""
        self._writer.close()
        self._claim.release()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            self.path.chmod(0o600)
            schema.prepare(db, self.path)
            self.id, self.run = self._claim.open(db)
            (last,) = db.execute(
                "SELECT coalesce(max(seq), 0) FROM faces WHERE outbox = ?", (self.id,)
            ).fetchone()
            (counted,) = db.execute(
                "SELECT coalesce(sum(n), 0) FROM counts WHERE outbox = ? AND name = 'captured'", (self.id,)
            ).fetchone()
            self._numbers: Iterator[int] = itertools.count(max(last, counted) + 1)
            self._prune(db)
            self._forget(db)
        except BaseException:
            db.close()
            raise
        return db

    # what capture does

    def number(self) -> int:
        """Return the next sequence number; a number whose face was never put is simply skipped."""
        return next(self._numbers)

    def put(self, sealed: Sealed, *, chosen: float) -> Future[None]:
        """Keep a face; it is captured once the future resolves.

        Args:
            sealed: the face and its frozen bytes.
            chosen: when its picture was chosen, in Unix seconds: latency counts from there.

        Raises:
            OutboxError: larger than the message limit that both brokers share, or names that are no slugs.
        """
        names = sealed.face.site, sealed.face.camera
        if not all(re.fullmatch(SLUG, name) for name in names):
            raise OutboxError(f"{'/'.join(names)}: lower case letters, digits, - and _ alone")
        if len(sealed.data) > self.max_message:
            raise OutboxError(
                f"a face of {len(sealed.data)} bytes is over limits.message_bytes = {self.max_message}"
            )
        return self._writer.submit(lambda db: self._insert(db, sealed, chosen))

    def count(self, site: str, camera: str, **names: int) -> Future[None]:
        """Add to a camera's counters (`frames`, `detections`, `bytes`, …)."""
        return self._writer.submit(lambda _: self._tally.add(self.id, site, camera, **names))

    def _insert(self, db: sqlite3.Connection, sealed: Sealed, chosen: float) -> None:
        face, size = sealed.face, len(sealed.data)
        cursor = db.execute(
            "INSERT INTO faces (outbox, run, seq, id, site, camera, sha256, key, size, quality, chosen)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (face.outbox, face.run, face.seq, face.id, face.site, face.camera,
             sealed.sha256, sealed.key, size, face.quality, chosen),
        )  # fmt: skip
        row = cursor.lastrowid or 0
        db.execute("INSERT INTO pictures VALUES (?, ?)", (row, sealed.data))
        self._tally.add(face.outbox, face.site, face.camera, captured=1)
        self._arrived.append(
            Waiting(row, face.id, sealed.sha256, face.site, face.camera, face.outbox, sealed.data)
        )
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._evict(db)

    def _evict(self, db: sqlite3.Connection) -> None:
        """Make room: the oldest picture that was refused first, then the least valuable that waits."""
        parked = db.execute(
            "SELECT row, size FROM faces JOIN pictures USING (row)"
            " WHERE state = 'refused' ORDER BY row LIMIT 1"
        ).fetchone()
        if parked:
            db.execute("DELETE FROM pictures WHERE row = ?", (parked[0],))
            self._bytes -= parked[1]
            return
        (face_id,) = db.execute(
            "SELECT id FROM faces WHERE state = 'waiting' ORDER BY quality, row LIMIT 1"
        ).fetchone()
        self._move(db, face_id, "dropped", "evicted")

    # what the relay does

    def backlog(self, after: int, most: int) -> Future[list[Waiting]]:
        """Return waiting faces in the order of their capture, from behind row `after`.

        A picture whose bytes are not those that were frozen is dropped here, counted as damaged.
        """
        return self._writer.submit(lambda db: self._backlog(db, after, most))

    def _backlog(self, db: sqlite3.Connection, after: int, most: int) -> list[Waiting]:
        rows = db.execute(
            "SELECT row, id, sha256, site, camera, outbox, data FROM faces LEFT JOIN pictures USING (row)"
            " WHERE state = 'waiting' AND row > ? ORDER BY row LIMIT ?",
            (after, most),
        ).fetchall()
        sound = []
        for row in rows:
            face = Waiting(*row)
            if face.data is not None and hashlib.sha256(face.data).hexdigest() == face.sha256:
                sound.append(face)
            else:
                log.error("face %s was damaged on the disk: dropped, and counted", face.id)
                self._move(db, face.id, "dropped", "damaged")
        return sound if sound or not rows else self._backlog(db, rows[-1][0], most)

    def answer(self, receipts: Sequence[Receipt]) -> Future[None]:
        """Act on receipts: only on those whose hash is the face's own."""
        return self._writer.submit(lambda db: self._answer(db, receipts))

    def sent(self, ids: Iterable[str]) -> Future[None]:
        """Let faces go on a broker's word alone, as `fast` and `broker` do."""
        gone = list(ids)

        def move(db: sqlite3.Connection) -> None:
            for face_id in gone:
                self._move(db, face_id, "sent", None)

        return self._writer.submit(move)

    def park(self, face_id: str, reason: str) -> Future[None]:
        """Keep a face for the operator, and send it no more."""
        return self._writer.submit(lambda db: self._move(db, face_id, "refused", reason))

    def _answer(self, db: sqlite3.Connection, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            kept = find(db, receipt.id)
            if kept is None or kept.sha256 != receipt.sha256:
                log.warning("a receipt for %s, no face of this outbox with that hash: ignored", receipt.id)
                continue
            if receipt.duplicate:
                self._tally.add(kept.outbox, kept.site, kept.camera, duplicates=1)
            outcome, _, reason = receipt.outcome.partition(":")
            if outcome == "refused":
                self._shift(db, kept, "refused", reason)
            elif outcome in _FINAL:
                self._shift(db, kept, _FINAL[outcome], "expired" if outcome == "expired" else None)

    # the books

    def _move(self, db: sqlite3.Connection, face_id: str, state: str, reason: str | None) -> None:
        if kept := find(db, face_id):
            self._shift(db, kept, state, reason)

    def _shift(self, db: sqlite3.Connection, kept: Kept, state: str, reason: str | None) -> None:
        """Take a face to another column, and its picture off the disk unless somebody may want to look."""
        if not self._tally.shift(db, kept, state, reason):
            return
        if kept.state == "waiting":
            self._gone.append(kept.id)
        if state != "refused" and db.execute("DELETE FROM pictures WHERE row = ?", (kept.row,)).rowcount:
            self._bytes -= kept.size

    def ledger(self) -> Future[Ledger]:
        """Return this outbox's books as they are on disk."""
        return self._writer.submit(self._ledger)

    def _ledger(self, db: sqlite3.Connection) -> Ledger:
        self._tally.flush(db)  # jobs before this one, in the same transaction, count too
        return schema.ledger(db, self.id)

    def waiting(self) -> Future[int]:
        """Return how many faces wait, inherited ones included."""
        return self._writer.submit(
            lambda db: int(db.execute("SELECT count(*) FROM faces WHERE state = 'waiting'").fetchone()[0])
        )

    def owners(self) -> Future[list[tuple[str, str]]]:
        """Return the (site, outbox) pairs whose faces wait here: where receipts may come from."""
        query = "SELECT DISTINCT site, outbox FROM faces WHERE state = 'waiting'"
        return self._writer.submit(lambda db: db.execute(query).fetchall())

    def _prune(self, db: sqlite3.Connection) -> None:
        before = time.time() - self._keep_days * _DAY
        db.execute("DELETE FROM pictures WHERE row IN (SELECT row FROM faces WHERE answered < ?)", (before,))
        db.execute("DELETE FROM faces WHERE answered < ? AND state != 'waiting'", (before,))

    # the writer's hooks

    def _tell(self) -> None:
        news = News(self._arrived, self._gone)
        self._arrived, self._gone = [], []
        if self.listener and (news.arrived or news.gone):
            self.listener(news)

    def _forget(self, db: sqlite3.Connection) -> None:
        """Go back to what is on disk, after a transaction that is not."""
        self._tally.clear()
        self._arrived, self._gone = [], []
        (self._bytes,) = db.execute(
            "SELECT coalesce(sum(size), 0) FROM faces WHERE state IN ('waiting', 'refused')"
            " AND row IN (SELECT row FROM pictures)"
        ).fetchone()
