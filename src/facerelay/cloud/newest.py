"""The newest faces of a bucket, by the order of its keys: a few partitions are listed, never all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, Children

_LEVELS_EVERY_S: Final = 5.0
_LISTINGS: Final = 300
_REST: Final = 3
_WIDEST: Final = 500
_PENDING: Final = 5_000
_REMEMBERED: Final = 2_000
_TOP: Final = "~"
"""Later than any time, as text."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A face to show: its key, and what the key says."""

    key: str
    site: str
    camera: str
    time: str


class Newest:
    """Looks for the newest faces when asked, one look at a time, however many ask.

    Args:
        bucket: where.
        most: faces to find.
        every_s: looks are that far apart, and three times as far as the last one took.
        listings: of a look, at most; with more cameras than that, not all of them are looked at.
    """

    def __init__(
        self, bucket: Bucket, *, most: int = 60, every_s: float = 0.9, listings: int = _LISTINGS
    ) -> None:
        self._bucket = bucket
        self._most = most
        self._every_s = every_s
        self._listings = listings
        self._next_at = -float("inf")
        self._one = asyncio.Lock()
        self._levels: dict[str, list[str]] = {}
        self._levels_at = -float("inf")
        self._found: list[Shown] = []

    async def look(self) -> list[Shown]:
        """Return the newest faces, the newest first.

        Raises:
            BucketError: the bucket cannot be read.
        """
        async with self._one:
            begin = time.monotonic()
            if begin >= self._next_at:
                try:
                    self._found = await self._search()
                finally:
                    end = time.monotonic()
                    self._next_at = max(begin + self._every_s, end + _REST * (end - begin))
        return self._found

    async def _search(self) -> list[Shown]:
        """Open the partition that ends the latest, again and again, until none can hold a newer face."""
        if time.monotonic() - self._levels_at >= _LEVELS_EVERY_S or len(self._levels) > _REMEMBERED:
            self._levels.clear()
            self._levels_at = time.monotonic()
        left = self._listings
        found: list[Shown] = []
        pending = [(_TOP, keys.ROOT)]
        while pending and left:
            end, prefix = pending.pop()
            if len(found) >= self._most and found[-1].time >= end:
                break
            below = self._levels.get(prefix)
            if below is None:
                left -= 1
                level = await self._bucket.children(prefix)
                found += self._faces(level)
                found = sorted(found, key=lambda one: one.time, reverse=True)[: self._most]
                below = _partitions(prefix, level)
                if below:  # an empty level is looked at again: the first face of all shows at once
                    self._levels[prefix] = below
            pending = sorted([*pending, *((_end(one), one) for one in below)])[-_PENDING:]
        return found

    def _faces(self, level: Children) -> list[Shown]:
        known = [(entry.key, keys.parse(entry.key)) for entry in level.entries[-self._most :]]
        return [Shown(key, at.site, at.camera, at.time.isoformat()) for key, at in known if at]


def _partitions(prefix: str, level: Children) -> list[str]:
    """Return the partitions below a prefix; a date that no right clock can say is passed over."""
    depth = prefix.count("/")
    if depth == len(keys.LEVELS):
        return []
    name, latest = list(keys.LEVELS)[depth], keys.tomorrow()
    found = [value for value in keys.values(level, name) if name != "date" or value <= latest]
    return [f"{prefix}/{name}={value}" for value in found[-_WIDEST:]]


def _end(prefix: str) -> str:
    """Return a text that sorts after the time of any face below a prefix, before that of any later one."""
    _, *parts = prefix.split("/")
    found = dict(part.split("=", 1) for part in parts)
    if "date" not in found:
        return _TOP
    return f"{found['date']}T{found.get('hour', '')}{_TOP}"
