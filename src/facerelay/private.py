"""Files that their owner alone can read, from the first byte on."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def create(path: Path, data: bytes) -> None:
    """Write a new file, mode 0600, and see it to the disk; never over another, nor through a link.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another at once: whoever reads sees the one or the other.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        create(fresh, data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
