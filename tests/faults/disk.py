"""A small filesystem for the outbox, in memory, that can be filled: seen by this process and its children.

It lies in a mount namespace of our own, and so is gone with the last of us, however we end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path
from typing import Final

_NEW_NAMESPACE: Final = 0x00020000  # CLONE_NEWNS of <linux/sched.h>
_PIECE: Final = 262_144
_PAGE: Final = 4096


class Disk:
    """A mounted small filesystem."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("wb", buffering=0) as file:
            for piece in (_PIECE, _PAGE):
                try:
                    while True:
                        file.write(bytes(piece))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

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
    return Disk(folder)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
