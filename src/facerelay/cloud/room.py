"""How many objects the books may take, however many outboxes somebody makes up."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Final

from facerelay.cloud.contract import Bucket

_MOST: Final = 20_000
_MOST_OF_SITE: Final = 500
_ANEW_S: Final = 3600.0


class Room:
    """Knows which objects are there, site by site; each is listed when it is first asked for.

    Args:
        bucket: where they lie.
        root: the prefix under which each site has a folder.
    """

    def __init__(self, bucket: Bucket, root: str) -> None:
        self._bucket = bucket
        self._root = root
        self._there: dict[str, set[str]] = {}
        self._anew_at = time.monotonic() + _ANEW_S

    async def takes(self, folder: str, key: str) -> bool:
        """Whether an object is there already, or may be made; what is there is looked at anew each hour.

        Raises:
            BucketError: the bucket failed.
        """
        if time.monotonic() > self._anew_at:
            self._there, self._anew_at = {}, time.monotonic() + _ANEW_S
        if key in self._there.get(folder, ()):
            return True
        if sum(map(len, self._there.values())) >= _MOST:
            return False
        if folder not in self._there:
            self._there[folder] = await self._listed(folder)
        there = self._there[folder]
        if key not in there and len(there) >= _MOST_OF_SITE:
            return False
        there.add(key)
        return True

    async def _listed(self, folder: str) -> set[str]:
        """Return the objects that a site has, so many at most."""
        found: set[str] = set()
        async with aclosing(self._bucket.list(f"{self._root}/{folder}")) as entries:  # type: ignore[type-var]
            async for entry in entries:
                found.add(entry.key)
                if len(found) >= _MOST_OF_SITE:
                    break
        return found
