"""A bucket whose requests are counted: in all, and for whoever wants to know what a piece of work cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from facerelay.cloud.contract import Bucket, Children, Entry

PAGE: Final = 1000
"""Objects that one listing request answers with, at most."""


@dataclass(slots=True)
class Tally:
    """Counts requests, for itself and for the work that it is a part of."""

    whole: Tally | None = None
    requests: int = 0


_here: ContextVar[Tally | None] = ContextVar("requests", default=None)


@contextmanager
def counting() -> Iterator[Tally]:
    """Count the requests that are made until the block ends, by its tasks as well."""
    tally = Tally(_here.get())
    token = _here.set(tally)
    try:
        yield tally
    finally:
        _here.reset(token)


class CountedBucket(Bucket):
    """Another bucket, and how many requests were made of it.

    A listing counts one for each thousand objects, as S3 pages it. What a request retries, or what a
    server does behind it, is not seen.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.url = bucket.url
        self.paged = bucket.paged
        self.requests = 0
        self._bucket = bucket

    async def put_new(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        sha256: str | None = None,
    ) -> bool:
        """Create an object."""
        self._count()
        return await self._bucket.put_new(
            key, data, content_type=content_type, metadata=metadata, sha256=sha256
        )

    async def put(self, key: str, data: bytes, *, content_type: str = "application/json") -> None:
        """Write an object."""
        self._count()
        await self._bucket.put(key, data, content_type=content_type)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object."""
        self._count()
        return await self._bucket.get(key, max_bytes=max_bytes)

    async def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """Read a part of an object."""
        self._count()
        return await self._bucket.get_range(key, start=start, length=length)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        self._count()
        await self._bucket.delete(key)

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        """List objects."""
        number = 0
        self._count()
        async for entry in self._bucket.list(prefix, after=after):
            if self.paged and number and number % PAGE == 0:
                self._count()
            number += 1
            yield entry

    async def children(self, prefix: str = "") -> Children:
        """Return one level."""
        self._count()
        level = await self._bucket.children(prefix)
        if self.paged:
            self._count((len(level.folders) + len(level.entries)) // PAGE)
        return level

    async def close(self) -> None:
        """Give back what is held open."""
        await self._bucket.close()

    def _count(self, number: int = 1) -> None:
        self.requests += number
        tally = _here.get()
        while tally is not None:
            tally.requests += number
            tally = tally.whole
