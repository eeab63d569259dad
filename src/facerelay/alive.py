"""Whether a role does its work: it says so in a file, and a container's health check reads it.

`python -m facerelay.alive` is that check. FACERELAY_ALIVE names the file; without it nothing is written.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

VARIABLE: Final = "FACERELAY_ALIVE"
EVERY_S: Final = 5.0
STALE_S: Final = 30.0
"""A role that has not spoken for so long hangs; its checks take 20 s at most."""

SILENT: Final = "it has not said yet how it does"
"""Of a role that has just begun."""

_MAX_BYTES: Final = 4096


def file() -> Path | None:
    """Return the file that the environment names, if it names one."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def say(path: Path, wrong: str) -> None:
    """Write what is wrong, or nothing: a reader never sees half of it.

    Raises:
        OSError: the file cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    new.write_text(f"{time.monotonic():.3f}\n{wrong}", encoding="utf-8")
    new.replace(path)


def read(path: Path) -> str:
    """Return what is wrong by the file of a role on this machine; nothing where it does its work."""
    try:
        with path.open("rb") as opened:
            said, _, wrong = opened.read(_MAX_BYTES).decode(errors="replace").partition("\n")
        age = time.monotonic() - float(said)
    except FileNotFoundError:
        return SILENT
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}"
    if not 0 <= age <= STALE_S:
        return f"it has not spoken for {age:.0f} s"
    return wrong


def main() -> int:
    """Print how the role does, and return 0 if it does its work."""
    path = file()
    wrong = read(path) if path else f"{VARIABLE} names no file"
    sys.stdout.write(f"{wrong or 'well'}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
