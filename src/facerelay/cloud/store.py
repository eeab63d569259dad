"""The store role: saves what arrives at this side's broker to the bucket, and answers with receipts."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from facerelay import topics
from facerelay.cloud import retention
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import BucketError, open_bucket
from facerelay.cloud.history.diary import Diary
from facerelay.cloud.keep import Answer, Keeper
from facerelay.cloud.measures import Measures
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.receipts import Outgoing
from facerelay.cloud.tombstones import Tombstones
from facerelay.cloud.webhook import Webhook
from facerelay.config import Config
from facerelay.metrics import Meters
from facerelay.mqtt import Connect, Message, NotConnectedError, Session
from facerelay.tracing import OFF, Tracer, Value

log = logging.getLogger(__name__)

_BOOKS_EVERY_S: Final = 3.0
_SAY_EVERY_S: Final = 60.0
_HOUSE_EVERY_S: Final = 3600.0
_AGAIN_S: Final = 60.0
_GOODBYE_S: Final = 5.0


async def serve_store(
    config: Config,
    connect: Connect,
    *,
    ready: Callable[[], None] | None = None,
    meters: Meters | None = None,
    trace: Tracer = OFF,
) -> None:
    """Serve until cancelled.

    At `receipt` the broker is answered as a message comes, since its sender holds it until a receipt.
    Pictures of foreign clients have no sender that would: one that is in hand when the store dies is lost.
    At `broker` they too are answered only when they are durable.

    Args:
        config: this machine's settings.
        connect: makes the session with the cloud's broker.
        ready: called once, when connected and subscribed.
        meters: are asked for figures.
        trace: is told of each face that is kept.

    Raises:
        BucketError: the bucket's settings cannot be right.
        WebhookError, SpoolError: the webhook's cannot.
    """
    store = _Store(config, trace)
    if meters is not None:
        meters.add(store.measures.read)
    session = connect(
        client_id=f"facerelay-store-{config.store.name}",
        subscribe=((config.face_topic.filter, config.level), (topics.LEDGERS, min(config.level, 1))),
        clean=config.delivery != "broker",
        window=2 * config.store.concurrency,
        on_state=store.on_state,
        on_oversize=store.on_oversize,
    )
    async with session:
        await store.serve(session, ready)


class _Store:
    """The parts, and the tasks that move messages between them."""

    def __init__(self, config: Config, trace: Tracer) -> None:
        self._config = config
        self._trace = trace
        self._bucket = open_bucket(config.bucket, quick=True)
        self._quarantine = Quarantine(
            self._bucket,
            max_bytes=config.store.quarantine_bytes,
            keep=timedelta(days=config.store.quarantine_days),
        )
        self._keeper = Keeper(
            self._bucket, limits=config.limits.face, topic=config.face_topic,
            quarantine=self._quarantine, tombstones=Tombstones(self._bucket),
        )  # fmt: skip
        days = config.store.retention_days
        keep = timedelta(days=days) if days else None
        self.measures = Measures(self._keeper.counters, limit=config.store.concurrency, keep=keep)
        self._diary = Diary(self._bucket, store=config.store.name, met=self.measures.begin)
        self._books = Books(self._bucket, heed=self._heed, keep=keep)
        self._webhook = None if config.webhook.url is None else Webhook(config.webhook)
        if self._webhook is not None:
            self._keeper.stored = self._webhook.add
        self._gate = asyncio.Semaphore(config.store.concurrency)
        self._up = asyncio.Event()

    def on_state(self, up: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """Take note of a connection made or lost."""
        if up:
            self._up.set()

    def on_oversize(self, topic: str, size: int) -> None:  # noqa: ARG002 - the session has logged both
        """Count what was discarded as it came."""
        self._keeper.counters.discarded["too-large"] += 1

    def _heed(self, site: str, ledger: topics.Ledger) -> None:
        """Look at an edge's books; whatever they make of that, faces are stored."""
        try:
            self._diary.take(site, ledger)
            self.measures.hear(site, ledger)
        except Exception:
            log.exception("a fault of ours: the books of %s are kept, and have no history", site)

    async def serve(self, session: Session, ready: Callable[[], None] | None) -> None:
        """Take messages until cancelled; then send and write what is left."""
        self.measures.session = session

        async def publish(topic: str, payload: bytes) -> None:
            await session.publish(topic, payload, qos=self._config.level)

        outgoing = Outgoing(publish, store=self._config.store.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look())
                tasks.create_task(self._greet(session, ready))
                tasks.create_task(outgoing.run())
                tasks.create_task(_every(_BOOKS_EVERY_S, lambda: self._write(session)))
                tasks.create_task(_every(_BOOKS_EVERY_S, self._write_history))
                tasks.create_task(self._say())
                if self._webhook is not None:
                    tasks.create_task(self._webhook.run())
                tasks.create_task(_every(_HOUSE_EVERY_S, self._clean))
                async for message in session:
                    await self._gate.acquire()
                    tasks.create_task(self._take(message, outgoing))
        finally:
            await self._leave(outgoing)

    async def _take(self, message: Message, outgoing: Outgoing) -> None:
        """Deal with one message, inside the gate.

        At `receipt` the promise lives in the outbox, so the broker is answered at once; at `broker` the
        broker's memory is the promise, so it is answered when the object is durable.
        """
        self.measures.in_hand += 1
        began = time.time()
        try:
            if self._config.delivery == "receipt":
                message.ack()
            if message.topic.startswith("ledger/"):
                self._books.take(message.topic, message.payload, retained=message.retain)
                message.ack()
                return
            answer = await self._keeper.keep(message.topic, message.payload)
            if answer is not None:
                self._tell(answer, began)
            if answer is not None and self._config.delivery == "receipt":
                outgoing.add(answer.site, answer.outbox, answer.receipt)
            message.ack()
        finally:
            self.measures.in_hand -= 1
            self._gate.release()

    def _tell(self, answer: Answer, began: float) -> None:
        """Tell what became of a face, where traces are on."""
        receipt = answer.receipt
        if self._trace.takes(receipt.id):
            fault = "" if receipt.outcome == "stored" else receipt.outcome
            facts: dict[str, Value] = {
                "site": answer.site,
                "outcome": receipt.outcome,
                "duplicate": receipt.duplicate,
            }
            self._trace.span(receipt.id, "store", start=began, end=time.time(), fault=fault, **facts)

    async def _greet(self, session: Session, ready: Callable[[], None] | None) -> None:
        """Announce this store, anew at each connection."""
        while True:
            await self._up.wait()
            self._up.clear()
            if ready is not None:
                ready()
                ready = None
            hello = topics.Hello(store=self._config.store.name, start=secrets.token_hex(8))
            try:
                await session.publish(topics.hello(hello.store), hello.to_bytes(), qos=1, retain=True)
                self.measures.hellos += 1
            except NotConnectedError:
                log.info("not announced: the connection is gone again")

    async def _write(self, session: Session) -> None:
        """Write the books; their history is written aside, and follows."""
        if session.connected:
            self._diary.beat()
        if await self._diary.meet():
            await self._books.flush()

    async def _write_history(self) -> None:
        """Write the history; where that fails faces are stored all the same."""
        try:
            await self._diary.flush()
        except Exception:
            log.exception("a fault of ours: the history is not written now")
            await asyncio.sleep(_AGAIN_S)

    async def _look(self) -> None:
        """Say at the start whether the bucket can be written, and whether it keeps what it holds."""
        try:
            found = await self._bucket.probe()
        except BucketError as error:
            log.warning("the bucket cannot be written yet; faces wait at the edge: %s", error)
        else:
            log.log(logging.INFO if found.create_only else logging.WARNING, "the bucket %s", found)

    async def _clean(self) -> None:
        """Delete what is too old; quarantine always, faces where a retention is set."""
        swept = await self._quarantine.sweep()
        days = self._config.store.retention_days
        expired = await retention.expire(self._bucket, keep=timedelta(days=days)) if days else 0
        if swept or expired:
            log.info("deleted by age: %d faces, pictures and books, %d objects in quarantine", expired, swept)

    async def _say(self) -> None:
        said = str(self._keeper.counters)
        while True:
            await asyncio.sleep(_SAY_EVERY_S)
            if said != (said := str(self._keeper.counters)):
                log.info("%s", said)

    async def _leave(self, outgoing: Outgoing) -> None:
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await outgoing.flush()
                if await self._diary.meet():
                    await self._books.flush()
                await self._diary.flush(everything=True)
        except TimeoutError:
            log.warning("the last ledgers and receipts were not written in %.0f s", _GOODBYE_S)
        if self._webhook is not None:
            await self._webhook.close()
        await self._bucket.close()
        log.info("%s", self._keeper.counters)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do a work now and then; where the bucket fails, sooner again."""
    while True:
        try:
            await work()
        except BucketError as error:
            log.warning("put off: %s", error)
            await asyncio.sleep(min(seconds, _AGAIN_S))
        else:
            await asyncio.sleep(seconds)
