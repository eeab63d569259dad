"""Which folders of objects there are below `faces/`, as listings said a moment ago."""

from __future__ import annotations

import time
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, Children
from facerelay.cloud.shards.lru import LruCache

_LAST_S: Final = 5.0
_MOST: Final = 2_000


class Levels:
    """Remembers one level after another, so that what is not there is not looked for.

    Args:
        bucket: with objects.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._kept: LruCache[tuple[float, frozenset[str]]] = LruCache(_MOST)

    async def children(self, prefix: str) -> Children:
        """Return one level, and remember it.

        Raises:
            BucketError: the bucket cannot be read.
        """
        begin = time.monotonic()
        level = await self._bucket.children(prefix)
        self._kept.put(prefix, (begin, frozenset(level.folders)), 1)
        return level

    async def is_absent(self, prefix: str) -> bool:
        """Whether there are no objects below a prefix, as the levels above it said a moment ago.

        Raises:
            BucketError: the bucket cannot be read.
        """
        parts = prefix.split("/")
        if parts[0] != keys.ROOT or len(parts) < 2:  # noqa: PLR2004 - faces/ itself is looked at
            return False
        if self._folders(keys.ROOT) is None:
            await self.children(keys.ROOT)
        return self.seems_absent(prefix)

    def seems_absent(self, prefix: str) -> bool:
        """Tell the same without a request, in so far as it is known."""
        parts = prefix.split("/")
        for depth in range(1, len(parts)):
            folders = self._folders("/".join(parts[:depth]))
            if folders is not None and parts[depth] not in folders:
                return True
        return False

    def _folders(self, prefix: str) -> frozenset[str] | None:
        found = self._kept.get(prefix)
        return found[1] if found and time.monotonic() - found[0] <= _LAST_S else None
