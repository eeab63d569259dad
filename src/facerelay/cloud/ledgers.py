"""What a store makes of the ledgers that are its own: books, history, figures, and word of erasures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from facerelay import messages
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import Bucket
from facerelay.cloud.every import every
from facerelay.cloud.heard import Heard
from facerelay.cloud.history.diary import Diary
from facerelay.cloud.measures import Measures
from facerelay.cloud.notices import Notices
from facerelay.cloud.peers import Peers
from facerelay.mqtt import Message
from facerelay.sections import Store

log = logging.getLogger(__name__)

_BOOKS_EVERY_S: Final = 3.0
_AGAIN_S: Final = 60.0


class Ledgers:
    """Takes all ledgers, and deals with those of the outboxes that are this store's.

    Args:
        bucket: where books and history lie.
        settings: the store's.
        peers: the other stores.
        notices: tell edges what was erased.
        measures: keep figures.
        strange: called where an edge waits for the hello of a store.
        count: is told of each ledger that is not kept.
    """

    def __init__(
        self,
        bucket: Bucket,
        settings: Store,
        *,
        peers: Peers,
        notices: Notices,
        measures: Measures,
        strange: Callable[[], None],
        count: Callable[[], None],
    ) -> None:
        name = f"{settings.name}.{settings.instance}" if settings.instance else settings.name
        self._peers = peers
        self._notices = notices
        self._measures = measures
        self._strange = strange
        self._diary = Diary(bucket, store=name, met=measures.begin, owns=peers.owns_outbox)
        self._books = Books(
            bucket,
            heed=self._heed,
            keep=settings.retention,
            count=count,
            owns=peers.owns_outbox,
            every_s=settings.books_s,
        )
        self._heard = Heard(owns=peers.owns, take=self._books.take, strange=strange)

    def take(self, message: Message) -> None:
        """Take a ledger as it came."""
        self._heard.hear(message.topic, message.payload, retained=message.retain)

    def on_change(self) -> None:
        """Deal with what is this store's from now on."""
        self._books.anew()
        self._heard.look()

    async def run(self) -> None:
        """Write until cancelled: the books, and their history, aside from them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._notices.run())
            tasks.create_task(every(_BOOKS_EVERY_S, self._write))
            tasks.create_task(every(_BOOKS_EVERY_S, self._write_history))

    async def leave(self) -> None:
        """Write what is left."""
        self._beat()
        if await self._diary.meet():
            await self._books.flush()
        await self._diary.flush(everything=True)

    def _heed(self, site: str, ledger: messages.Ledger) -> None:
        """Look at an edge's books; whatever they make of that, faces are stored."""
        self._notices.hear(site, ledger)
        if ledger.link and ledger.link.strange:
            self._strange()
        try:
            self._diary.take(site, ledger)
            self._measures.hear(site, ledger)
        except Exception:
            log.exception("a fault of ours: the books of %s are kept, and have no history", site)

    def _beat(self) -> None:
        """Note that this store is at work."""
        if self._peers.connected:
            self._diary.beat()

    async def _write(self) -> None:
        self._beat()
        if await self._diary.meet():
            await self._books.flush(everything=False)

    async def _write_history(self) -> None:
        """Write the history; where that fails faces are stored all the same."""
        try:
            await self._diary.flush()
        except Exception:
            log.exception("a fault of ours: the history is not written now")
            await asyncio.sleep(_AGAIN_S)
