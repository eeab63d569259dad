"""The folders below a root, entered one name at a time: no link among them leads elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from facerelay.cloud import files
from facerelay.cloud.contract import Children, Entry, is_key

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MODE: Final = 0o750
"""Of new folders: names tell who was where and when; who could write there could have faces erased."""

_REMEMBERED: Final = 10_000
_LAST_S: Final = 253_402_300_799
"""The end of the year 9999: a file system may claim more, a datetime holds no more."""


class Tree:
    """Files and folders below a root, by keys. The root may be a link itself: people mount there.

    Every method may raise OSError; a link on the way is one of ELOOP and ENOTDIR.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root.absolute())
        self._durable: set[str] = set()

    def make_root(self) -> None:
        """Make the root, durably."""
        Path(self._root).mkdir(mode=_MODE, parents=True, exist_ok=True)
        fd = os.open(Path(self._root).parent, _FOLDER)
        try:
            files.sync_folder(fd)
        finally:
            os.close(fd)

    def open(self, folder: str, *, make: bool = False) -> int:
        """Return a descriptor of a folder; with `make`, make what is missing, each name durably."""
        fd = os.open(self._root, _FOLDER)
        path = ""
        for name in folder.split("/") if folder else ():
            path = f"{path}/{name}"
            above = fd
            try:
                if make:
                    self._make(above, path, name)
                fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
            finally:
                os.close(above)
        return fd

    @contextmanager
    def folder(self, folder: str) -> Iterator[int]:
        """Hold a folder open."""
        fd = self.open(folder)
        try:
            yield fd
        finally:
            os.close(fd)

    def forget(self) -> None:
        """Look anew at which folders are there: one of them was removed."""
        self._durable.clear()

    def read(self, key: str, max_bytes: int) -> bytes:
        """Read a plain file of at most `max_bytes`.

        Raises:
            BucketError: it is larger, or no plain file.
        """
        folder, _, name = key.rpartition("/")
        with self.folder(folder) as fd:
            return files.read(fd, name, key, max_bytes)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Read a part of a plain file; shorter where it ends before.

        Raises:
            BucketError: it is no plain file.
        """
        folder, _, name = key.rpartition("/")
        with self.folder(folder) as fd:
            return files.read_range(fd, name, key, start, length)

    def delete(self, key: str) -> None:
        """Delete a file, and the folders that it leaves empty; that there is none is fine."""
        folder, _, name = key.rpartition("/")
        with suppress(FileNotFoundError), self.folder(folder) as fd:
            os.unlink(name, dir_fd=fd)
            with suppress(OSError):
                files.sync_folder(fd)
        with suppress(OSError):
            while folder:
                folder, _, name = folder.rpartition("/")
                with self.folder(folder) as fd:
                    os.rmdir(name, dir_fd=fd)

    def children(self, prefix: str) -> Children:
        """List one folder, sorted; names that are no keys, links and devices are passed over."""
        folders: list[str] = []
        entries: list[Entry] = []
        with suppress(FileNotFoundError), self.folder(prefix) as fd, os.scandir(fd) as found:
            for item in found:
                key = f"{prefix}/{item.name}" if prefix else item.name
                if not is_key(key):
                    continue
                if item.is_dir(follow_symlinks=False):
                    folders.append(item.name)
                elif item.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        entries.append(_entry(key, item.stat(follow_symlinks=False)))
        return Children(sorted(folders), sorted(entries))

    def _make(self, above: int, path: str, name: str) -> None:
        """Make a folder whose own name survives a power cut; each is looked at once in a process."""
        if path in self._durable:
            return
        with suppress(FileExistsError):
            os.mkdir(name, _MODE, dir_fd=above)
        files.sync_folder(above)
        if len(self._durable) >= _REMEMBERED:
            self._durable.clear()
        self._durable.add(path)


def _entry(key: str, seen: os.stat_result) -> Entry:
    return Entry(key, seen.st_size, datetime.fromtimestamp(min(max(seen.st_mtime, 0), _LAST_S), UTC))
