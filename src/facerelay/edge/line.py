"""Who goes next: live faces first, the backlog fills the rest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from facerelay.edge.outbox import Outbox, Waiting

_PAGE: Final = 64


class Line:
    """Waiting faces in the order of their sending; few in memory, however many wait on the disk.

    Args:
        outbox: where they wait.
        live_bytes: of faces just captured that are kept in memory; past it they join the backlog.
    """

    def __init__(self, outbox: Outbox, *, live_bytes: int) -> None:
        self._outbox = outbox
        self._live: deque[Waiting] = deque()
        self._room = live_bytes
        self._page: deque[Waiting] = deque()
        self._cursor = 0
        self._drained = False
        self._known: set[str] = set()

    def arrived(self, faces: Iterable[Waiting]) -> None:
        """Take in faces just captured."""
        for face in faces:
            if len(face.data) > self._room:
                self._drained = False
                continue
            self._room -= len(face.data)
            self._live.append(face)
            self._known.add(face.id)

    def gone(self, ids: Iterable[str]) -> None:
        """Forget faces that wait no longer."""
        self._known.difference_update(ids)

    async def take(self, room: int) -> Waiting | None:
        """Return the next face of at most `room` bytes; None where there is none, or it must wait."""
        while True:
            if not self._live and not self._page and not self._drained:
                await self._turn_page()
            queue = self._live or self._page
            if not queue or len(queue[0].data) > room:
                return None
            face = queue.popleft()
            if queue is self._live:
                self._room += len(face.data)
            if face.id in self._known:
                return face

    async def _turn_page(self) -> None:
        while not self._page and not self._drained:
            self._drained = True  # unless a face joins the backlog while this page is read
            rows = await asyncio.wrap_future(self._outbox.backlog(self._cursor, _PAGE))
            self._drained = self._drained and not rows
            for face in rows:
                self._cursor = face.row
                if face.id not in self._known:
                    self._known.add(face.id)
                    self._page.append(face)
