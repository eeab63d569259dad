"""When files came to lie in a folder, by the word of Linux's inotify(7); elsewhere nothing is noted."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager

_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 16


@contextmanager
def watch(folders: Sequence[str], seen: MutableMapping[str, float]) -> Iterator[None]:
    """Note in `seen`, by path, the Unix time of the last event that made or finished a file."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    names = {
        libc.inotify_add_watch(fd, os.fsencode(folder), _CLOSE_WRITE | _MOVED_TO | _CREATE): folder
        for folder in folders
    }
    assert fd >= 0
    assert min(names) >= 0
    stop, stopper = os.pipe()
    reader = threading.Thread(target=_read, args=(fd, stop, names, seen), daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.write(stopper, b"x")
        reader.join()
        for end in (fd, stop, stopper):
            os.close(end)


def _read(fd: int, stop: int, names: dict[int, str], seen: MutableMapping[str, float]) -> None:
    while fd in (ready := select.select([fd, stop], [], [])[0]):
        data, now, at = os.read(fd, _BUFFER), time.time(), 0
        while at < len(data):
            which, _, _, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if size:
                name = os.fsdecode(data[at : at + size].rstrip(b"\0"))
                seen[f"{names[which]}/{name}"] = now
            at += size
    assert stop in ready
