"""Who goes next: live faces first, cameras in turn, each its best; the backlog fills the rest."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from facerelay.edge.held import Resend
from facerelay.edge.outbox import Outbox, Waiting
from facerelay.edge.turns import Turns

_PAGE: Final = 64
_LIVE_S: Final = 1.0
"""A face that was not sent within this time is live no more: it joins the backlog."""


class Line:
    """Waiting faces in the order of their sending; few in memory, however many wait on the disk.

    Args:
        outbox: where they wait.
        live_bytes: of faces just captured that are kept in memory; past it they join the backlog.
        clock: monotonic seconds.
    """

    def __init__(
        self, outbox: Outbox, *, live_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._live: dict[str, tuple[float, Waiting]] = {}
        self._turns = Turns()
        self._room = self._most = live_bytes
        self._page: deque[Waiting] = deque()
        self._back: deque[Resend] = deque()
        self._cursor = 0
        self._drained = self._stale = False
        self._known: set[str] = set()
        self._left: set[str] | None = None

    def arrived(self, faces: Iterable[Waiting]) -> None:
        """Take in faces just captured."""
        self._age()
        now = self._clock()
        for face in faces:
            if len(face.data) > self._room:
                self._drained = False
                continue
            self._room -= len(face.data)
            self._live[face.id] = now, face
            self._turns.add(face.id, (face.site, face.camera), quality=face.quality, row=face.row)
            self._known.add(face.id)

    def gone(self, ids: Iterable[str]) -> None:
        """Forget faces that wait no longer."""
        for face_id in ids:
            self._known.discard(face_id)
            if face_id in self._live:
                self._leave(face_id)
            if self._left is not None:
                self._left.add(face_id)

    def again(self, row: int) -> None:
        """Read the backlog again from a row: faces there wait again."""
        self._cursor = min(self._cursor, row - 1)
        self._drained = False
        self._stale = True

    def back(self, faces: Iterable[Resend]) -> None:
        """Take back faces that were taken before, and wait still; they go before the rest of the backlog."""
        self._back += faces
        self._drained = self._drained and not self._back

    @property
    def behind(self) -> int:
        """The row behind which all lie that wait here."""
        rows = [face.row for _, face in self._live.values()]
        rows += [face.row for face in self._page] + [face.row for face in self._back]
        return min((self._cursor, *(row - 1 for row in rows)))

    def waits(self, face_id: str) -> bool:
        """Whether a face that was taken still waits for its answer."""
        return face_id in self._known

    @property
    def live_bytes(self) -> int:
        """Bytes of live faces that were not taken."""
        return self._most - self._room

    def take_live(self, room: int) -> Waiting | None:
        """Return the live face whose turn it is; None if there is none, or it has more than `room` bytes."""
        self._age()
        face_id = self._turns.first
        if face_id is None or len(self._live[face_id][1].data) > room:
            return None
        self._turns.sent(face_id)
        return self._forget(face_id)

    async def take_old(self, room: int) -> Waiting | None:
        """Return the next face of the backlog, of at most `room` bytes; None where there is none.

        None too while a live face waits for room: it goes first.

        Raises:
            sqlite3.Error: the disk fails; what waits there is still to be taken.
        """
        while not self._live:
            if not self._page and not self._drained:
                await self._turn_page()
                continue
            if not self._page or len(self._page[0].data) > room:
                return None
            face = self._page.popleft()
            if face.id in self._known:
                return face
        return None

    def _leave(self, face_id: str) -> Waiting:
        self._turns.drop(face_id)
        return self._forget(face_id)

    def _forget(self, face_id: str) -> Waiting:
        _, face = self._live.pop(face_id)
        self._room += len(face.data)
        return face

    def _age(self) -> None:
        """Let those that were live for long join the backlog; it is read again from the first of them."""
        before = self._clock() - _LIVE_S
        while self._live:
            face_id, (since, face) = next(iter(self._live.items()))
            if since > before:
                return
            self._leave(face_id)
            self._known.discard(face_id)
            self._cursor = min(self._cursor, face.row - 1)
            self._drained = False

    async def _turn_page(self) -> None:
        while self._back and not self._page:
            await self._read_back()
        while not self._page and not self._drained:
            self._drained, self._stale = True, False  # unless a face joins the backlog meanwhile
            begin, self._left = self._cursor, set()
            try:
                rows = await asyncio.wrap_future(self._outbox.backlog(begin, _PAGE))
            except sqlite3.Error:
                self._drained = False
                raise
            finally:
                left, self._left = self._left, None
            self._drained = self._drained and not rows
            if self._stale or self._cursor < begin:
                return  # read again: a face of before joined the backlog, or one in this page waits again
            for face in rows:
                self._cursor = face.row
                if face.id not in self._known and face.id not in left:
                    self._known.add(face.id)
                    self._page.append(face)

    async def _read_back(self) -> None:
        some, self._left = list(itertools.islice(self._back, _PAGE)), set()
        try:
            rows = await asyncio.wrap_future(self._outbox.those([face.row for face in some]))
        finally:
            left, self._left = self._left, None
        for _ in some:
            self._back.popleft()
        wanted = {face.id for face in some if face.id in self._known and face.id not in left}
        self._page += [face for face in rows if face.id in wanted]
        if moved := wanted - {face.id for face in rows}:  # to other rows, when a damaged file was replaced
            self._known -= moved
            self.again(1)
