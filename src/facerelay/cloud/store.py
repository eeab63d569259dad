"""The store role: saves what arrives at this side's broker to the bucket, and answers with receipts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Final

from facerelay.cloud import sharing
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.cloud.counters import Counters
from facerelay.cloud.greeter import Greeter
from facerelay.cloud.holding import LOOK_S, Holding
from facerelay.cloud.housekeeping import Housekeeping
from facerelay.cloud.intake import Intake, Source
from facerelay.cloud.keep import Keeper
from facerelay.cloud.ledgers import Ledgers
from facerelay.cloud.measures import Measures
from facerelay.cloud.notices import Notices
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.receipts import Outgoing
from facerelay.cloud.tombstones import AGE_S, Tombstones
from facerelay.cloud.voice import Voice
from facerelay.cloud.webhook import Webhook
from facerelay.config import Config
from facerelay.erasures import Erasures
from facerelay.face import Frozen
from facerelay.metrics import Meters
from facerelay.mqtt import Connect, Pull, Session
from facerelay.tracing import OFF, Tracer

log = logging.getLogger(__name__)

_SAY_EVERY_S: Final = 60.0
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
        ConfigError: the broker does not share what it is asked to.
        WebhookError, SpoolError: the webhook's cannot.
        KeyFileError: the certificate or the key of `[trust]` cannot be used.
    """
    sharing.advise(config)
    store = _Store(config, trace)
    if meters is not None:
        meters.add(store.measures.read)
    client_id = sharing.client_id(config)
    session = connect(
        client_id=client_id,
        subscribe=sharing.subscriptions(config, pulls=pull is not None),
        clean=config.delivery != "broker",
        window=2 * config.store.concurrency,
        on_state=store.on_state,
        on_oversize=store.on_oversize,
    )
    if pull is not None:
        pull.on_oversize = store.on_oversize
    async with AsyncExitStack() as stack:
        sources: list[Source] = [await stack.enter_async_context(session)]
        if pull is not None:
            sources.append(await stack.enter_async_context(pull))
        async with asyncio.TaskGroup() as tasks:
            if config.store.intake == "shared" and pull is None:
                tasks.create_task(
                    sharing.prove(connect, store.peers, client_id=client_id, group=config.store.group)
                )
            await store.serve(session, sources, ready)


class _Store:
    """The parts, and the tasks that move messages between them."""

    def __init__(self, config: Config, trace: Tracer) -> None:
        self._config = config
        self._voice = Voice(config.store.name, config.trust, instance=config.store.instance)
        self._bucket = open_bucket(config.bucket, quick=True)
        quarantine = _quarantine(config, self._bucket)
        tombstones = Tombstones(self._bucket, age_s=LOOK_S if config.store.layout == "shards" else AGE_S)
        counters = Counters()
        self._holding = Holding(config.store, self._bucket, tombstones=tombstones, counters=counters)
        self._keeper = Keeper(
            self._bucket, limits=config.limits.face,
            topic=config.face_topic.named if config.trust.devices else config.face_topic,
            quarantine=quarantine, tombstones=tombstones, seals=_seals(config),
            counters=counters, shelf=self._holding.shelf,
        )  # fmt: skip
        self.peers = sharing.peers(config, run=self._voice.run, holds=self._holding.shelf is not None)
        # What a process held is gone with it, so one that holds faces says a hello that edges do not know.
        joins = config.store.instance is not None and self._holding.shelf is None
        self._greeter = Greeter(self._voice, self.peers, joins=joins, count=self._count_hello)
        keep = config.store.retention
        self._house = Housekeeping(
            self._bucket, quarantine, self.peers, keep=keep, orphans=self._holding.orphans
        )
        self.measures = Measures(
            counters, limit=config.store.concurrency, keep=keep, owns=self.peers.owns_outbox
        )
        self.measures.held = self._holding.__len__
        self._ledgers = Ledgers(
            self._bucket, config.store, peers=self.peers, measures=self.measures,
            notices=Notices(tombstones, self._tell_erasures),
            strange=self._greeter.unheard.set, count=self._count_ledger,
        )  # fmt: skip
        self.peers.on_change = self._ledgers.on_change
        self.peers.on_loss = self._on_loss
        self.peers.on_alive = self._on_alive
        self._webhook = None if config.webhook.url is None else Webhook(config.webhook)
        if self._webhook is not None:
            self._keeper.stored = self._webhook.add
        self._outgoing = Outgoing(self._publish, voice=self._voice)
        self._intake = Intake(
            keeper=self._keeper, ledgers=self._ledgers, peers=self.peers, quarantine=quarantine,
            outgoing=self._outgoing, measures=self.measures, concurrency=config.store.concurrency,
            receipts=config.delivery == "receipt", trace=trace,
        )  # fmt: skip
        self._session: Session

    def on_state(self, up: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """Take note of a connection made or lost."""
        self.peers.on_state(up)
        if up:
            self._greeter.up.set()

    def on_oversize(self, topic: str, size: int) -> None:  # noqa: ARG002 - whence it came has logged both
        """Count what was discarded as it came."""
        self._keeper.counters.discarded["too-large"] += 1

    def _count_hello(self) -> None:
        self.measures.hellos += 1

    def _count_ledger(self) -> None:
        self._keeper.counters.discarded["ledger"] += 1

    async def serve(
        self, session: Session, sources: Sequence[Source], ready: Callable[[], None] | None
    ) -> None:
        """Take messages until cancelled; then send and write what is left."""
        self.measures.session = self._session = session
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look())
                tasks.create_task(self._greeter.run(session, ready))
                tasks.create_task(self._outgoing.run())
                tasks.create_task(self.peers.run(session))
                tasks.create_task(self._ledgers.run())
                tasks.create_task(self._house.run())
                tasks.create_task(self._say())
                tasks.create_task(self._holding.run(self._keeper, self._intake.answer))
                if self._webhook is not None:
                    tasks.create_task(self._webhook.run())
                async with asyncio.TaskGroup() as takers:
                    for source in sources:
                        takers.create_task(self._intake.run(source, tasks))
        finally:
            await self._leave()

    def _on_loss(self, run: str) -> None:
        """Another store fell, and what it held with it: edges are told."""
        self._voice.lost.append(run)
        self._greeter.lost.set()

    def _on_alive(self, run: str) -> None:
        """Another store is heard; if it was missed before, it had not fallen."""
        with suppress(ValueError):
            self._voice.lost.remove(run)

    async def _publish(self, topic: str, payload: bytes) -> None:
        await self._session.publish(topic, payload, qos=self._config.level)

    async def _tell_erasures(self, site: str, outbox: str, erasures: Erasures) -> None:
        await self._publish(*self._voice.erasures(site, outbox, erasures))
        log.info("told an outbox of %s of %d erasures", site, len(erasures.rules))

    async def _look(self) -> None:
        """Say at the start whether the bucket can be written, and whether it keeps what it holds."""
        try:
            found = await self._bucket.probe()
        except BucketError as error:
            log.warning("the bucket cannot be written yet; faces wait at the edge: %s", error)
        else:
            log.log(logging.INFO if found.create_only else logging.WARNING, "the bucket %s", found)

    async def _say(self) -> None:
        said = str(self._keeper.counters)
        while True:
            await asyncio.sleep(_SAY_EVERY_S)
            if said != (said := str(self._keeper.counters)):
                log.info("%s", said)

    async def _leave(self) -> None:
        stored = await self._holding.finish()
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._outgoing.flush()
                self.peers.settle()
                await self._ledgers.leave()
                if stored:
                    await self.peers.leave(self._session)
        except TimeoutError:
            log.warning("the last ledgers and receipts were not written in %.0f s", _GOODBYE_S)
        if self._webhook is not None:
            await self._webhook.close()
        await self._bucket.close()
        log.info("%s", self._keeper.counters)


def _quarantine(config: Config, bucket: Bucket) -> Quarantine:
    store = config.store
    keep = timedelta(days=store.quarantine_days)
    return Quarantine(bucket, max_bytes=store.quarantine_bytes, keep=keep)


def _seals(config: Config) -> Callable[[Frozen], Awaitable[None]] | None:
    """Return what checks who sealed a face; None where nobody is known to be enrolled."""
    if config.trust.devices is None:
        return None
    from facerelay.sealing import seals  # noqa: PLC0415 - its libraries take time to load

    known = seals(config)
    return None if known is None else known.check
