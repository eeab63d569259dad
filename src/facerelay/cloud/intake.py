"""What arrives at a store: each message goes to who deals with it, so many at once; faces are answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from facerelay import topics
from facerelay.cloud.keep import Answer, Keeper
from facerelay.cloud.ledgers import Ledgers
from facerelay.cloud.measures import Measures
from facerelay.cloud.peers import Peers
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.receipts import Outgoing
from facerelay.mqtt import Message, Pull, Session
from facerelay.seldom import Seldom, fault_of
from facerelay.tracing import Tracer, Value

log = logging.getLogger(__name__)

Source = Session | Pull


class Intake:
    """Takes messages: faces, ledgers, and beats of other stores.

    Args:
        keeper: keeps faces, and what else comes on their topic.
        ledgers: take the books of edges.
        peers: hear other stores.
        quarantine: takes what trips us.
        outgoing: has receipts sent.
        measures: are told how many messages are in hand.
        concurrency: faces at once, and what else comes on their topic.
        receipts: whether edges are answered with receipts; else a message is acknowledged once it is durable.
        trace: is told of each face that is kept.
    """

    def __init__(
        self,
        *,
        keeper: Keeper,
        ledgers: Ledgers,
        peers: Peers,
        quarantine: Quarantine,
        outgoing: Outgoing,
        measures: Measures,
        concurrency: int,
        receipts: bool,
        trace: Tracer,
    ) -> None:
        self._keeper = keeper
        self._ledgers = ledgers
        self._peers = peers
        self._quarantine = quarantine
        self._outgoing = outgoing
        self._measures = measures
        self._gate = asyncio.Semaphore(concurrency)
        self._receipts = receipts
        self._trace = trace
        self._seldom = Seldom(log)

    async def run(self, source: Source, tasks: asyncio.TaskGroup) -> None:
        """Take what comes from a source until it ends.

        Args:
            source: of messages.
            tasks: take each one's way, and outlive the source.
        """
        async for message in source:
            if message.topic.startswith(("stores/", "ledger/")):
                await self._hear(message)
                continue
            await self._gate.acquire()
            tasks.create_task(self._take(message))

    async def answer(self, answers: Sequence[Answer]) -> None:
        """Answer for faces that were held."""
        for answer in answers:
            self._answer(answer, time.time(), twice=True)
        await self._outgoing.flush()

    async def _hear(self, message: Message) -> None:
        """Take what needs no bucket at once: while that fails, and faces fill the gate, others are heard."""
        try:
            if message.topic.startswith("stores/"):
                self._peers.hear(message.topic, message.payload)
            else:
                self._ledgers.take(message)
        except Exception as error:  # noqa: BLE001 - what one message can do to us must not stop all others
            await self._pass_over(message, error)
        message.ack()

    async def _take(self, message: Message) -> None:
        """Deal with one message, inside the gate.

        At `receipt` the promise lives in the outbox, so the broker is answered at once; at `broker` the
        broker's memory is the promise, so it is answered when the object is durable.
        """
        self._measures.in_hand += 1
        began = time.time()
        try:
            if self._receipts:
                message.ack()
            answer = await self._keeper.keep(message.topic, message.payload)
            if answer is not None:
                self._answer(answer, began)
            message.ack()
        except Exception as error:  # noqa: BLE001 - what one message can do to us must not stop all others
            await self._pass_over(message, error)
            message.ack()
        finally:
            self._measures.in_hand -= 1
            self._gate.release()

    async def _pass_over(self, message: Message, error: Exception) -> None:
        """Set aside what trips us."""
        form = "%s: %d bytes: a fault of ours (%s): passed over; please report it"
        facts = topics.shown(message.topic), len(message.payload), fault_of(error)
        self._seldom.say(logging.ERROR, "fault", form, *facts)
        self._keeper.counters.discarded["fault"] += 1
        with suppress(Exception):
            await self._quarantine.put(message.topic, message.payload, "fault")

    def _answer(self, answer: Answer, began: float, *, twice: bool = False) -> None:
        self._tell(answer, began)
        if self._receipts:
            self._outgoing.add(answer.site, answer.outbox, answer.receipt, twice=twice)

    def _tell(self, answer: Answer, began: float) -> None:
        """Tell what became of a face, where traces are on."""
        receipt = answer.receipt
        if self._trace.takes(receipt.id):
            fault = "" if receipt.outcome in {"stored", "held"} else receipt.outcome
            facts: dict[str, Value] = {
                "site": answer.site,
                "outcome": receipt.outcome,
                "duplicate": receipt.duplicate,
            }
            self._trace.span(receipt.id, "store", start=began, end=time.time(), fault=fault, **facts)
