"""Which faces in the outbox an erasure takes: those whose pictures still lie there.

What was answered before lies in the bucket, and in no row here. Faces that were dropped stay so: no erasure
took them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from facerelay.edge.tally import Kept
from facerelay.erasures import Erasure

MARK: Final = "erasures"
"""The name under which an outbox keeps what it was told."""

_INDICES: Final = {"waiting": "faces_line", "refused": "faces_refused"}
"""States in which there may be a picture, and the index that has no other faces."""

_TIME: Final = "substr(key, instr(key, '/date=') + 6, 32)"
"""When a face was taken, as its key has it: text in the order of time."""

_COLUMNS: Final = ", ".join(Kept._fields)


def find(db: sqlite3.Connection, rules: Sequence[Erasure], after: int, most: int) -> list[Kept]:
    """Return faces with a picture that rules cover, from behind a row, in the order of their rows."""
    conditions, values = zip(*(_condition(rule) for rule in rules), strict=True) if rules else ((), ())
    if not conditions:
        return []
    covered = " OR ".join(conditions)
    found: list[Kept] = []
    for state, index in _INDICES.items():
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM faces INDEXED BY {index}"  # noqa: S608 - words of ours
            f" WHERE state = '{state}' AND row > ? AND ({covered}) ORDER BY row LIMIT ?",
            (after, *(value for each in values for value in each), most),
        )
        found += [Kept(*row) for row in rows]
    return sorted(found, key=lambda kept: kept.row)[:most]


def _condition(rule: Erasure) -> tuple[str, list[str]]:
    """Return a rule as SQL, and its values."""
    asked = {
        "id IN (SELECT value FROM json_each(?))": json.dumps(rule.ids) if rule.ids else None,
        "site = ?": rule.site,
        "camera = ?": rule.camera,
        f"{_TIME} >= ?": rule.start and _stamp(rule.start),
        f"{_TIME} < ?": rule.end and _stamp(rule.end),
    }
    given = {condition: value for condition, value in asked.items() if value}
    return f"({' AND '.join(given)})", list(given.values())


def _stamp(moment: datetime) -> str:
    at = moment.isoformat(timespec="microseconds")
    return f"{at[:10]}/hour={at[11:13]}/{at[11:13]}{at[14:16]}{at[17:26]}"
