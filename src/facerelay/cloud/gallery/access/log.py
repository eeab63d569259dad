"""The access log: a line of JSON for each view of a face, and for each login."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

Action = Literal["page", "picture", "download", "erase", "login", "logout", "login-failed", "login-refused"]

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class AccessLogError(Exception):
    """A line cannot be written: what it would tell of must not happen."""


class AccessLog:
    """Appends to a file, for this user alone. A file that was moved away is begun anew at the next line.

    Args:
        path: of the file; None: nothing is written.

    Raises:
        AccessLogError: it cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._fd: int | None = None
        if path is not None:
            self._current(path)

    def note(self, action: Action, *, who: str, address: str, faces: tuple[str, ...] = ()) -> None:
        """Write one line, or one for each face.

        Raises:
            AccessLogError: it cannot be written.
        """
        if self._path is None:
            return
        facts = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "action": action, "who": who,
                 "address": address}  # fmt: skip
        lines = [facts | {"face": face} for face in faces] or [facts]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        try:
            fd = self._current(self._path)
            while data:
                data = data[os.write(fd, data) :]
        except OSError as error:
            raise AccessLogError(f"gallery.access_log: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _current(self, path: Path) -> int:
        """Return a descriptor of the file that has the name now."""
        try:
            if self._fd is not None:
                if _is_at(self._fd, path):
                    return self._fd
                self.close()
            self._fd = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise AccessLogError(f"gallery.access_log: {error.strerror}: {path}") from error
        return self._fd


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)
