"""What a command's exit code says: one table, which the code goes by and the reference is made of."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from facerelay import settings
from facerelay.cloud.contract import BucketError


class Exit(IntEnum):
    """The exit codes of every command."""

    FINE = 0
    UNWELL = 1
    WRONG = 2
    UNREACHABLE = 3
    FAULT = 70
    INTERRUPTED = 130


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.FINE: "all is well; a role was asked to end, and did",
    Exit.UNWELL: (
        "not so: books that do not close, a lost face, an alarm that is critical, a failed check, a face"
        " without its receipt, a file that is in the way, a question answered with no"
    ),
    Exit.WRONG: "a wrong setting or option, or a package that is not installed: the same words fail again",
    Exit.UNREACHABLE: (
        "no answer: the bucket is out of reach, not there, or lets nobody in. Nothing is said of the faces;"
        " try again"
    ),
    Exit.FAULT: "a fault of facerelay, with its traceback: please report it",
    Exit.INTERRUPTED: "ended by Ctrl-C before it was done",
}
"""What each says, for people."""

_BUCKET: Final = {"unreachable": Exit.UNREACHABLE, "denied": Exit.UNREACHABLE, "no-bucket": Exit.UNREACHABLE,
                  "setting": Exit.WRONG}  # fmt: skip


def code_of(error: Exception) -> Exit | None:
    """Return the code that an error ends a command with; None where it is a fault of ours."""
    if isinstance(error, settings.ConfigError | ModuleNotFoundError):
        return Exit.WRONG
    if isinstance(error, BucketError):
        return _BUCKET.get(error.fault, Exit.UNWELL)
    if isinstance(error, ConnectionError | TimeoutError):
        return Exit.UNREACHABLE
    ours = type(error).__module__.startswith("facerelay.")
    return Exit.UNWELL if ours or isinstance(error, OSError) else None
