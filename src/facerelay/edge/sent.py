"""What was handed to the broker: bytes for the books and for the rate, ids where its word is enough."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from facerelay.edge.outbox import Outbox, Waiting

_SPAN_S: Final = 10.0
_STEP_S: Final = 1.0
_OWED_S: Final = 1.0
"""Bytes wait so long for an answer that they can be written down with: a commit of their own is an fsync."""


class Sent:
    """Counts what was sent, and writes it down now and then.

    Args:
        outbox: where it is written.
        clock: monotonic seconds.
    """

    def __init__(self, outbox: Outbox, *, clock: Callable[[], float]) -> None:
        self._outbox = outbox
        self._clock = clock
        self._began = clock()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._bytes_since = self._began
        self._gone: list[str] = []
        self._steps: deque[tuple[float, int]] = deque()

    def add(self, face: Waiting, *, gone: bool) -> None:
        """Take note of a face that the broker has; `gone` where nothing more is waited for."""
        size = len(face.data)
        now = self._clock()
        if not self._bytes:
            self._bytes_since = now
        self._bytes[face.site, face.camera] += size
        if gone:
            self._gone.append(face.id)
        if self._steps and now - self._steps[-1][0] < _STEP_S:
            self._steps[-1] = self._steps[-1][0], self._steps[-1][1] + size
        else:
            self._forget(now)
            self._steps.append((now, size))

    @property
    def rate(self) -> float:
        """Bytes per second, over the last ten seconds or since the beginning."""
        now = self._clock()
        self._forget(now)
        span = min(_SPAN_S, max(_STEP_S, now - self._began))
        return sum(size for _, size in self._steps) / span

    @property
    def owed(self) -> bool:
        """Whether something was sent that is not written down."""
        return bool(self._gone or self._bytes)

    async def write_down(self) -> None:
        """Write down what was sent; bytes alone once they have waited for a while.

        Raises:
            sqlite3.Error: the disk does not take it; ids are tried again.
        """
        gone = list(self._gone)
        if gone or self._clock() - self._bytes_since >= _OWED_S:
            self.count()
        if gone:
            await asyncio.wrap_future(self._outbox.sent(gone))
            del self._gone[: len(gone)]

    def count(self) -> None:
        """Hand the bytes to the outbox, before something else that it is to write."""
        tally, self._bytes = self._bytes, Counter()
        for (site, camera), n in tally.items():
            self._outbox.count(site, camera, bytes=n)

    def _forget(self, now: float) -> None:
        while self._steps and self._steps[0][0] <= now - _SPAN_S:
            self._steps.popleft()
