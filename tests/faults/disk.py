"""A small filesystem for the outbox, in memory, that can be full: seen by this process and its children.

It lies in a mount namespace of our own, and so is gone with the last of us, however we end.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Final

_NEW_NAMESPACE: Final = 0x00020000  # CLONE_NEWNS of <linux/sched.h>
_TRIES: Final = 20


class Disk:
    """A mounted small filesystem."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._size = size

    def fill(self, *, leave: int = 0) -> None:
        """Leave no room, or so many bytes: it becomes as small as what is on it, at once."""
        for _ in range(_TRIES):
            there = os.statvfs(self.folder)
            try:
                self._resize((there.f_blocks - there.f_bfree) * there.f_frsize + leave)
            except subprocess.CalledProcessError:  # somebody has written meanwhile
                continue
            return
        raise RuntimeError(f"{self.folder} cannot be made full")

    def free(self) -> None:
        """Give the room back."""
        self._resize(self._size)

    def _resize(self, size: int) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self.folder))

    def unmount(self) -> None:
        """Take it away: its folder is a folder again."""
        _run("umount", "--lazy", str(self.folder))


def mount(folder: Path, size: int) -> Disk | None:
    """Mount a filesystem of `size` bytes; None where that is not allowed. To be called before any thread."""
    try:
        unshare = ctypes.CDLL(None).unshare
    except AttributeError:  # not Linux
        return None
    if os.geteuid() or unshare(_NEW_NAMESPACE):
        return None
    folder.mkdir()
    try:
        _run("mount", "--make-rprivate", "/")
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "facerelay-soak", str(folder))
    except (OSError, subprocess.CalledProcessError):
        return None
    return Disk(folder, size)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
