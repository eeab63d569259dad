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
    cut_short,
)
from facerelay.cloud.tree import Tree

_PARTIAL: Final = ".partial"
_STALE_S: Final = 3600
_GROUP: Final = 64
_THREADS: Final = 2
_NO_LINKS: Final = {errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_IN_THE_WAY: Final = {errno.ELOOP, errno.ENOTDIR}
_DEFINITE: Final = {errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR, *_IN_THE_WAY}


@dataclass(slots=True)
class _Write:
    """One file to write, and who waits for it."""

    folder: str
    name: str
    data: bytes
    over: bool
    done: asyncio.Future[bool]
    partial: str
    outcome: bool | OSError = False


class FolderBucket(Bucket):
    """Objects as files below a folder; names that start with a dot are not objects."""

    paged = False

    def __init__(self, root: Path, *, url: str) -> None:
        self.url = url
        self._tree = Tree(root)
        self._ready = False
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
        sha256: str | None = None,  # noqa: ARG002 - nobody asks for it
    ) -> bool:
        """Create a file; False where one exists."""
        return await self._write(key, data, over=False)

    async def put(self, key: str, data: bytes, *, content_type: str = "application/json") -> None:  # noqa: ARG002
        """Write a file over whatever is there."""
        await self._write(key, data, over=True)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read a file."""
        check_key(key)
        try:
            return await asyncio.to_thread(self._tree.read, key, max_bytes)
        except OSError as error:
            raise self._explain(key, error) from error

    async def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Read a part of a file."""
        check_key(key)
        try:
            found = await asyncio.to_thread(self._tree.read_range, key, start, length)
        except OSError as error:
            raise self._explain(key, error) from error
        if len(found) < length:
            raise cut_short(key, start, length)
        return found

    async def delete(self, key: str) -> None:
        """Delete a file, and the folders that it leaves empty."""
        check_key(key)
        try:
            await asyncio.to_thread(self._tree.delete, key)
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
            return await asyncio.to_thread(self._tree.children, bare)
        except OSError as error:
            raise self._explain(bare, error) from error

    async def _write(self, key: str, data: bytes, *, over: bool) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        folder, _, name = check_key(key).rpartition("/")
        partial = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._waiting.append(_Write(folder, name, data, over, done, partial))
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
        folders: dict[str, int] = {}
        try:
            with self._tree.folder(_PARTIAL) as partial:
                _write_partial(group, partial)
                for write in group:
                    if not isinstance(write.outcome, OSError):
                        self._name(write, partial, folders)
                    with suppress(OSError):
                        os.unlink(write.partial, dir_fd=partial)
            _make_durable(group, folders)
        finally:
            for fd in folders.values():
                os.close(fd)

    def _name(self, write: _Write, partial: int, folders: dict[str, int]) -> None:
        """Give a file its final name; `folders` are those that the group has entered."""
        for _ in range(2):
            try:
                if write.folder not in folders:
                    folders[write.folder] = self._tree.open(write.folder, make=True)
                write.outcome = _give_name(write, partial, folders[write.folder])
            except FileNotFoundError as error:  # emptied and removed between the two steps: make it anew
                write.outcome = error
                self._tree.forget()
                if write.folder in folders:
                    os.close(folders.pop(write.folder))
            except OSError as error:
                write.outcome = error
                return
            else:
                return

    def _make_ready(self) -> None:
        """Make the folder for partial files, and remove what a crash left there long ago."""
        if self._ready:
            return
        self._tree.forget()
        self._tree.make_root()
        partial = self._tree.open(_PARTIAL, make=True)
        try:
            files.remove_stale(partial, time.time() - _STALE_S)
        finally:
            os.close(partial)
        self._ready = True

    def _explain(self, key: str, error: OSError) -> BucketError:
        if isinstance(error, FileNotFoundError):
            return MissingError(key)
        fault: Fault = "refused" if error.errno in _DEFINITE else "unreachable"
        if error.errno in _IN_THE_WAY:
            hint = f"a link or a file is in the way below bucket.url ({self.url}), and not followed: move it"
            return BucketError(key, f"{error.strerror}: {hint}", fault)
        hint = f"check the folder of bucket.url ({self.url}), its permissions and its free space"
        return BucketError(key, f"{error.strerror}: {hint}", fault)


def _answer(write: _Write) -> None:
    if write.done.done():
        return
    if isinstance(write.outcome, OSError):
        write.done.set_exception(write.outcome)
    else:
        write.done.set_result(write.outcome)


def _write_partial(group: Sequence[_Write], partial: int) -> None:
    """Write all files of a group into an open folder, then synchronise them."""
    opened: list[tuple[_Write, int]] = []
    for write in group:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(write.partial, flags, 0o640, dir_fd=partial)
            opened.append((write, fd))
            files.write_all(fd, write.data)
            files.start_writing(fd)
        except OSError as error:
            write.outcome = error
    for write, fd in opened:
        _synchronise(write, fd)


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


def _make_durable(group: Sequence[_Write], folders: dict[str, int]) -> None:
    """Synchronise the folders in which a group's files got their names."""
    for folder, fd in folders.items():
        try:
            files.sync_folder(fd)
        except OSError as error:
            for write in group:
                if write.folder == folder and not isinstance(write.outcome, OSError):
                    write.outcome = error


def _give_name(write: _Write, partial: int, folder: int) -> bool:
    if write.over:
        os.replace(write.partial, write.name, src_dir_fd=partial, dst_dir_fd=folder)
        return True
    try:
        os.link(write.partial, write.name, src_dir_fd=partial, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_new(write, partial, folder)
    return True


def _rename_new(write: _Write, partial: int, folder: int) -> bool:
    """Where hard links are refused (s3fs, FAT): look, rename, and look at what lies there afterwards."""
    with suppress(FileNotFoundError):
        os.stat(write.name, dir_fd=folder, follow_symlinks=False)
        return False
    os.replace(write.partial, write.name, src_dir_fd=partial, dst_dir_fd=folder)
    with suppress(BucketError):
        return files.read(folder, write.name, write.name, len(write.data)) == write.data
    return False
