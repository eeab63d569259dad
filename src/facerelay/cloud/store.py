"""The store role: saves what arrives at this side's broker to the bucket, and answers with receipts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Final

from facerelay import topics
from facerelay.cloud import retention
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import BucketError, open_bucket
from facerelay.cloud.greeter import Greeter
from facerelay.cloud.history.diary import Diary
from facerelay.cloud.keep import Answer, Keeper
from facerelay.cloud.measures import Measures
from facerelay.cloud.notices import Notices
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.receipts import Outgoing
from facerelay.cloud.tombstones import Tombstones
from facerelay.cloud.voice import Voice
from facerelay.cloud.webhook import Webhook
from facerelay.config import Config
from facerelay.erasures import Erasures
from facerelay.face import Frozen
from facerelay.metrics import Meters
from facerelay.mqtt import Connect, Message, Pull, Session
from facerelay.seldom import Seldom, fault_of
from facerelay.tracing import OFF, Tracer, Value

log = logging.getLogger(__name__)

Source = Session | Pull

_BOOKS_EVERY_S: Final = 3.0
_SAY_EVERY_S: Final = 60.0
_HOUSE_EVERY_S: Final = 3600.0
_AGAIN_S: Final = 60.0
_GOODBYE_S: Final = 5.0


async def serve_store(
    config: Config,
    connect: Connect,
    *,
    pull: Pull | None = None,
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
        pull: where faces come from that do not come by the session; entered and left here.
        ready: called once, when connected and subscribed.
        meters: are asked for figures.
        trace: is told of each face that is kept.

    Raises:
        BucketError: the bucket's settings cannot be right.
        WebhookError, SpoolError: the webhook's cannot.
        KeyFileError: the certificate or the key of `[trust]` cannot be used.
    """
    store = _Store(config, trace)
    if meters is not None:
        meters.add(store.measures.read)
    faces = ((config.face_topic.filter, config.level),) if pull is None else ()
    session = connect(
        client_id=f"facerelay-store-{config.store.name}",
        subscribe=(*faces, (topics.LEDGERS, min(config.level, 1))),
        clean=config.delivery != "broker",
        window=2 * config.store.concurrency,
        on_state=store.on_state,
        on_oversize=store.on_oversize,
    )
    async with AsyncExitStack() as stack:
        sources: list[Source] = [await stack.enter_async_context(session)]
        if pull is not None:
            sources.append(await stack.enter_async_context(pull))
        await store.serve(session, sources, ready)


class _Store:
    """The parts, and the tasks that move messages between them."""

    def __init__(self, config: Config, trace: Tracer) -> None:
        self._config = config
        self._trace = trace
        self._seldom = Seldom(log)
        self._voice = Voice(config.store.name, config.trust)
        self._bucket = open_bucket(config.bucket, quick=True)
        self._quarantine = Quarantine(
            self._bucket,
            max_bytes=config.store.quarantine_bytes,
            keep=timedelta(days=config.store.quarantine_days),
        )
        tombstones = Tombstones(self._bucket)
        self._keeper = Keeper(
            self._bucket, limits=config.limits.face,
            topic=config.face_topic.named if config.trust.devices else config.face_topic,
            quarantine=self._quarantine, tombstones=tombstones, seals=_seals(config),
        )  # fmt: skip
        keep = config.store.retention
        self.measures = Measures(self._keeper.counters, limit=config.store.concurrency, keep=keep)
        self._diary = Diary(self._bucket, store=config.store.name, met=self.measures.begin)
        self._books = Books(self._bucket, heed=self._heed, keep=keep, count=self._count_ledger)
        self._webhook = None if config.webhook.url is None else Webhook(config.webhook)
        if self._webhook is not None:
            self._keeper.stored = self._webhook.add
        self._notices = Notices(tombstones, self._tell_erasures)
        self._gate = asyncio.Semaphore(config.store.concurrency)
        self._greeter = Greeter(self._voice, count=self._count_hello)
        self._session: Session

    def on_state(self, up: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """Take note of a connection made or lost."""
        if up:
            self._greeter.up.set()

    def on_oversize(self, topic: str, size: int) -> None:  # noqa: ARG002 - the session has logged both
        """Count what was discarded as it came."""
        self._keeper.counters.discarded["too-large"] += 1

    def _count_hello(self) -> None:
        self.measures.hellos += 1

    def _count_ledger(self) -> None:
        self._keeper.counters.discarded["ledger"] += 1

    def _heed(self, site: str, ledger: topics.Ledger) -> None:
        """Look at an edge's books; whatever they make of that, faces are stored."""
        self._notices.hear(site, ledger)
        if ledger.link and ledger.link.strange:
            self._greeter.unheard.set()
        try:
            self._diary.take(site, ledger)
            self.measures.hear(site, ledger)
        except Exception:
            log.exception("a fault of ours: the books of %s are kept, and have no history", site)

    async def serve(
        self, session: Session, sources: Sequence[Source], ready: Callable[[], None] | None
    ) -> None:
        """Take messages until cancelled; then send and write what is left."""
        self.measures.session = self._session = session
        outgoing = Outgoing(self._publish, voice=self._voice)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look())
                tasks.create_task(self._greeter.run(session, ready))
                tasks.create_task(outgoing.run())
                tasks.create_task(self._notices.run())
                tasks.create_task(_every(_BOOKS_EVERY_S, lambda: self._write(session)))
                tasks.create_task(_every(_BOOKS_EVERY_S, self._write_history))
                tasks.create_task(self._say())
                if self._webhook is not None:
                    tasks.create_task(self._webhook.run())
                tasks.create_task(_every(_HOUSE_EVERY_S, self._clean))
                async with asyncio.TaskGroup() as takers:
                    for source in sources:
                        takers.create_task(self._take_all(source, outgoing, tasks))
        finally:
            await self._leave(outgoing)

    async def _take_all(self, source: Source, outgoing: Outgoing, tasks: asyncio.TaskGroup) -> None:
        async for message in source:
            await self._gate.acquire()
            tasks.create_task(self._take(message, outgoing))

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._session.publish(topic, payload, qos=self._config.level)

    async def _tell_erasures(self, site: str, outbox: str, erasures: Erasures) -> None:
        await self._publish(*self._voice.erasures(site, outbox, erasures))
        log.info("told an outbox of %s of %d erasures", site, len(erasures.rules))

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
        except Exception as error:  # noqa: BLE001 - what one message can do to us must not stop all others
            form = "%s: %d bytes: a fault of ours (%s): passed over; please report it"
            facts = topics.shown(message.topic), len(message.payload), fault_of(error)
            self._seldom.say(logging.ERROR, "fault", form, *facts)
            self._keeper.counters.discarded["fault"] += 1
            with suppress(Exception):
                await self._quarantine.put(message.topic, message.payload, "fault")
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
        keep = self._config.store.retention
        expired = await retention.expire(self._bucket, keep=keep) if keep else 0
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


def _seals(config: Config) -> Callable[[Frozen], Awaitable[None]] | None:
    """Return what checks who sealed a face; None where nobody is known to be enrolled."""
    if config.trust.devices is None:
        return None
    from facerelay.sealing import seals  # noqa: PLC0415 - its libraries take time to load

    known = seals(config)
    return None if known is None else known.check


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
