"""The capture role: cameras, detector, outbox and relay in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import cv2

from facerelay import topics
from facerelay.config import Camera, Config
from facerelay.edge.budget import Budget
from facerelay.edge.cameras.posted import GAP_S, Mailbox, PostOffice, is_topic
from facerelay.edge.eyes.detect import configured
from facerelay.edge.outbox import Outbox
from facerelay.edge.preview import Observe
from facerelay.edge.relay import Relay
from facerelay.edge.thrift import Thrift
from facerelay.edge.watcher import Watcher
from facerelay.mqtt import Connect, Message, NotConnectedError, Session

log = logging.getLogger(__name__)

_LEDGER_EVERY_S: Final = 10.0
_LOOK_S: Final = 0.2
_STUCK_S: Final = 60.0
_PICTURES: Final = 16


class StuckError(Exception):
    """The cameras have ended, faces wait, and nothing has moved for a minute.

    Attributes:
        waiting: how many faces wait; they are safe in the outbox.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(
            f"{waiting} faces wait and nothing moved for {_STUCK_S:.0f} s: they are safe in the outbox;"
            " see that the brokers, the forwarder and the store run (`facerelay doctor`)"
        )
        self.waiting = waiting


class CamerasFailedError(Exception):
    """No camera could be watched; or, where the end was waited for, one of them could not."""


def open_outbox(config: Config) -> Outbox:
    """Open the outbox as the settings say.

    Raises:
        OutboxError: see there.
    """
    return Outbox(
        config.outbox.path,
        max_bytes=config.outbox.max_bytes,
        max_message=config.limits.message_bytes,
        keep_days=config.outbox.keep_days,
        sync=config.outbox.sync,
    )


async def capture(
    config: Config,
    connect: Connect,
    *,
    stop: asyncio.Event,
    until_end: bool = False,
    observe: Observe | None = None,
) -> None:
    """Watch the cameras and relay what they give, until `stop` is set.

    Args:
        config: this machine's settings.
        connect: makes the session with the edge's broker.
        stop: set it to end; what is in the outbox waits there for the next start.
        until_end: end by itself when the cameras have ended and every face has its answer.
        observe: gives, for a camera and its settings, what is told of each of its frames.

    Raises:
        OutboxError: the outbox cannot be used.
        CameraError: pictures are to come by MQTT from a topic that cannot be taken.
        CamerasFailedError: no camera could be watched.
        StuckError: with `until_end`, no answers come.
    """
    with open_outbox(config) as outbox:
        thrift = Thrift(min_quality=config.uplink.min_quality, min_side=config.uplink.min_side)
        async with relaying(config, outbox, connect, thrift=thrift):
            await _watch(config, outbox, connect, stop, thrift, until_end=until_end, observe=observe)


@asynccontextmanager
async def relaying(
    config: Config, outbox: Outbox, connect: Connect, *, thrift: Thrift | None = None
) -> AsyncIterator[Relay]:
    """Relay an outbox to the broker for as long as the block runs; its ledger is published meanwhile."""
    owners = {(config.site, outbox.id), *await asyncio.wrap_future(outbox.owners())}
    for site in {site for site, _ in owners} - {config.site}:
        log.warning(
            "faces of site %s wait in this outbox: until they are answered keep site = %r, or let the link"
            " carry receipts/%s/# down as well", site, site, site,
        )  # fmt: skip
    downward = [(topics.receipts(site, owner), 1) for site, owner in sorted(owners)]
    downward += [(topics.HELLOS, 1)] + ([] if config.direct else [(topics.link(config.site), 1)])
    relay: Relay | None = None

    def on_state(up: bool) -> None:  # noqa: FBT001 - the callback's shape
        assert relay is not None  # noqa: S101 - it is made before the session is entered
        relay.on_connected(up)
        if config.direct:
            relay.on_link(up)
        elif not up:
            relay.on_link(None)

    session = connect(
        client_id=f"{config.site}-capture-{outbox.id[:8]}",
        subscribe=downward,
        clean=True,
        window=256,
        on_state=on_state,
    )

    async def publish(topic: str, payload: bytes) -> None:
        await session.publish(topic, payload, qos=config.level)

    hours = config.outbox.expire_hours
    relay = Relay(
        outbox,
        topic=config.face_topic,
        publish=publish,
        delivery=config.delivery,
        window_bytes=config.outbox.window_bytes,
        overdue_s=config.outbox.overdue_s,
        max_unanswered=config.outbox.max_unanswered,
        budget=Budget(per_second=config.uplink.bytes_per_second, per_day=config.uplink.bytes_per_day),
        thrift=thrift,
        expire_s=hours and 3600 * hours,
    )
    async with session, asyncio.TaskGroup() as group:
        parts = [
            group.create_task(relay.run()),
            group.create_task(_listen(session, relay)),
            group.create_task(_publish_ledger(outbox, session)),
        ]
        try:
            yield relay
            await _tell_ledger(outbox, session)
        finally:
            for part in parts:
                part.cancel()


async def _listen(session: Session, relay: Relay) -> None:
    """Hand what comes down to the relay."""
    async for message in session:
        try:
            await _hear(message, relay)
        except topics.WireError as error:
            log.warning("%s: %s: ignored", topics.shown(message.topic), error)
        except sqlite3.Error as error:
            log.error("the outbox: %s: see that its disk has room; nothing is lost, it is asked again", error)  # noqa: TRY400 - for a user
        finally:
            message.ack()


async def _hear(message: Message, relay: Relay) -> None:
    kind = message.topic.partition("/")[0]
    if kind == "receipts":
        await relay.on_receipts(topics.Receipts.from_bytes(message.payload).receipts)
    elif kind == "link":
        relay.on_link({topics.UP: True, topics.DOWN: False}.get(message.payload))
    elif kind == "stores":
        relay.on_hello(topics.Hello.from_bytes(message.payload))


async def _publish_ledger(outbox: Outbox, session: Session) -> None:
    while True:
        await asyncio.sleep(_LEDGER_EVERY_S)
        await _tell_ledger(outbox, session)


async def _tell_ledger(outbox: Outbox, session: Session) -> None:
    """Publish the books, retained: one message a site, should the site have been renamed meanwhile."""
    with suppress(NotConnectedError, sqlite3.Error):
        books = await asyncio.wrap_future(outbox.ledger())
        for site in sorted({name.partition("/")[0] for name in books.cameras}):
            cameras = {name: a for name, a in books.cameras.items() if name.startswith(f"{site}/")}
            payload = books.model_copy(update={"cameras": cameras}).to_bytes()
            await session.publish(topics.ledger(site, outbox.id), payload, qos=0, retain=True)


async def _watch(
    config: Config,
    outbox: Outbox,
    connect: Connect,
    stop: asyncio.Event,
    thrift: Thrift,
    *,
    until_end: bool,
    observe: Observe | None,
) -> None:
    """Run the cameras' threads until `stop`, or until they and the outbox have come to an end."""
    halt = threading.Event()
    cv2.setNumThreads(1)  # the cameras' threads are the parallel work
    detector = await asyncio.to_thread(configured, config.detect)
    turn = threading.Semaphore(os.cpu_count() or 1)
    watchers: list[Watcher] = []

    def watch(camera: Camera, mailbox: Mailbox | None = None) -> None:
        known = config if mailbox is None else _patient(config)
        watcher = Watcher(
            camera,
            config=known,
            detector=detector,
            outbox=outbox,
            stop=halt,
            turn=turn if _recorded(camera) else None,
            loop=not until_end,
            mailbox=mailbox,
            thrift=thrift,
            observe=observe and observe(camera, known),
        )
        watchers.append(watcher)
        watcher.start()

    office = PostOffice(config.camera, limits=config.limits.face, own=config.face_topic, appear=watch)
    try:
        async with _open_office(office, connect, f"{config.site}-capture-{outbox.id[:8]}-pictures"):
            for camera in config.camera:
                if not is_topic(camera.source):
                    watch(camera)
            while (office.filters or any(each.is_alive() for each in watchers)) and not stop.is_set():
                await _pause(stop, _LOOK_S)
            await _ended(watchers, outbox, stop, until_end=until_end)
    finally:
        halt.set()
        await asyncio.gather(*(asyncio.to_thread(watcher.join, 5) for watcher in watchers if watcher.ident))


async def _ended(
    watchers: Sequence[Watcher], outbox: Outbox, stop: asyncio.Event, *, until_end: bool
) -> None:
    """Wait for what is to be waited for when the cameras have come to an end."""
    failures = [str(watcher.failure) for watcher in watchers if watcher.failure]
    if failures and len(failures) == len(watchers):
        raise CamerasFailedError("; ".join(failures))
    if until_end:
        await _answered(outbox, stop)
        if failures:
            raise CamerasFailedError("; ".join(failures))
    else:
        await stop.wait()


@asynccontextmanager
async def _open_office(office: PostOffice, connect: Connect, client_id: str) -> AsyncIterator[None]:
    """Take in pictures that come by MQTT, for cameras that have theirs from there, while the block runs."""
    if not office.filters:
        yield
        return
    # Of its own: a flood of pictures must not hold up the receipts.
    session = connect(
        client_id=client_id, subscribe=office.filters, clean=True, window=_PICTURES,
        on_state=office.set_connected,
    )  # fmt: skip
    office.open()
    async with session, asyncio.TaskGroup() as group:
        part = group.create_task(_take_pictures(session, office))
        try:
            yield
        finally:
            part.cancel()


async def _take_pictures(session: Session, office: PostOffice) -> None:
    async for message in session:
        try:
            office.take(message.topic, message.payload, retained=message.retain)
        finally:
            message.ack()


def _patient(config: Config) -> Config:
    """Return the settings for pictures that come one by one: a visit lives through longer gaps."""
    visits = config.visits.model_copy(update={"gap_s": max(GAP_S, config.visits.gap_s)})
    return config.model_copy(update={"visits": visits})


def _recorded(camera: Camera) -> bool:
    """Whether it plays as fast as it can, so that too many at once only take turns anyway."""
    return not camera.pace and not is_topic(camera.source)


async def _answered(outbox: Outbox, stop: asyncio.Event) -> None:
    """Return once no face waits."""
    loop = asyncio.get_running_loop()
    before, moved = -1, loop.time()
    while waiting := await asyncio.wrap_future(outbox.waiting()):
        if stop.is_set():
            return
        if waiting != before:
            before, moved = waiting, loop.time()
        elif loop.time() - moved > _STUCK_S:
            raise StuckError(waiting)
        await _pause(stop, _LOOK_S)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
