"""A bucket in a folder: never a partial file under a final name, and durable before it is answered.

A file is written under `.partial`, synchronised, then linked to its final name, which fails if that
exists, in one step; then the folder is synchronised. Many PUTs at once share one thread, and so the
journal's commits: the first synchronisation of a group pays for the rest.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from facerelay.cloud import files
from facerelay.cloud.contract import (
    Bucket,
    BucketError,
    Children,
    Entry,
    Fault,
    MissingError,
    check_key,
    check_prefix,
)

_PARTIAL: Final = ".partial"
_STALE_S: Final = 3600
_GROUP: Final = 64
_THREADS: Final = 2
_REMEMBERED: Final = 10_000
_NO_LINKS: Final = {errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_DEFINITE: Final = {errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR}


@dataclass(slots=True)
class _Write:
    """One file to write, and who waits for it."""

    path: Path
    data: bytes
    over: bool
    done: asyncio.Future[bool]
    partial: Path
    outcome: bool | OSError = False


class FolderBucket(Bucket):
    """Objects as files below a folder; names that start with a dot are not objects."""

    def __init__(self, root: Path, *, url: str) -> None:
        self.url = url
        self._root = root.absolute()
        self._ready = False
        self._durable: set[Path] = set()
        self._waiting: list[_Write] = []
        self._busy = 0
        self._groups: set[asyncio.Task[None]] = set()

    async def put_new(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",  # noqa: ARG002 - a file's name says it
        metadata: Mapping[str, str] | None = None,  # noqa: ARG002 - the picture's EXIF says it
    ) -> bool:
        """Create a file; False where one exists."""
        return await self._write(key, data, over=False)

    async def put(self, key: str, data: bytes, *, content_type: str = "application/json") -> None:  # noqa: ARG002
        """Write a file over whatever is there."""
        await self._write(key, data, over=True)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read a file."""
        path = self._path(key)
        try:
            return await asyncio.to_thread(files.read, path, key, max_bytes)
        except OSError as error:
            raise self._explain(key, error) from error

    async def delete(self, key: str) -> None:
        """Delete a file, and the folders that it leaves empty."""
        path = self._path(key)
        try:
            await asyncio.to_thread(files.delete, path, self._root)
        except OSError as error:
            raise self._explain(key, error) from error

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        """Yield the files below a prefix, folder by folder."""
        pending = [check_prefix(prefix)]
        while pending:
            here = pending.pop()
            level = await self.children(here)
            for entry in level.entries:
                if after is None or entry.key > after:
                    yield entry
            pending += [f"{here}/{name}" if here else name for name in reversed(level.folders)]

    async def children(self, prefix: str = "") -> Children:
        """Return one level below a prefix."""
        bare = check_prefix(prefix)
        try:
            return await asyncio.to_thread(files.children, self._root / bare, bare)
        except OSError as error:
            raise self._explain(bare, error) from error

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    async def _write(self, key: str, data: bytes, *, over: bool) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        partial = self._root / _PARTIAL / f"{os.getpid()}-{secrets.token_hex(8)}"
        self._waiting.append(_Write(self._path(key), data, over, done, partial))
        if self._busy < _THREADS:
            self._busy += 1
            group = asyncio.create_task(self._drain())
            self._groups.add(group)
            group.add_done_callback(self._groups.discard)
        try:
            return await done
        except FileNotFoundError as error:
            self._ready = False
            raise BucketError(key, f"the folder of bucket.url ({self.url}) went away") from error
        except OSError as error:
            raise self._explain(key, error) from error

    async def _drain(self) -> None:
        """Write what waits, a group at a time, until nothing does."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
                try:
                    await asyncio.to_thread(self._write_group, group)
                except OSError as error:
                    for write in group:
                        write.outcome = error
                for write in group:
                    _answer(write)
        finally:
            self._busy -= 1

    def _write_group(self, group: Sequence[_Write]) -> None:
        """Write, synchronise, name: in this order for the whole group, so that journal commits are shared."""
        self._make_ready()
        opened: list[tuple[_Write, int]] = []
        for write in group:
            try:
                fd = os.open(write.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                opened.append((write, fd))
                files.write_all(fd, write.data)
                files.start_writing(fd)
            except OSError as error:
                write.outcome = error
        for write, fd in opened:
            _synchronise(write, fd)
        for write in group:
            if not isinstance(write.outcome, OSError):
                self._name(write)
            write.partial.unlink(missing_ok=True)
        named = [write for write in group if not isinstance(write.outcome, OSError)]
        for folder in {write.path.parent for write in named}:
            try:
                files.sync_folder(folder)
            except OSError as error:
                for write in named:
                    write.outcome = error if write.path.parent == folder else write.outcome

    def _name(self, write: _Write) -> None:
        for last in (False, True):
            try:
                self._make_folder(write.path.parent)
                write.outcome = _give_name(write)
            except FileNotFoundError as error:  # emptied and removed between the two steps: make it anew
                self._durable.clear()
                write.outcome = error
            except OSError as error:
                write.outcome = error
                return
            if last or not isinstance(write.outcome, OSError):
                return

    def _make_ready(self) -> None:
        """Make the folder for partial files, and remove what a crash left there long ago."""
        if self._ready:
            return
        partial = self._root / _PARTIAL
        partial.mkdir(parents=True, exist_ok=True)
        with os.scandir(partial) as found:
            for item in found:
                with suppress(FileNotFoundError):
                    if item.stat(follow_symlinks=False).st_mtime < time.time() - _STALE_S:
                        Path(item.path).unlink()
        self._ready = True

    def _make_folder(self, folder: Path) -> None:
        """Make a folder whose own name survives a power cut; each is looked at once in a process."""
        if folder in self._durable:
            return
        if folder != self._root:
            self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True, parents=folder == self._root)
        files.sync_folder(folder.parent)
        if len(self._durable) >= _REMEMBERED:
            self._durable.clear()
        self._durable.add(folder)

    def _explain(self, key: str, error: OSError) -> BucketError:
        if isinstance(error, FileNotFoundError):
            return MissingError(key)
        fault: Fault = "refused" if error.errno in _DEFINITE else "unreachable"
        hint = f"check the folder of bucket.url ({self.url}), its permissions and its free space"
        return BucketError(key, f"{error.strerror}: {hint}", fault)


def _answer(write: _Write) -> None:
    if write.done.done():
        return
    if isinstance(write.outcome, OSError):
        write.done.set_exception(write.outcome)
    else:
        write.done.set_result(write.outcome)


def _synchronise(write: _Write, fd: int) -> None:
    try:
        if not isinstance(write.outcome, OSError):
            os.fsync(fd)
    except OSError as error:
        write.outcome = error
    try:
        os.close(fd)
    except OSError as error:
        write.outcome = error


def _give_name(write: _Write) -> bool:
    if write.over:
        write.partial.replace(write.path)
        return True
    try:
        os.link(write.partial, write.path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_new(write)
    return True


def _rename_new(write: _Write) -> bool:
    """Where hard links are refused (s3fs, FAT): look, rename, and look at what lies there afterwards."""
    if write.path.exists():
        return False
    write.partial.replace(write.path)
    return write.path.read_bytes() == write.data
