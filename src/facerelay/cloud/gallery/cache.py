"""What was learnt of faces by reading them, and their thumbnails: on disk, within a budget, for one user."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_NAME: Final = "thumbnails.db"
_VERSION: Final = 1
_SPARE_BYTES: Final = 32_000_000
"""What is kept in memory, where there is no disk to keep it on."""

_MANY: Final = 500
_SHARE: Final = 20
_TOUCH_S: Final = 3600
_WAIT_S: Final = 2.0
_SCHEMA: Final = """
CREATE TABLE faces (
  key TEXT PRIMARY KEY, quality REAL, width INTEGER, height INTEGER, visit TEXT, fault TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE thumbs (key TEXT PRIMARY KEY, used INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX thumbs_used ON thumbs (used);
"""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a face's bytes say that its key does not.

    Attributes:
        quality: of the picture, 0 to 1.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        visit: equal for the faces of one visit to a camera.
        fault: why the picture cannot be shown; empty where it can be.
        sealed: whether this was sealed; then nothing of it comes on a disk.
    """

    quality: float | None = None
    width: int | None = None
    height: int | None = None
    visit: str | None = None
    fault: str = ""
    sealed: bool = False


class Cache:
    """Facts and thumbnails by the faces' keys, in SQLite; all of it can be lost, and is made anew.

    One thread does the work. What is deleted is overwritten. Where the folder cannot be written, a little
    is kept in memory; what was sealed is kept nowhere else.

    Args:
        folder: made if it is not there, mode 0700; None: memory alone.
        max_bytes: of the file.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int) -> None:
        self._sealed = None if folder is None else Cache(None, max_bytes=_SPARE_BYTES)
        self._folder = folder
        self._max_bytes = max_bytes
        self._db: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")

    async def __aenter__(self) -> Self:
        await self._do(self._open)
        if self._sealed is not None:
            await self._sealed.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sealed is not None:
            await self._sealed.__aexit__()
        await self._do(self._close)
        self._thread.shutdown()

    async def learnt(self, keys: Sequence[str]) -> Mapping[str, Learnt]:
        """Return what is known of faces; those not read yet are left out."""
        found = await self._do(lambda: self._learnt(keys))
        if self._sealed is not None:
            more = await self._sealed.learnt([key for key in keys if key not in found])
            found |= {key: replace(one, sealed=True) for key, one in more.items()}
        return found

    async def learn(self, known: Mapping[str, Learnt]) -> None:
        """Keep what was read of faces."""
        here = {key: one for key, one in known.items() if self._sealed is None or not one.sealed}
        if here:
            await self._do(lambda: self._learn(here))
        if self._sealed is not None:
            await self._sealed.learn({key: one for key, one in known.items() if one.sealed})

    async def thumb(self, key: str) -> bytes | None:
        """Return a thumbnail, if there is one."""
        if kept := await self._do(lambda: self._thumb(key)):
            return kept
        return None if self._sealed is None else await self._sealed.thumb(key)

    async def keep(self, key: str, learnt: Learnt, thumb: bytes | None) -> None:
        """Keep what was read of a face, and its thumbnail."""
        if learnt.sealed and self._sealed is not None:
            await self._sealed.keep(key, learnt, thumb)
        else:
            await self._do(lambda: self._keep(key, learnt, thumb))

    async def drop(self, keys: Iterable[str]) -> None:
        """Delete faces; their bytes are overwritten."""
        gone = list(keys)
        if gone:
            await self._do(lambda: self._drop(gone))
            if self._sealed is not None:
                await self._sealed.drop(gone)

    async def keys(self, *, after: str = "", most: int = 1000) -> list[str]:
        """Return the next keys of which anything is kept, in their order."""
        found = await self._do(lambda: self._keys(after, most))
        if self._sealed is not None:
            found = sorted([*found, *await self._sealed.keys(after=after, most=most)])[:most]
        return found

    async def size(self) -> int:
        """Return the bytes in use, on disk where there is one."""
        return await self._do(self._size)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._guarded(work))

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            log.warning("the cache of thumbnails (%s) fails, and is begun anew: %s", self._folder, error)
            self._begin_anew(wrong=isinstance(error, sqlite3.DatabaseError) and not _is_busy(error))
            return work()

    def _open(self) -> None:
        if self._folder is None:
            self._in_memory()
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            self._db = _opened(str(self._folder / _NAME))
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                self._begin_anew(wrong=True)
                return
            form = "gallery.cache (%s) cannot be used: thumbnails are kept in memory, until the end: %s"
            log.warning(form, self._folder, error)
            self._in_memory()

    def _begin_anew(self, *, wrong: bool) -> None:
        """Open the file again; without what it held, if that is damaged; else go on in memory."""
        self._close()
        try:
            if self._folder is None:
                self._in_memory()
                return
            if wrong:
                for name in (_NAME, f"{_NAME}-wal", f"{_NAME}-shm"):
                    (self._folder / name).unlink(missing_ok=True)
            self._db = _opened(str(self._folder / _NAME))
        except (OSError, sqlite3.Error):
            self._in_memory()

    def _in_memory(self) -> None:
        self._max_bytes = min(self._max_bytes, _SPARE_BYTES)
        self._db = _opened(":memory:")

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    @property
    def _here(self) -> sqlite3.Connection:
        assert self._db is not None  # noqa: S101 - entered
        return self._db

    def _learnt(self, keys: Sequence[str]) -> dict[str, Learnt]:
        found: dict[str, Learnt] = {}
        for at in range(0, len(keys), _MANY):
            some = keys[at : at + _MANY]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, quality, width, height, visit, fault FROM faces WHERE key IN ({marks})"  # noqa: S608 - marks alone
            found |= {key: Learnt(*rest) for key, *rest in self._here.execute(query, some)}
        return found

    def _learn(self, known: Mapping[str, Learnt]) -> None:
        rows = [(key, one.quality, one.width, one.height, one.visit, one.fault) for key, one in known.items()]
        with self._here:
            self._here.executemany("INSERT OR REPLACE INTO faces VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _thumb(self, key: str) -> bytes | None:
        row = self._here.execute("SELECT data, used FROM thumbs WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        now = int(time.time())
        if now - row[1] > _TOUCH_S:
            with self._here:
                self._here.execute("UPDATE thumbs SET used = ? WHERE key = ?", (now, key))
        return bytes(row[0])

    def _keep(self, key: str, learnt: Learnt, thumb: bytes | None) -> None:
        self._learn({key: learnt})
        if thumb is None:
            return
        with self._here:
            self._here.execute(
                "INSERT OR REPLACE INTO thumbs VALUES (?, ?, ?)", (key, int(time.time()), thumb)
            )
        while self._size() > self._max_bytes and self._evict():
            pass

    def _evict(self) -> bool:
        """Delete a twentieth of the thumbnails, the longest not looked at; then of what was learnt."""
        for table, order in (("thumbs", "used"), ("faces", "key")):
            (count,) = self._here.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - words of ours
            if count:
                with self._here:
                    self._here.execute(
                        f"DELETE FROM {table} WHERE key IN"  # noqa: S608 - as above
                        f" (SELECT key FROM {table} ORDER BY {order} LIMIT ?)",
                        (max(1, count // _SHARE),),
                    )
                self._here.execute("PRAGMA incremental_vacuum").fetchall()
                return True
        return False

    def _drop(self, keys: Sequence[str]) -> None:
        with self._here:
            for table in ("thumbs", "faces"):
                self._here.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])  # noqa: S608 - words of ours
        self._here.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # the log held what was deleted

    def _keys(self, after: str, most: int) -> list[str]:
        query = (
            "SELECT key FROM faces WHERE key > ?1 UNION SELECT key FROM thumbs WHERE key > ?1"
            " ORDER BY key LIMIT ?2"
        )
        return [key for (key,) in self._here.execute(query, (after, most))]

    def _size(self) -> int:
        (pages,) = self._here.execute("PRAGMA page_count").fetchone()
        (free,) = self._here.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._here.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _opened(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
    try:
        if path != ":memory:":
            Path(path).chmod(0o600)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA secure_delete = ON").fetchall()
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA cache_size = -4000")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            with db:
                db.executescript(
                    f"DROP TABLE IF EXISTS thumbs; DROP TABLE IF EXISTS faces; {_SCHEMA}"
                    f"PRAGMA user_version = {_VERSION}"
                )
    except BaseException:
        db.close()
        raise
    return db
