"""The outbox: the only queue, on the edge's disk. A face is captured once it is in here.

SQLite in WAL mode, committed in groups with an fsync each (`synchronous = FULL`); locked to one process.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Literal, Self

from facerelay.edge import audited, erasing, reading, schema
from facerelay.edge.jobs import Jobs
from facerelay.edge.reserve import means_full
from facerelay.edge.schema import OutboxError
from facerelay.edge.shelf import Shelf
from facerelay.edge.tally import Kept
from facerelay.edge.waiting import News, Waiting
from facerelay.edge.writer import GroupWriter
from facerelay.erasures import Erasure
from facerelay.face import SLUG, Frozen
from facerelay.messages import Ledger, Receipt

__all__ = ["News", "Outbox", "Waiting"]

_DAY: Final = 86_400.0
_SHRINK_EVERY_S: Final = 1.0
_EMPTY_EVERY_S: Final = 1.0
_NOTED: Final = "SELECT max(value) FROM meta WHERE name = ?"


class Outbox:
    """Faces on disk until a store has answered for them, and the books of all that were captured.

    Args:
        path: the file; made where there is none.
        max_bytes: of pictures; past it refused ones go first, then the least valuable, counted as dropped.
        max_message: a larger picture is refused by `put`.
        keep_days: for how long ids of answered faces are kept for an audit.
        sync: `full`, or `normal`: a power cut may take the last commits, a crash of this process none.

    Raises:
        OutboxLockedError: another process has it.
        OutboxError: the file is no outbox, or cannot be opened. A damaged one is replaced, see `rescue`.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        max_message: int,
        keep_days: float = 30,
        sync: Literal["full", "normal"] = "full",
    ) -> None:
        self.path = path
        self.max_message = max_message
        self._keep_days = keep_days
        self.listener: Callable[[News], None] | None = None
        self._shrunk_at = self._emptied_at = 0.0
        self._shelf = Shelf(path, sync=sync)
        self._reserve = self._shelf.reserve
        self._jobs = Jobs(max_bytes=max_bytes, reserve=self._reserve)
        try:
            self._writer = GroupWriter(
                self._connect,
                before_commit=self._finish,
                after_commit=self._tell,
                after_rollback=self._undo,
                mend=self._mend,
            )
        except BaseException as error:
            self._shelf.close()
            if not isinstance(error, (sqlite3.Error, OSError)):
                raise
            raise OutboxError(
                f"{path}: cannot be opened: {error}; is it an outbox, its folder writable, and is there room?"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is queued, and let the next process have it."""
        self._writer.close()
        self._shelf.close()

    @property
    def bytes(self) -> int:
        """Of the pictures on disk."""
        return self._jobs.tally.bytes

    @property
    def id(self) -> str:
        """The outbox's: random, made with the file."""
        return self._shelf.id

    @property
    def run(self) -> str:
        """This opening's."""
        return self._shelf.run

    def _connect(self) -> sqlite3.Connection:
        self._db = self._shelf.open(self._begin)
        self._reserve.make()
        self._jobs.wiped = True  # in a log of before, perhaps
        self._empty_log()
        return self._db

    def _begin(self, db: sqlite3.Connection) -> None:
        """Begin with a file that was just opened."""
        db.execute("DELETE FROM meta WHERE name GLOB ?", (f"{reading.DARK}*",))  # whoever knew is gone
        schema.prune(db, time.time() - self._keep_days * _DAY)
        self._jobs.load(db)
        reading.check(db, self._jobs.tally.waiting)
        self._numbers: Iterator[int] = itertools.count(reading.last_number(db, self.id) + 1)

    # what capture does

    def number(self) -> int:
        """Return the next sequence number; a number whose face was never put is simply skipped."""
        return next(self._numbers)

    def put(self, frozen: Frozen, *, chosen: float) -> Future[None]:
        """Keep a face; it is captured once the future resolves.

        Args:
            frozen: the face and its frozen bytes.
            chosen: when its picture was chosen, in Unix seconds: latency counts from there.

        Raises:
            OutboxError: larger than the message limit that both brokers share, or names that are no slugs.
        """
        names = frozen.face.site, frozen.face.camera
        if not all(re.fullmatch(SLUG, name) for name in names):
            raise OutboxError(f"{'/'.join(names)}: lower case letters, digits, - and _ alone")
        if len(frozen.data) > self.max_message:
            raise OutboxError(
                f"a face of {len(frozen.data)} bytes is over limits.message_bytes = {self.max_message}"
            )
        return self._writer.submit(lambda db: self._jobs.insert(db, frozen, chosen))

    def count(self, site: str, camera: str, **names: int) -> Future[None]:
        """Add to a camera's counters (`frames`, `detections`, `bytes`, …)."""
        return self._writer.submit(lambda _: self._jobs.tally.add(self.id, site, camera, **names))

    # what the relay does

    def backlog(self, after: int, most: int) -> Future[list[Waiting]]:
        """Return waiting faces in the order of their capture, from behind row `after`.

        A picture whose bytes are not those that were frozen is dropped here, counted as damaged.
        """
        return self._writer.submit(lambda db: self._jobs.backlog(db, after, most))

    def those(self, rows: Sequence[int]) -> Future[list[Waiting]]:
        """Return what waits in some rows, in the order of their capture; as for damage, see `backlog`."""
        return self._writer.submit(lambda db: self._jobs.those(db, rows))

    def answer(self, receipts: Sequence[Receipt]) -> Future[None]:
        """Act on receipts: only on those whose hash is the face's own."""
        return self._writer.submit(lambda db: self._jobs.answer(db, receipts))

    def sent(self, ids: Iterable[str]) -> Future[None]:
        """Let faces go on a broker's word alone, as `fast` and `broker` do."""
        gone = list(ids)
        return self._writer.submit(lambda db: self._jobs.sent(db, gone))

    def park(self, face_id: str, reason: str) -> Future[None]:
        """Keep a face for the operator, and send it no more."""
        return self._writer.submit(lambda db: self._jobs.move(db, face_id, "refused", reason))

    def resend(
        self, after: int, most: int, *, reason: str | None = None, site: str | None = None
    ) -> Future[list[Kept]]:
        """Have parked faces wait again that have their pictures, from behind row `after`; returns them.

        Args:
            after: the row.
            most: how many, at most.
            reason: why they were refused; None takes all.
            site: takes this outbox's own of a site; None takes those it inherited, too.
        """
        owner = None if site is None else (self.id, site)
        return self._writer.submit(lambda db: self._jobs.resend(db, reason, owner, after, most))

    def expire(self, before: float, most: int) -> Future[int]:
        """Drop what waits and was chosen before a time, in Unix seconds; returns how many, of `most`."""
        return self._writer.submit(lambda db: self._jobs.expire(db, before, most))

    def reclock(self, *, now: float, by: float) -> Future[None]:
        """Take note that the clock was set by so many seconds: pictures of this opening keep their age."""
        return self._writer.submit(lambda db: self._jobs.reclock(db, self.run, now=now, by=by))

    def clear_old(self, before: float, most: int) -> Future[int]:
        """Delete pictures chosen before a time, in Unix seconds; returns how many, of `most`."""
        return self._writer.submit(lambda db: self._jobs.clear_old(db, before, most))

    def erase(self, rules: Sequence[Erasure], after: int, most: int) -> Future[list[Kept]]:
        """Delete pictures that rules cover, from behind row `after`; returns their faces, `most` at most."""
        return self._writer.submit(lambda db: self._jobs.erase(db, rules, after, most))

    def erased(self, since: str, until: str) -> Future[None]:
        """Take note that all was erased up to a mark, from another on; no byte of it stays in the log."""

        def keep(db: sqlite3.Connection) -> None:
            (before,) = db.execute(_NOTED, (erasing.MARK,)).fetchone()
            if since in ("", before):
                _keep(db, erasing.MARK, until)
            self._jobs.wiped, self._emptied_at = True, 0.0  # now, not soon

        return self._writer.submit(keep)

    def note(self, name: str, value: str) -> Future[None]:
        """Keep a line beside the books, under a name."""
        return self._writer.submit(lambda db: _keep(db, name, value))

    def noted(self, name: str) -> Future[str | None]:
        """Return what was kept under a name."""
        return self._writer.submit(lambda db: db.execute(_NOTED, (name,)).fetchone()[0])

    # the books

    def ledger(self) -> Future[Ledger]:
        """Return this outbox's books as they are on disk, and how many faces the last audit missed."""

        def read(db: sqlite3.Connection) -> Ledger:
            proof = audited.last(self.path, self.id)
            return self._jobs.ledger(db, self.id).model_copy(update={"lost": proof and proof.lost})

        return self._writer.submit(read)

    def waiting(self) -> Future[int]:
        """Return how many faces wait, inherited ones included."""
        return self._writer.submit(lambda _: self._jobs.tally.waiting.total())

    def captured_since(self, site: str, first: str) -> Future[dict[str, int]]:
        """Return how many faces each camera of a site gave whose id is not less than `first`."""
        query = "SELECT camera, count(*) FROM faces WHERE id >= ? AND outbox = ? AND site = ? GROUP BY camera"

        def count(db: sqlite3.Connection) -> dict[str, int]:
            self._jobs.flush(db)
            return dict(db.execute(query, (first, self.id, site)))

        return self._writer.submit(count)

    def oldest(self, after: int = 0) -> Future[float | None]:
        """Return when the face was chosen that has waited longest, in Unix seconds; None where none waits.

        Args:
            after: a row; of those behind it.
        """
        query = (
            "SELECT CAST(chosen AS REAL) FROM faces WHERE state = 'waiting' AND row > ? ORDER BY row LIMIT 1"
        )
        return self._writer.submit(lambda db: (db.execute(query, (after,)).fetchone() or (None,))[0])

    def owners(self) -> Future[list[tuple[str, str]]]:
        """Return the (site, outbox) pairs whose faces wait here: where receipts may come from."""

        def named(_: sqlite3.Connection) -> list[tuple[str, str]]:
            waiting = self._jobs.tally.waiting.items()
            return sorted(
                {(site, outbox) for (outbox, site, _), n in waiting if n and re.fullmatch(SLUG, site)}
            )

        return self._writer.submit(named)

    # the writer's hooks

    def _finish(self, db: sqlite3.Connection) -> None:
        self._jobs.flush(db)
        self._jobs.tally.flush(db)
        if time.monotonic() - self._shrunk_at > _SHRINK_EVERY_S:
            self._shrunk_at = time.monotonic()
            schema.shrink(db)

    def _tell(self) -> None:
        self._empty_log()
        news = self._jobs.done()
        if self.listener and (news.arrived or news.gone or news.again):
            self.listener(news)

    def _empty_log(self) -> None:
        """Let nothing that was erased stay in the log; tried again while a reader is in the way."""
        if self._jobs.wiped and time.monotonic() - self._emptied_at > _EMPTY_EVERY_S:
            self._jobs.wiped = not schema.empty_log(self._db)
            self._emptied_at = time.monotonic()

    def _undo(self, _: sqlite3.Connection, error: BaseException) -> None:
        self._jobs.undo()
        if means_full(error):
            self._reserve.spend()

    def _mend(self, db: sqlite3.Connection, error: BaseException) -> sqlite3.Connection | None:
        mended = self._shelf.mend(db, error, self._jobs.load)
        self._db = mended or self._db
        return mended


def _keep(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("REPLACE INTO meta VALUES (?, ?)", (name, value))
