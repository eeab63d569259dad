"""What comes down to an outbox: heard, believed or not, and acted upon."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Final

from facerelay import messages, topics
from facerelay.edge.again import Again
from facerelay.edge.held import Holder
from facerelay.edge.outbox import Outbox
from facerelay.edge.pulse import BROKER_DROPPED
from facerelay.edge.relay import Relay
from facerelay.edge.voices import IgnoredError, Voices
from facerelay.erasures import Erasures
from facerelay.mqtt import Message, Session
from facerelay.seldom import Seldom, fault_of

log = logging.getLogger(__name__)

_SAY_EVERY_S: Final = 60.0
_AT_ONCE: Final = 500


class Ear:
    """Takes receipts, hellos, erasures and the link's state from a session.

    Args:
        outbox: whose faces they speak of.
        relay: acts on receipts and on what concerns the link.
        voices: knows whose word counts.
        again: has faces sent again that a store refused, where another one reads them.
    """

    def __init__(self, outbox: Outbox, relay: Relay, voices: Voices, again: Again) -> None:
        self._outbox = outbox
        self._relay = relay
        self._again = again
        self._voices = voices
        self._erasing = asyncio.Lock()
        self._seldom = Seldom(log, every_s=_SAY_EVERY_S)

    async def listen(self, session: Session) -> None:
        """Listen until cancelled; receipts that come while the disk is at work share its next turn."""
        async with asyncio.TaskGroup() as group:
            async for message in session:
                group.create_task(self._take(message))

    async def _take(self, message: Message) -> None:
        try:
            await self._hear(message.topic, message.payload)
        finally:
            message.ack()

    async def _hear(self, topic: str, payload: bytes) -> None:
        """Act on a message; of what anybody can send by the thousand is said little."""
        try:
            await self._act(topic, payload)
        except IgnoredError as error:
            form = "%s: %s: ignored"
            self._seldom.say(logging.WARNING, error.reason, form, topics.shown(topic), error)
        except messages.WireError as error:
            self._seldom.say(logging.WARNING, "wire", "%s: %s: ignored", topics.shown(topic), error)
        except sqlite3.Error as error:
            form = "the outbox: %s: see that its disk has room; nothing is lost, it is asked again"
            self._seldom.say(logging.ERROR, "disk", form, error)
        except Exception as error:  # noqa: BLE001 - what one message can do to us must not stop the edge
            form = "%s: %d bytes: a fault of ours (%s): ignored; please report it"
            self._seldom.say(logging.ERROR, "fault", form, topics.shown(topic), len(payload), fault_of(error))

    async def _act(self, topic: str, payload: bytes) -> None:
        kind = topic.partition("/")[0]
        if kind == "receipts":
            await self._receipts(topic, payload)
        elif kind == "link":
            self._relay.on_link({topics.UP: True, topics.DOWN: False}.get(payload))
        elif topic == BROKER_DROPPED:
            self._relay.pulse.on_broker(payload)
        elif kind == "stores":
            hello = self._voices.hello(topic, payload)
            self._relay.on_hello(hello)
            self._again.on_hello(hello)
            for early in self._voices.released():
                await self._hear(*early)

    async def _receipts(self, topic: str, payload: bytes) -> None:
        batch = self._voices.receipts(topic, payload)
        if batch is None:
            form = "%s: receipts of a store that has not said hello: they wait for it"
            self._seldom.say(logging.INFO, "early", form, topics.shown(topic))
            return
        await self._relay.on_receipts(batch.receipts, Holder(batch.store, batch.instance, batch.run))
        if batch.erasures is not None:
            await self._erase(batch.store, batch.erasures)

    async def _erase(self, store: str, erasures: Erasures) -> None:
        async with self._erasing:  # one after the other, for each goes on from the mark of the one before
            n = await erase(self._outbox, erasures)
        if n:
            log.info("erased %d faces that lay here, by the word of store %s", n, store)


async def erase(outbox: Outbox, erasures: Erasures) -> int:
    """Erase what rules cover, and keep their mark; returns how many faces went.

    Raises:
        sqlite3.Error: the disk fails; the mark stays, and the store tells again.
    """
    total, after = 0, 0
    while True:
        gone = await asyncio.wrap_future(outbox.erase(erasures.rules, after, _AT_ONCE))
        total += len(gone)
        if len(gone) < _AT_ONCE:
            break
        after = gone[-1].row
    await asyncio.wrap_future(outbox.erased(erasures.since, erasures.until))
    return total
