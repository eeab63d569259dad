"""A new outbox out of a broken one: every face whose row and picture can still be read, and the books.

The broken file is only read; the new one is made beside it and takes its place once it is whole and on disk,
so that a crash at any moment leaves one of the two. Faces keep their ids, their numbers and the outbox that
they were frozen for. A picture counts as read if its hash is that of a face's row, wherever the two lay.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from facerelay import face
from facerelay.edge import aside, schema
from facerelay.edge.pages import Pages, Value

log = logging.getLogger(__name__)

_MARGIN: Final = 4_194_304
_LOOK_EVERY: Final = 64
_MOST: Final = 10**12
_LIMITS: Final = face.Limits(bytes=64_000_000)
_OWN: Final = {"outbox", "run", "mark", "inode"}
_ANEW: Final = {"erasures"}
"""Notes that do not come along: pages of before may hold what was erased since, so that is told again."""

_FORMS: Final = (
    r"[0-9a-f]{32}", r"[0-9a-f]{8}", None, face.FACE_ID, face.SLUG, face.SLUG, r"[0-9a-f]{64}",
    r"[\x20-\x7e]{1,500}", None, None, None, None, "|".join(sorted(schema.STATES)), r"[a-z0-9-]{1,40}",
)  # fmt: skip
_KINDS: Final = (str, str, int, str, str, str, str, str, int, float, float, float, str, str)
_MAY_BE_NONE: Final = {11, 13}
_NOTE: Final = re.compile(r"[\x20-\x7e]{1,4000}")
_REASON: Final = re.compile(r"[a-z0-9_]{1,40}(:[a-z0-9-]{1,40})?")
_INSERT: Final = (
    "INSERT OR IGNORE INTO faces (row, outbox, run, seq, id, site, camera, sha256, key, size, quality,"
    " chosen, answered, state, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Books = dict[tuple[str, str, str], Counter[str]]


class RescueError(Exception):
    """The broken outbox cannot be replaced; it lies where it was."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of a broken outbox.

    Attributes:
        aside: where the broken file lies now.
        waiting: faces that wait again.
        damaged: faces that were captured and have no answer, and could not be read: dropped, and counted.
        left: of these, sound ones for which the disk had no room.
    """

    aside: Path
    waiting: int
    damaged: int
    left: int


def finish(path: Path) -> None:
    """Bring a replacement to its end, if a crash cut one short; call it before a file is opened."""
    new = _beside(path)
    if new.exists() and not path.exists():
        _put_in_place(path, new, aside.place(path))
    else:
        new.unlink(missing_ok=True)


def rescue(path: Path, *, anything: bool) -> Rescued | None:
    """Replace a broken outbox; nobody may have it open.

    Args:
        path: the broken file; its log lies beside it.
        anything: replace it even if not one face or count is found in it.

    Returns:
        None where nothing was found, and the file left as it is.

    Raises:
        RescueError: the disk has no room, or fails.
    """
    new = _beside(path)
    try:
        new.unlink(missing_ok=True)
        with Pages(path) as pages, closing(_begin(new)) as db:
            found = _Transfer(path, pages, db)
            if not (found.transfer() or anything):
                new.unlink()
                return None
        new.chmod(0o600)
        _sync(new)
        broken = aside.place(path)
        _put_in_place(path, new, broken)
    except (OSError, sqlite3.Error) as error:
        new.unlink(missing_ok=True)
        raise RescueError(f"{path} is damaged, and could not be recovered: {error}: make room") from error
    with suppress(OSError):  # another time
        aside.forget_oldest(path)
    return Rescued(broken, found.waiting, found.damaged, found.left)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".rescued")


def _begin(new: Path) -> sqlite3.Connection:
    db = sqlite3.connect(new, isolation_level=None)
    db.execute("PRAGMA journal_mode = MEMORY")  # it is nobody's file until it is whole
    db.execute("PRAGMA synchronous = OFF")
    schema.create(db)
    db.execute("CREATE INDEX rescue ON faces (sha256)")
    return db


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _put_in_place(path: Path, new: Path, broken: Path) -> None:
    """Move the broken file away, then its log, then the new one in: `finish` goes on from any step."""
    wal = path.with_name(path.name + "-wal")
    if path.exists():
        path.rename(broken)
    if wal.exists():
        wal.rename(broken.with_name(broken.name + "-wal"))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    _sync(path.parent)
    new.rename(path)
    _sync(path.parent)


class _Transfer:
    """The way of rows from the broken file's pages into the new one."""

    def __init__(self, path: Path, pages: Pages, db: sqlite3.Connection) -> None:
        self._folder = path.parent
        self._pages = pages
        self._db = db
        self._books: Books = {}
        self._known: set[tuple[str, str, str, str]] = set()
        self._notes: dict[str, str] = {}
        self.waiting = self.damaged = self.left = 0

    def transfer(self) -> bool:
        """Bring over what there is; returns whether it was anything."""
        self._db.execute("BEGIN")
        found = False
        for row in self._pages.rows(longest=schema.PAGE):
            found |= self._face(row.number, row.values) or self._count(row.values) or self._note(row.values)
        for number, row in enumerate(self._pages.rows()):
            if number % _LOOK_EVERY == 0:
                room = shutil.disk_usage(self._folder).free > _MARGIN
            self._picture(row.values, room=room)
        self._close_books()
        self._db.execute("DROP INDEX rescue")
        self._db.executemany("REPLACE INTO meta VALUES (?, ?)", self._notes.items())
        self._db.execute("COMMIT")
        return found

    def _face(self, number: int | None, values: tuple[Value, ...]) -> bool:
        if number is None or len(values) != len(_FORMS) + 1 or not _sound(values[1:]):
            return False
        if not self._db.execute(_INSERT, (number if 0 < number < _MOST else None, *values[1:])).rowcount:
            # Known already, or its number was taken by a damaged row; then it gets another.
            self._db.execute(_INSERT, (None, *values[1:]))
        return True

    def _count(self, values: tuple[Value, ...]) -> bool:
        if len(values) != 5:  # noqa: PLR2004 - the columns of `counts`
            return False
        outbox, site, camera, name, n = values
        if not (isinstance(n, int) and 0 <= n <= _MOST) or not _named(outbox, site, camera, name):
            return False
        owner, key = (str(outbox), str(site), str(camera)), str(name)
        if (*owner, key) not in self._known:  # what was read first is the newest
            self._known.add((*owner, key))
            self._books.setdefault(owner, Counter())[key] = n
        return True

    def _note(self, values: tuple[Value, ...]) -> bool:
        """Take over what is kept beside the books, but not who the file was."""
        if len(values) != 2 or not all(isinstance(v, str) and _NOTE.fullmatch(v) for v in values):  # noqa: PLR2004 - the columns of `meta`
            return False
        name, value = map(str, values)
        if name not in _OWN | _ANEW:
            self._notes.setdefault(name, value)
        return name in _OWN

    def _picture(self, values: tuple[Value, ...], *, room: bool) -> None:
        if len(values) != 2 or values[0] is not None or not isinstance(values[1], bytes):  # noqa: PLR2004 - the columns of `pictures`
            return
        data = values[1]
        with suppress(face.FaceError):
            frozen = face.parse(data, _LIMITS)
            row = self._row_of(frozen)
            if row is None:
                return
            if not room:
                self.left += 1
                return
            self._db.execute("INSERT INTO pictures VALUES (?, ?)", (row, data))
            self._correct(row, frozen)

    def _row_of(self, frozen: face.Frozen) -> int | None:
        """Return the row that still lacks this picture; the one of the same id, should there be several."""
        found = self._db.execute(
            "SELECT row FROM faces WHERE sha256 = ? AND state IN ('waiting', 'refused')"
            " AND row NOT IN (SELECT row FROM pictures) ORDER BY id = ? DESC LIMIT 1",
            (frozen.sha256, frozen.face.id),
        ).fetchone()
        return int(found[0]) if found else None

    def _correct(self, row: int, frozen: face.Frozen) -> None:
        """Believe the picture rather than the row: its bytes are proven."""
        known = frozen.face
        update = self._db.execute(
            "UPDATE OR IGNORE faces SET outbox = ?, run = ?, seq = ?, id = ?, site = ?, camera = ?, key = ?,"
            " size = ?, quality = ? WHERE row = ?",
            (known.outbox, known.run, known.seq, known.id, known.site, known.camera, frozen.key,
             len(frozen.data), known.quality, row),
        )  # fmt: skip
        if not update.rowcount:  # its true row is there, and has its answer
            self._db.execute("DELETE FROM pictures WHERE row = ?", (row,))
            self._db.execute("DELETE FROM faces WHERE row = ?", (row,))

    def _close_books(self) -> None:
        """Count what is missing as dropped, damaged, so that each camera's books close again."""
        rows: Books = {}
        lacking: Books = {}
        for *owner, state, reason, there, n in self._db.execute(
            "SELECT outbox, site, camera, state, reason, data IS NOT NULL, count(*)"
            " FROM faces LEFT JOIN pictures USING (row) GROUP BY 1, 2, 3, 4, 5, 6"
        ):
            key = owner[0], owner[1], owner[2]
            if state == "waiting" and not there:
                lacking.setdefault(key, Counter())[state] += n
                continue
            rows.setdefault(key, Counter())[state] += n
            if reason and state != "waiting":
                rows[key][f"{state}:{reason}"] += n
        for key in rows.keys() | lacking.keys() | self._books.keys():
            seen = rows.get(key, Counter())
            self.waiting += seen["waiting"]
            gone = lacking.get(key, Counter())["waiting"]
            books, lost = _closed(self._books.get(key, Counter()), seen, gone)
            self.damaged += lost
            counts = [(*key, name, n) for name, n in books.items() if n]
            self._db.executemany("INSERT INTO counts VALUES (?, ?, ?, ?, ?)", counts)
        self._db.execute(
            "UPDATE faces SET state = 'dropped', reason = 'damaged', answered = ? WHERE state = 'waiting'"
            " AND row NOT IN (SELECT row FROM pictures)",
            (time.time(),),
        )


def _closed(books: Mapping[str, int], rows: Mapping[str, int], lacking: int) -> tuple[Counter[str], int]:
    """Return a camera's books as they are to be, and how many faces are missing.

    Args:
        books: its counts as they were found.
        rows: how many faces were found in each state, and for each reason.
        lacking: faces that waited, and whose pictures are gone.
    """
    new = Counter({name: n for name, n in books.items() if name != "waiting"})
    for name, n in rows.items():
        if name != "waiting":
            new[name] = max(new[name], n)
    answered, waiting = sum(new[name] for name in schema.COLUMNS), rows.get("waiting", 0)
    new["captured"] = max(new["captured"], answered + waiting + lacking)
    lost = new["captured"] - answered - waiting
    new["dropped"] += lost
    new["dropped:damaged"] += lost
    return new, lost


def _sound(values: Iterable[Value]) -> bool:
    """Whether each column of a face's row holds what it may."""
    for place, value in enumerate(values):
        if value is None:
            if place not in _MAY_BE_NONE:
                return False
            continue
        kind, form = _KINDS[place], _FORMS[place]
        if not isinstance(value, (int, float) if kind is float else kind):
            return False
        if isinstance(value, str) and form and not re.fullmatch(form, value):
            return False
        if isinstance(value, (int, float)) and not (math.isfinite(value) and 0 <= value <= _MOST):
            return False
    return True


def _named(outbox: Value, site: Value, camera: Value, name: Value) -> bool:
    """Whether these are the names of a count."""
    forms = ((outbox, r"[0-9a-f]{32}"), (site, face.SLUG), (camera, face.SLUG), (name, _REASON))
    return all(isinstance(value, str) and re.fullmatch(form, value) for value, form in forms)
