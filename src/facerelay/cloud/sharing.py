"""Who a store is among others, what it subscribes to, and whether the broker keeps its word on `$share`."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from facerelay import topics
from facerelay.cloud.peers import Peers
from facerelay.config import Config
from facerelay.mqtt import Connect
from facerelay.sections import Store
from facerelay.settings import ConfigError

log = logging.getLogger(__name__)

_ENOUGH: Final = 3
_LOOK_S: Final = 0.5


def client_id(config: Config) -> str:
    """Return the name of this process at the broker; a colon is in no slug (a dot NATS refuses)."""
    store = config.store
    return f"facerelay-store-{store.name}" + (f":{store.instance}" if store.instance else "")


def common(config: Config) -> str:
    """Return what stores that share books and sweeps have in common."""
    bucket, store = config.bucket, config.store
    return repr((bucket.url, bucket.endpoint, store.retention_days, store.quarantine_days))


def peers(config: Config, *, run: str, holds: bool) -> Peers:
    """Return what knows the other stores, and is known to them.

    Args:
        config: this machine's settings.
        run: of this process.
        holds: whether faces go with it when it falls.
    """
    store = config.store
    return Peers(store.name, store.instance, run=run, keeps=common(config), holds=holds)


def faces(config: Config) -> str:
    """Return what to subscribe to for faces."""
    store, every = config.store, config.face_topic.filter
    return _shared(store.group, every) if store.intake == "shared" else every


def subscriptions(config: Config, *, pulls: bool) -> tuple[tuple[str, int], ...]:
    """Return what to subscribe to by MQTT, each with its QoS.

    Args:
        config: this machine's settings.
        pulls: whether faces come from elsewhere. Then the broker may be a cluster of NATS, where at QoS 1 a
            node that is away keeps us out for a minute; ledgers are said again.
    """
    return (
        *(() if pulls else ((faces(config), config.level),)),
        (topics.LEDGERS, 0 if pulls else min(config.level, 1)),
        (topics.BEATS, 0),
    )


def _shared(group: str, topic_filter: str) -> str:
    """Return the filter of which each message goes to one of a group."""
    return f"$share/{group}/{topic_filter}"


def advise(config: Config) -> None:
    """Say what stores that share need, where the settings lack it."""
    store = config.store
    if store.intake == "mqtt":
        return
    if store.instance is None:
        log.info("store.instance is not set: no other process may be named %r at this broker", store.name)
    if store.intake == "shared" and config.trust.devices is not None and store.group == _default_group():
        log.warning(
            "store.group: Mosquitto lets any enrolled machine into a group whose name it knows, and what"
            " falls to it has to be sent again: choose a name that nobody guesses"
        )
    if config.delivery == "broker":
        log.warning(
            'delivery = "broker": of stores that share, what waits at the broker for one that never returns'
            ' is lost; at "receipt" it is sent again'
        )


def _default_group() -> object:
    return Store.model_fields["group"].default


async def prove(connect: Connect, peers: Peers, *, client_id: str, group: str) -> None:
    """Find out whether the broker hands on what is subscribed to by `$share`; returns once it did.

    NATS grants such a subscription and delivers nothing. So this store's own beats are subscribed to once
    more, in a group of one: if they come back as they are and never by the group, the broker does not share.
    Where they do not come back at all (an access list from before) nothing can be said.

    Raises:
        ConfigError: it does not.
    """
    since = 0

    def on_state(up: bool) -> None:  # noqa: ARG001, FBT001 - the shape of a session's callback
        nonlocal since
        since = peers.echoes

    session = connect(
        client_id=f"{client_id}-probe",
        subscribe=((_shared(f"{group}-probe", peers.topic), 0),),
        clean=True,
        window=8,
        on_state=on_state,
    )
    heard = asyncio.Event()

    async def listen() -> None:
        async for message in session:
            message.ack()
            heard.set()

    async with session, asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen())
        while not heard.is_set():
            if session.connected and peers.echoes - since > _ENOUGH:
                raise ConfigError(
                    'store.intake = "shared": this broker takes subscriptions to $share and hands on nothing,'
                    ' as NATS does, and so the embedded broker: set "jetstream", or "mqtt" for one store'
                )
            peers.nudge()
            await asyncio.sleep(_LOOK_S)
        listening.cancel()
