"""The books as they are read from the outbox's tables: by the outbox itself, or by anybody beside it."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pydantic import ValidationError

from facerelay.edge.schema import VERSION, BrokenError, OutboxError
from facerelay.face import SLUG
from facerelay.messages import Account, Latency, Ledger

_LATE: Final = 10_000
"""Faces that were given their numbers before another, and put after it, at most."""

DARK: Final = "dark/"
"""Begins the name of a note that goes on with `<site>/<camera>`: since when it is gone, in Unix seconds."""

_LATENCIES: Final = 1_000
"""Percentiles are those of a camera's last so many answers."""


_COUNTED: Final = Account.model_fields.keys() - {"latency_ms", "reasons", "dark_since"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A face in the books: what an audit looks for in the bucket."""

    id: str
    sha256: str
    key: str
    state: str
    reason: str | None


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
    dark = _dark(db) if outbox == owner(db) else {}
    for place in dark:
        tallies.setdefault(place, {})
    cameras = {
        f"{site}/{camera}": _account(tally, _latency(db, outbox, site, camera), dark.get((site, camera)))
        for (site, camera), tally in sorted(tallies.items())
    }
    return Ledger(outbox=outbox, cameras=cameras)


def _waiting(db: sqlite3.Connection, outbox: str) -> Mapping[tuple[str, str], int]:
    query = "SELECT site, camera, count(*) FROM faces WHERE state = 'waiting' AND outbox = ? GROUP BY 1, 2"
    return {(site, camera): n for site, camera, n in db.execute(query, (outbox,))}


def _dark(db: sqlite3.Connection) -> dict[tuple[str, str], datetime]:
    """Return since when cameras are gone that are; a note that says nothing of the kind is passed over."""
    found = {}
    for name, value in db.execute("SELECT name, value FROM meta WHERE name GLOB ?", (f"{DARK}*",)):
        site, _, camera = name.removeprefix(DARK).partition("/")
        if re.fullmatch(SLUG, site) and re.fullmatch(SLUG, camera) and re.fullmatch("[0-9]{1,11}", value):
            found[site, camera] = datetime.fromtimestamp(int(value), UTC)
    return found


def _account(tally: Mapping[str, int], latency: Latency, dark_since: datetime | None) -> Account:
    plain = {name: n for name, n in tally.items() if name in _COUNTED}
    reasons: Counter[str] = Counter()
    for name, n in tally.items():
        column, _, reason = name.partition(":")
        if reason and n:
            reasons[f"gate-{reason}" if column == "gate" else reason] += n
    return Account(latency_ms=latency, reasons=dict(reasons), dark_since=dark_since, **plain)


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


def entries(db: sqlite3.Connection, outbox: str, states: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the faces in some states, in the order of their capture.

    Args:
        db: from `open_books`.
        outbox: whose faces.
        states: `waiting`, `stored`, `sent`, `refused`, `dropped`, `erased`.
    """
    marks = ",".join("?" * len(states))
    chosen = f"outbox = ? AND state IN ({marks})"
    query = f"SELECT id, sha256, key, state, reason FROM faces WHERE {chosen} ORDER BY row"  # noqa: S608 - only `?`
    for row in db.execute(query, (outbox, *states)):
        yield Entry(*row)
