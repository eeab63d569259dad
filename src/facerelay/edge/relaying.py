"""An outbox with its session: faces and books go up, receipts and what stores and links say come down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from facerelay import messages, topics
from facerelay.config import Config
from facerelay.edge.again import Again
from facerelay.edge.budget import Budget
from facerelay.edge.ear import Ear
from facerelay.edge.measures import Measures
from facerelay.edge.outbox import Outbox
from facerelay.edge.pulse import BROKER_DROPPED
from facerelay.edge.relay import Relay
from facerelay.edge.teller import Teller
from facerelay.edge.thrift import Thrift
from facerelay.edge.voices import Voices
from facerelay.metrics import Meters
from facerelay.mqtt import Connect, NotConnectedError, Session
from facerelay.tracing import OFF, Tracer

log = logging.getLogger(__name__)

_RESET_S: Final = 5.0


@asynccontextmanager
async def relaying(
    config: Config,
    outbox: Outbox,
    connect: Connect,
    *,
    thrift: Thrift | None = None,
    meters: Meters | None = None,
    trace: Tracer = OFF,
    brief: bool = False,
) -> AsyncIterator[Relay]:
    """Relay an outbox to the broker for as long as the block runs; its ledger is published meanwhile.

    Args:
        config: this machine's settings.
        outbox: what is relayed.
        connect: makes the session with the edge's broker.
        thrift: is told how the line copes.
        meters: are asked for figures.
        trace: is told of each send and each receipt.
        brief: tell the cloud that this outbox is at work for a moment alone.

    Raises:
        KeyFileError: the site authority's certificate cannot be read.
    """
    voices = Voices(config.trust.authority)

    def on_state(up: bool) -> None:  # noqa: FBT001 - the callback's shape
        relay.on_connected(up)
        teller.anew()
        if config.direct:
            relay.on_link(up)
        elif not up:
            relay.on_link(None)

    async def health() -> messages.LinkHealth:
        taken = await relay.pulse.take(resets=session.resets)
        return taken.model_copy(update={"brief": brief})

    session = connect(
        client_id=f"{config.site}-capture-{outbox.id[:8]}",
        subscribe=await _downward(config, outbox),
        clean=True,
        window=256,
        on_state=on_state,
    )
    relay = _relay(config, outbox, session, thrift, trace)
    relay.pulse.voices = voices
    teller = Teller(outbox, session, site=config.site, health=health)
    if meters is not None:
        meters.add(Measures(config, outbox, session, relay).read)
    again = Again(outbox, site=config.site)
    ear = Ear(outbox, relay, voices, again)
    async with session, _running(relay.run(), again.run(), ear.listen(session), teller.run()):
        yield relay
        await teller.farewell()


@asynccontextmanager
async def _running(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have parts run for as long as the block does; one that fails ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _downward(config: Config, outbox: Outbox) -> list[tuple[str, int]]:
    """Return what to subscribe to: receipts for all whose faces wait here, and what concerns the link."""
    owners = {(config.site, outbox.id), *await asyncio.wrap_future(outbox.owners())}
    for site in {site for site, _ in owners} - {config.site}:
        log.warning(
            "faces of site %s wait in this outbox: until they are answered keep site = %r, or let the link"
            " carry receipts/%s/# down as well", site, site, site,
        )  # fmt: skip
    # Both are soft state. A cluster of NATS takes a minute for a subscription at QoS 1 while a node is away.
    level = 0 if config.direct else 1
    downward = [(topics.receipts(site, owner), level) for site, owner in sorted(owners)]
    downward += [(topics.HELLOS, level)]
    if not config.direct:
        downward += [(topics.link(config.site), 1), (BROKER_DROPPED, 0)]
    return downward


def _relay(config: Config, outbox: Outbox, session: Session, thrift: Thrift | None, trace: Tracer) -> Relay:
    """Return the relay as the settings say, with a session to publish on."""

    async def publish(topic: str, payload: bytes) -> None:
        await session.publish(topic, payload, qos=config.level)

    async def reset() -> None:
        """Make the way anew; the forwarder, if there is one, is asked first."""
        if not config.direct:
            with suppress(NotConnectedError, TimeoutError):
                async with asyncio.timeout(_RESET_S):
                    await session.publish(topics.reset(config.site), b"", qos=1)
        session.reset("made anew, since no receipts come")

    return Relay(
        outbox,
        topic=config.face_topic,
        publish=publish,
        delivery=config.delivery,
        window_bytes=config.outbox.window_bytes,
        overdue_s=config.outbox.overdue_s,
        max_unanswered=config.outbox.max_unanswered,
        budget=Budget(per_second=config.uplink.bytes_per_second, per_day=config.uplink.bytes_per_day),
        thrift=thrift,
        reset=reset,
        expire_s=config.outbox.expire_s,
        trace=trace,
    )
