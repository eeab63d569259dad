"""Faces that were refused: which of them can go again, and an operator's word that they are to.

The word is a file beside the outbox, since one process holds it: capture takes it away, and acts.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from facerelay.edge import beside
from facerelay.edge.tally import Kept

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 4096
_COLUMNS: Final = ", ".join(Kept._fields)
_THERE: Final = "faces INDEXED BY faces_refused WHERE state = 'refused' AND row IN (SELECT row FROM pictures)"
"""Refused faces whose pictures have not gone for their age, or for others."""


class Asked(BaseModel):
    """Which faces are to go again: all, or those of one reason."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    reason: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")] | None = None


def find(
    db: sqlite3.Connection, reason: str | None, owner: tuple[str, str] | None, after: int, most: int
) -> list[Kept]:
    """Return refused faces with a picture, from behind a row, in the order of their rows.

    Args:
        db: the outbox's.
        reason: why they were refused; None takes all.
        owner: the outbox and site that they are of; None takes all.
        after: the row.
        most: how many, at most.
    """
    outbox, site = owner or (None, None)
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM {_THERE} AND row > ?"  # noqa: S608 - words of ours and `?`
        " AND reason IS coalesce(?, reason) AND outbox IS coalesce(?, outbox) AND site IS coalesce(?, site)"
        " ORDER BY row LIMIT ?",
        (after, reason, outbox, site, most),
    )
    return [Kept(*row) for row in rows]


def count(db: sqlite3.Connection, reason: str | None) -> Counter[str]:
    """Return by reason how many refused faces have their pictures; of one reason, where one is asked for."""
    query = f"SELECT reason, count(*) FROM {_THERE} AND reason IS coalesce(?, reason) GROUP BY 1"  # noqa: S608 - as above
    return Counter({str(why): n for why, n in db.execute(query, (reason,))})


def ask(path: Path, asked: Asked) -> Path:
    """Leave word beside an outbox; returns the file, which is gone once it was heard.

    Raises:
        OSError: it cannot be written.
    """
    place = _beside(path)
    beside.write(place, asked.model_dump_json())
    return place


def is_asked(path: Path) -> bool:
    """Whether there is a word; looked for each second, so it costs no more than that."""
    return _beside(path).exists()


def hear(path: Path) -> Asked | None:
    """Take a word away, and return it; None where there is none, or none that can be read."""
    place = _beside(path)
    try:
        with place.open("rb") as file:
            said = file.read(_MAX_BYTES)
    except OSError:
        return None
    with suppress(OSError):
        place.unlink()
    try:
        return Asked.model_validate(json.loads(said))
    except (ValueError, ValidationError):
        log.warning("%s: cannot be read: passed over", place)
        return None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.resend")
