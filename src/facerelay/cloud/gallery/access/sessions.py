"""Sessions: who has logged in, known by a random cookie; in memory, so that a restart ends them all."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

_MOST: Final = 1_000
_BYTES: Final = 32


class Session:
    """One login.

    Attributes:
        name: who it is, as the access log has it.
        may_erase: whether this one may.
        until: when it ends, of the monotonic clock.
        over: set when it has ended.
    """

    def __init__(self, name: str, *, may_erase: bool, until: float) -> None:
        self.name = name
        self.may_erase = may_erase
        self.until = until
        self.over = asyncio.Event()


class Sessions:
    """The sessions of a page, so many at most: then the oldest goes.

    What is kept is a hash of each cookie, so that memory that leaks opens nothing.

    Args:
        hours: for which one lasts.
    """

    def __init__(self, *, hours: float) -> None:
        self.seconds = hours * 3600
        self._known: dict[bytes, Session] = {}

    def start(self, name: str, *, may_erase: bool) -> str:
        """Begin a session, and return its cookie."""
        now = time.monotonic()
        for key in [key for key, session in self._known.items() if session.until <= now]:
            self._end(key)
        while len(self._known) >= _MOST:
            self._end(next(iter(self._known)))
        cookie = secrets.token_urlsafe(_BYTES)
        self._known[_key(cookie)] = Session(name, may_erase=may_erase, until=now + self.seconds)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None where there is none any more."""
        session = self._known.get(_key(cookie))
        if session is not None and session.until <= time.monotonic():
            self._end(_key(cookie))
            return None
        return session

    def end(self, cookie: str) -> None:
        """End a session, and the streams that were opened in it."""
        self._end(_key(cookie))

    def _end(self, key: bytes) -> None:
        if session := self._known.pop(key, None):
            session.over.set()


async def while_open(events: AsyncGenerator[bytes, None], session: Session | None) -> AsyncIterator[bytes]:
    """Yield events until their session is over; for ever without one."""
    if session is None:
        async for event in events:
            yield event
        return
    over = asyncio.ensure_future(session.over.wait())
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            left = max(0.0, session.until - time.monotonic())
            await asyncio.wait({coming, over}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() or session.over.is_set() or (found := coming.result()) is None:
                return
            yield found
    finally:
        over.cancel()
        if coming is not None and not coming.done():
            coming.cancel()  # which ends what it waits in
        else:
            await events.aclose()


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode(errors="replace")).digest()
