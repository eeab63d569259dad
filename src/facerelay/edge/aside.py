"""Broken outboxes, set aside: they hold faces, and fill the disk."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_KEPT: Final = 2


def place(path: Path) -> Path:
    """Return where a broken outbox will lie: beside it, under a name of this moment."""
    base = f"{path.name}.broken-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = [base, *(f"{base}-{n}" for n in range(1, 1000))]
    return next(found for name in names if not (found := path.with_name(name)).exists())


def forget_older(path: Path, before: float) -> int:
    """Delete broken outboxes that were set aside before a time, in Unix seconds; return how many.

    Raises:
        OSError: one cannot be deleted.
    """
    old = [found for found in _broken(path) if found.stat().st_ctime < before]
    for each in old:
        log.warning("%s: removed: its pictures are past outbox.expire_hours", each)
        _forget(each)
    return len(old)


def forget_oldest(path: Path) -> None:
    """Delete all but the newest of them.

    Raises:
        OSError: one cannot be deleted.
    """
    for old in sorted(_broken(path), key=lambda found: found.stat().st_ctime_ns)[:-_KEPT]:
        log.warning("%s: removed, %d newer ones are kept", old, _KEPT)
        _forget(old)


def _broken(path: Path) -> list[Path]:
    pattern = re.compile(re.escape(path.name) + r"\.broken-[0-9TZ]{16}(-\d+)?")
    return [found for found in path.parent.iterdir() if pattern.fullmatch(found.name)]


def _forget(broken: Path) -> None:
    broken.unlink()
    broken.with_name(broken.name + "-wal").unlink(missing_ok=True)
