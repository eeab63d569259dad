"""Statements on many rows at once.

The interpreter's lock is given up and asked for again at each step of a statement. With an event loop at work
beside it, that costs more than the row: so a batch is one statement, not one for each row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, TypeVar

T = TypeVar("T")

_SIZES: Final = (32, 16, 8, 4, 2, 1)
"""Of batches: few statements to keep ready, and fewer variables in each than any SQLite takes (999)."""


def insert(db: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows of one width.

    Args:
        db: in a transaction.
        into: table and columns, as `faces (id, site)`.
        rows: their values.
    """
    for part in _parts(rows):
        statement = _insert(into, len(part[0]), len(part))
        db.execute(statement, [value for row in part for value in row])


def where(
    db: sqlite3.Connection, statement: str, rows: Sequence[int], values: tuple[object, ...] = ()
) -> None:
    """Run a statement for rows, by their `row`.

    Args:
        db: in a transaction.
        statement: up to its WHERE.
        rows: which.
        values: of the statement's own variables.
    """
    for part in _parts(rows):
        db.execute(_where(statement, len(part)), (*values, *part))


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


@cache
def _insert(into: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"INSERT INTO {into} VALUES {', '.join([row] * count)}"  # noqa: S608 - names of ours


@cache
def _where(statement: str, count: int) -> str:
    return f"{statement} WHERE row IN ({', '.join('?' * count)})"
