"""Parked faces that go again: when a store reads what an older one did not, or when the operator says so."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Final

from facerelay.edge import parked
from facerelay.edge.outbox import Outbox
from facerelay.edge.parked import Asked
from facerelay.face import SCHEMA
from facerelay.messages import Hello
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

VERSION: Final = "version"
"""The reason of faces that were of a later version than the store reads."""

_LOOK_S: Final = 1.0
_PAUSE_S: Final = 60.0
"""Between two hellos that had faces sent: whoever says old ones again must not have them sent without end."""

_AT_ONCE: Final = 500


class Again:
    """Has parked faces wait again.

    Those of a version that a store did not read go by themselves once a store says hello that reads it.

    Args:
        outbox: where they are parked.
        site: whose they are, for receipts of other sites do not come here.
        pause_s: seconds between two hellos that have faces sent, at least.
    """

    def __init__(self, outbox: Outbox, *, site: str, pause_s: float = _PAUSE_S) -> None:
        self._outbox = outbox
        self._site = site
        self._pause_s = pause_s
        self._read = asyncio.Event()
        self._seldom = Seldom(log)

    def on_hello(self, hello: Hello) -> None:
        """Take note of a store that reads what we write."""
        if hello.reads >= SCHEMA:
            self._read.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heed_stores())
            group.create_task(self._heed_operator())

    async def _heed_stores(self) -> None:
        while True:
            await self._read.wait()
            self._read.clear()
            gone = await self._send(Asked(reason=VERSION))
            await asyncio.sleep(self._pause_s if gone else _LOOK_S)

    async def _heed_operator(self) -> None:
        while True:
            path = self._outbox.path
            if parked.is_asked(path) and (asked := await asyncio.to_thread(parked.hear, path)):
                await self._send(asked)
            await asyncio.sleep(_LOOK_S)

    async def _send(self, asked: Asked) -> int:
        try:
            n = await resend(self._outbox, asked, site=self._site)
        except sqlite3.Error as error:
            form = "the outbox: %s: parked faces stay parked: say `facerelay resend` when its disk has room"
            self._seldom.say(logging.ERROR, "disk", form, error)
            return 0
        if n:
            log.info("%d parked faces go again%s", n, f" ({asked.reason})" if asked.reason else "")
        return n


async def resend(outbox: Outbox, asked: Asked, *, site: str | None = None) -> int:
    """Have parked faces wait again; returns how many.

    Args:
        outbox: where they are parked.
        asked: which.
        site: takes the outbox's own of a site; None takes those it inherited, too.

    Raises:
        sqlite3.Error: the disk fails; some may wait already.
    """
    total = after = 0
    while True:
        found = await asyncio.wrap_future(outbox.resend(after, _AT_ONCE, reason=asked.reason, site=site))
        total += len(found)
        if len(found) < _AT_ONCE:
            return total
        after = found[-1].row
