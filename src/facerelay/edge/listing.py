"""The books face by face, for a camera and a range of time, and the numbers that no face has.

There is no index by time: each question reads the rows once, and keeps none of them in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, NamedTuple

from facerelay.edge.reading import Entry
from facerelay.edge.schema import STATES
from facerelay.messages import Account
from facerelay.span import Span

_PAGE: Final = 1000
_MOST_NAMED: Final = 1000
_NAMES: Final = "length(site) + length(camera)"
_TAKEN: Final = f"substr(key, 26 + {_NAMES}, 10) || substr(key, 45 + {_NAMES}, 13)"
"""When a face was taken, out of its key (`face.key_of`): YYYY-MM-DDHHMMSS.ffffff, which sorts by time."""


class Seen(NamedTuple):
    """A number that a face has, its row, and when it was taken."""

    number: int
    row: int
    taken: str


class Gap(NamedTuple):
    """Numbers in a row that no face has, and how many of them had a row that is not there any more."""

    first: int
    last: int
    gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Numbers of an outbox that no face in its books has.

    Attributes:
        named: the first thousand gaps.
        count: of numbers, in all.
        gone: how many of them had a row, and it is not there any more. The others were never captured: a
            picture took its number, and never came to the disk.
        damaged: faces that the books count as dropped, damaged, without a row: theirs could not be read.
    """

    named: tuple[Gap, ...] = ()
    count: int = 0
    gone: int = 0
    damaged: int = 0

    @property
    def missing(self) -> int:
        """How many faces were captured, and are in no column of the books."""
        return max(0, self.gone - self.damaged)

    def without(self, numbers: Collection[int]) -> Gaps:
        """Return the gaps that are left where these numbers were found elsewhere."""
        named: list[Gap] = []
        count, gone = self.count, self.gone
        for first, last, lost in self.named:
            there = sum(first <= number <= last for number in numbers)
            count, gone = count - there, gone - min(lost, there)
            if there <= last - first:
                named.append(Gap(first, last, max(0, lost - there)))
        return Gaps(named=tuple(named), count=count, gone=gone, damaged=self.damaged)


def accounts(db: sqlite3.Connection, span: Span) -> dict[str, Account]:
    """Return how many faces of a span are in which column, by `<site>/<camera>`."""
    chosen, values = _chosen(span)
    query = f"SELECT site, camera, state, reason, count(*) FROM faces WHERE {chosen} GROUP BY 1, 2, 3, 4"  # noqa: S608 - words of ours and `?`
    found: dict[str, Account] = {}
    for site, camera, state, reason, n in db.execute(query, values):
        name = f"{site}/{camera}"
        before = found.get(name, Account())
        reasons = {**before.reasons, reason: before.reasons.get(reason, 0) + n} if reason else before.reasons
        columns = {"captured": before.captured + n}
        if state in STATES:  # else the row is damaged, and the books don't close
            columns[state] = getattr(before, state) + n
        found[name] = before.model_copy(update={**columns, "reasons": reasons})
    return found


def lately(db: sqlite3.Connection, outbox: str, since: datetime) -> dict[str, Account]:
    """Return how many faces of an outbox were dropped and refused since a time, by `<site>/<camera>`.

    Faces that were counted as damaged without a row have no time, and are not among them. An index is read,
    of what was answered since.
    """
    found: dict[str, Account] = {}
    query = (
        "SELECT state, coalesce(reason, ''), count(*) FROM faces WHERE outbox = ? AND site = ? AND camera = ?"
        " AND answered >= ? AND state IN ('dropped', 'refused') GROUP BY 1, 2"
    )
    for site, camera in cameras(db):
        columns = {"dropped": 0, "refused": 0}
        reasons: dict[str, int] = {}
        for state, reason, n in db.execute(query, (outbox, site, camera, since.timestamp())):
            columns[state] += n
            if reason:
                reasons[reason] = reasons.get(reason, 0) + n
        found[f"{site}/{camera}"] = Account(reasons=reasons, **columns)
    return found


def faces(db: sqlite3.Connection, span: Span, states: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Yield the faces of a span in the order of their capture, those in some states or all.

    They are read a page at a time: outside of a transaction the outbox's log is not kept from ending.
    """
    chosen, values = _chosen(span)
    if states:
        chosen += f" AND state IN ({','.join('?' * len(states))})"
    query = (
        f"SELECT row, id, sha256, key, state, reason FROM faces WHERE {chosen} AND row > ?"  # noqa: S608 - words of ours and `?`
        " ORDER BY row LIMIT ?"
    )
    row = -1
    while page := db.execute(query, (*values, *states, row, _PAGE)).fetchall():
        for row, *entry in page:  # noqa: B007 - the last row is where the next page begins
            yield Entry(*entry)


def cameras(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return each site and camera of which there are books."""
    return db.execute("SELECT DISTINCT site, camera FROM counts ORDER BY 1, 2").fetchall()


def runs(db: sqlite3.Connection, outbox: str) -> set[str]:
    """Return the openings of an outbox that faces in its books come from."""
    return {run for (run,) in db.execute("SELECT DISTINCT run FROM faces WHERE outbox = ?", (outbox,))}


def unlisted(db: sqlite3.Connection, outbox: str) -> int:
    """Return how many captured faces of an outbox the books know by count alone."""
    (rows,) = db.execute("SELECT count(*) FROM faces WHERE outbox = ?", (outbox,)).fetchone()
    return max(0, _counted(db, outbox, "captured") - int(rows))


def gaps(db: sqlite3.Connection, outbox: str, span: Span, *, kept_since: datetime) -> Gaps:
    """Return the numbers that may be of a span's time, and that no face has; of whichever camera.

    A number stands between two that are known, so those before the first known face are not judged.

    Args:
        db: from `open_books`.
        outbox: whose numbers.
        span: of which the camera is not looked at: an outbox has one row of numbers for all.
        kept_since: no face that was taken since then was forgotten for its age.
    """
    first = _stamp(span.start) if span.start else ""
    last = _stamp(span.end) if span.end else "~"
    known = _stamp(kept_since)
    # What was undone may leave out rows, and counts nothing; what was pruned is gone for its age.
    most_gone = max(0, unlisted(db, outbox) - _counted(db, outbox, "pruned"))
    named: list[Gap] = []
    count = gone = 0
    for before, after in pairwise(_numbers(db, outbox)):
        size = after.number - before.number - 1
        if size > 0 and known <= before.taken < last and after.taken >= first:
            lost = min(size, most_gone - gone, _rows_gone(db, before.row, after.row))
            count, gone = count + size, gone + lost
            if len(named) < _MOST_NAMED:
                named.append(Gap(before.number + 1, after.number - 1, lost))
    return Gaps(named=tuple(named), count=count, gone=gone, damaged=_damaged(db, outbox))


def _numbers(db: sqlite3.Connection, outbox: str) -> Iterator[Seen]:
    """Yield what has a number, in the order of numbers; at the end one past all that were counted."""
    seen = Seen(0, 0, "")
    query = f"SELECT seq, row, {_TAKEN} FROM faces WHERE outbox = ? ORDER BY seq"  # noqa: S608 - words of ours
    for row in db.execute(query, (outbox,)):
        seen = Seen(*row)
        yield seen
    captured = _counted(db, outbox, "captured")
    if seen.row and captured > seen.number:  # no face has a number over the count of all: the last rows went
        yield Seen(captured + 1, seen.row + captured - seen.number + 1, "~")


def _rows_gone(db: sqlite3.Connection, one: int, other: int) -> int:
    """Return how many rows between two are not there: each face takes the row after the last."""
    low, high = sorted((one, other))
    (there,) = db.execute("SELECT count(*) FROM faces WHERE row > ? AND row < ?", (low, high)).fetchone()
    return int(high - low - 1 - there)


def _damaged(db: sqlite3.Connection, outbox: str) -> int:
    (rows,) = db.execute(
        "SELECT count(*) FROM faces WHERE outbox = ? AND state = 'dropped' AND reason = 'damaged'", (outbox,)
    ).fetchone()
    return max(0, _counted(db, outbox, "dropped:damaged") - int(rows))


def _counted(db: sqlite3.Connection, outbox: str, name: str) -> int:
    query = "SELECT coalesce(sum(n), 0) FROM counts WHERE outbox = ? AND name = ?"
    (n,) = db.execute(query, (outbox, name)).fetchone()
    return int(n)


def _chosen(span: Span) -> tuple[str, tuple[str, ...]]:
    """Return a span as the condition of a query, with its values."""
    terms = {
        "site = ?": span.site,
        "camera = ?": span.camera,
        f"{_TAKEN} >= ?": _stamp(span.start) if span.start else None,
        f"{_TAKEN} < ?": _stamp(span.end) if span.end else None,
    }
    asked = {term: value for term, value in terms.items() if value is not None}
    return " AND ".join(asked) or "true", tuple(asked.values())


def _stamp(at: datetime) -> str:
    text = at.astimezone(UTC).isoformat(timespec="microseconds")
    return f"{text[:10]}{text[11:26].replace(':', '')}"
