"""Files of an enrolment: for their owner alone from the first byte on, and never half of one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facerelay import private
from facerelay.fleet.names import EnrolError


def create(path: Path, data: bytes) -> None:
    """Write a new file, mode 0600.

    Raises:
        EnrolError: there is one, or it cannot be written.
    """
    try:
        private.create(path, data)
    except FileExistsError:
        raise EnrolError(f"{path}: exists, and is not written over; move it away first") from None
    except OSError as error:
        raise EnrolError(f"{path}: {error.strerror}") from None


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another at once; whoever reads sees the one or the other.

    Raises:
        EnrolError: it cannot be written.
    """
    try:
        private.replace(path, data)
    except OSError as error:
        raise EnrolError(f"{path}: {error.strerror}") from None
    sync(path.parent)


def folder(path: Path) -> None:
    """Make a folder, mode 0700, if it is not there, and those above it.

    Raises:
        EnrolError: it cannot be made.
    """
    if not path.parent.exists():
        folder(path.parent)
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EnrolError(f"{path}: {error.strerror}") from None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a folder, so that two enrolments at once come one after the other.

    Raises:
        EnrolError: it is not there.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise EnrolError(f"{path}: {error.strerror}: is this the cloud's file? See trust.devices") from None
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def sync(path: Path) -> None:
    """See a folder's names to the disk."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
