"""The newest faces of a bucket, by the order of its keys: a few partitions are listed, never all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket

_CAMERAS_EVERY_S: Final = 15.0
_LOOK_BACK: Final = 200
_MAX_CAMERAS: Final = 500


@dataclass(frozen=True, slots=True)
class Shown:
    """A face to show: its key, and what the key says."""

    key: str
    site: str
    camera: str
    time: str


class Newest:
    """Looks for the newest faces when asked, at most once in `every_s` however many ask."""

    def __init__(self, bucket: Bucket, *, most: int = 60, every_s: float = 0.9) -> None:
        self._bucket = bucket
        self._most = most
        self._every_s = every_s
        self._looked_at = -float("inf")
        self._cameras: list[str] = []
        self._cameras_at = -float("inf")
        self._found: list[Shown] = []

    async def look(self) -> list[Shown]:
        """Return the newest faces, the newest first.

        Raises:
            BucketError: the bucket cannot be read.
        """
        if time.monotonic() - self._looked_at >= self._every_s:
            self._looked_at = time.monotonic()
            self._found = await self._search()
        return self._found

    async def _search(self) -> list[Shown]:
        """Take from each camera its newest, and of all these the newest."""
        if time.monotonic() - self._cameras_at >= (_CAMERAS_EVERY_S if self._cameras else 0):
            self._cameras = [under async for under in keys.cameras(self._bucket)][:_MAX_CAMERAS]
            self._cameras_at = time.monotonic()
        found: list[Shown] = []
        for under in self._cameras:
            found += [shown async for shown in self._of(under)]
        return sorted(found, key=lambda shown: shown.time, reverse=True)[: self._most]

    async def _of(self, camera: str) -> AsyncIterator[Shown]:
        """Yield a camera's newest faces, hour by hour backwards until there are enough."""
        left = self._most
        async for hour in self._hours(camera):
            level = await self._bucket.children(hour)
            for entry in reversed(level.entries[-self._most :]):
                facts = keys.parse(entry.key)
                if facts is not None:
                    yield Shown(entry.key, facts.site, facts.camera, facts.time.isoformat())
                    left -= 1
            if left <= 0:
                return

    async def _hours(self, camera: str) -> AsyncIterator[str]:
        looked = 0
        for date in reversed((await self._bucket.children(camera)).folders):
            for hour in reversed((await self._bucket.children(f"{camera}/{date}")).folders):
                yield f"{camera}/{date}/{hour}"
                looked += 1
                if looked >= _LOOK_BACK:
                    return
