"""A bucket whose requests are counted: in all, and for whoever wants to know what a piece of work cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from facerelay.cloud.contract import Bucket, Children, Entry, WrappedBucket

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


class CountedBucket(WrappedBucket):
    """Another bucket, and how many requests were made of it.

    A listing counts one for each thousand objects, as S3 pages it. What a request retries, or what a
    server does behind it, is not seen.
    """

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self.requests = 0

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        """List objects."""
        number = 0
        async for entry in super().list(prefix, after=after):
            if self.paged and number and number % PAGE == 0:
                self._count()
            number += 1
            yield entry

    async def children(self, prefix: str = "") -> Children:
        """Return one level."""
        level = await super().children(prefix)
        if self.paged:
            self._count((len(level.folders) + len(level.entries)) // PAGE)
        return level

    def _ask(self) -> None:
        self._count()

    def _count(self, number: int = 1) -> None:
        self.requests += number
        tally = _here.get()
        while tally is not None:
            tally.requests += number
            tally = tally.whole
