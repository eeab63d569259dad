"""What an audit has to remember of each face, in a temporary file: memory does not grow with the faces."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, Self, TypeVar

T = TypeVar("T")

_MOST_NAMED: Final = 1000
_CACHE_KB: Final = 16_000


@dataclass(slots=True)
class Named(Generic[T]):
    """How many of something there are, and the first thousand of them."""

    count: int = 0
    first: list[T] = field(default_factory=list)

    def add(self, one: T) -> None:
        """Count one more, and name it while there is room."""
        self.count += 1
        if len(self.first) < _MOST_NAMED:
            self.first.append(one)


class Wanted(NamedTuple):
    """A face that the edge was told is stored: its id, the hash of its bytes, its key."""

    id: str
    sha256: str
    key: str


class Missing(NamedTuple):
    """A wanted face of which no object has the bytes, and whether one that names it was seen all the same."""

    id: str
    key: str
    unequal: bool
    unreadable: bool


class Scratch:
    """The wanted faces, and what was seen of each id."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a private file, deleted when it is closed
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        self._db.execute(
            "CREATE TABLE faces (id TEXT PRIMARY KEY, sha256 TEXT, key TEXT, seen INTEGER NOT NULL DEFAULT 0,"
            " sound INTEGER NOT NULL DEFAULT 0, unequal INTEGER NOT NULL DEFAULT 0,"
            " unreadable INTEGER NOT NULL DEFAULT 0, bytes TEXT, again INTEGER NOT NULL DEFAULT 0)"
            " WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def want(self, wanted: Iterable[Wanted]) -> None:
        """Take the faces that must be there."""
        self._db.executemany(
            "INSERT OR IGNORE INTO faces (id, sha256, key) VALUES (?, ?, ?)",
            wanted,
        )

    def see(self, face_id: str, sha256: str, *, in_shard: bool = False) -> bool | None:
        """Note an object of a face; return whether it has the wanted bytes, or None: it is not wanted.

        In a shard, after all objects, bytes that were seen before are there again, which is no second face.
        """
        row = self._db.execute("SELECT sha256 FROM faces WHERE id = ?", (face_id,)).fetchone()
        equal = None if row is None or row[0] is None else row[0] == sha256
        self._db.execute(
            "INSERT INTO faces (id, seen, sound, unequal, bytes) VALUES (?1, 1, ?2, ?3, ?4)"
            " ON CONFLICT DO UPDATE"
            " SET seen = seen + 1 - (?5 AND bytes IS ?4), again = again OR (?5 AND bytes IS ?4),"
            " sound = sound OR ?2, unequal = unequal OR ?3, bytes = coalesce(bytes, ?4)",
            (face_id, equal is True, equal is False, sha256, in_shard),
        )
        return equal

    def see_unreadable(self, face_id: str, key: str) -> None:
        """Note that the object at a wanted face's key is no face."""
        self._db.execute("UPDATE faces SET unreadable = 1 WHERE id = ? AND key = ?", (face_id, key))

    def wanted(self) -> int:
        """Return how many faces are wanted."""
        return self._count("sha256 IS NOT NULL")

    def found(self) -> int:
        """Return how many wanted faces are there with their own bytes."""
        return self._count("sound")

    def unequal(self) -> Named[str]:
        """Return the wanted faces of which an object has other bytes."""
        return self._named("unequal")

    def twice(self) -> Named[str]:
        """Return the ids that more than one object has."""
        return self._named("seen > 1")

    def again(self) -> Named[str]:
        """Return the ids whose bytes lie in a shard, and once more in another or as an object."""
        return self._named("again")

    def missing(self) -> Iterator[Missing]:
        """Yield the wanted faces that are not there with their own bytes, by key."""
        marks, term = "unequal, unreadable", "sha256 IS NOT NULL AND NOT sound"
        query = f"SELECT id, key, {marks} FROM faces WHERE {term} ORDER BY key"  # noqa: S608 - words of ours
        for face_id, key, unequal, unreadable in self._db.execute(query):
            yield Missing(face_id, key, bool(unequal), bool(unreadable))

    def _count(self, term: str) -> int:
        (n,) = self._db.execute(f"SELECT count(*) FROM faces WHERE {term}").fetchone()  # noqa: S608 - as above
        return int(n)

    def _named(self, term: str) -> Named[str]:
        query = f"SELECT id FROM faces WHERE {term} ORDER BY id LIMIT {_MOST_NAMED}"  # noqa: S608 - as above
        return Named(self._count(term), [face_id for (face_id,) in self._db.execute(query)])
