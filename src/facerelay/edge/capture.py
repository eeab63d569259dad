"""The capture role: cameras, detector, outbox and relay in one process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import cv2

from facerelay.config import Camera, Config
from facerelay.edge.cameras.posted import GAP_S, Mailbox, PostOffice, is_topic
from facerelay.edge.eyes.detect import configured
from facerelay.edge.eyes.freeze import Seal, sealer_of
from facerelay.edge.held import LAST_S
from facerelay.edge.home.announce import Home, Reach, announcing
from facerelay.edge.outbox import Outbox
from facerelay.edge.preview import Observe
from facerelay.edge.relaying import relaying
from facerelay.edge.thrift import Thrift
from facerelay.edge.watcher import Watcher
from facerelay.metrics import Meters
from facerelay.mqtt import Connect, Session
from facerelay.tracing import OFF, Tracer

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
            " see that the brokers, the forwarder and the store run (`facerelay doctor`); a spent"
            " uplink.bytes_per_day holds them until midnight, UTC"
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
    meters: Meters | None = None,
    trace: Tracer = OFF,
    reach: Reach | None = None,
) -> None:
    """Watch the cameras and relay what they give, until `stop` is set.

    Args:
        config: this machine's settings.
        connect: makes the session with the edge's broker.
        stop: set it to end; what is in the outbox waits there for the next start.
        until_end: end by itself when the cameras have ended and every face has its answer.
        observe: gives, for a camera and its settings, what is told of each of its frames.
        meters: are asked for figures.
        trace: is told what becomes of each face.
        reach: gives what makes sessions with other brokers, for Home Assistant and Frigate's topics.

    Raises:
        OutboxError: the outbox cannot be used.
        CameraError: pictures are to come by MQTT from a topic that cannot be taken.
        CamerasFailedError: no camera could be watched.
        StuckError: with `until_end`, no answers come.
        KeyFileError: faces are to be sealed, and the key that signs them cannot be used.
    """
    seal = sealer_of(config)
    with open_outbox(config) as outbox:
        thrift = Thrift(min_quality=config.uplink.min_quality, min_side=config.uplink.min_side)
        async with (
            relaying(config, outbox, connect, thrift=thrift, meters=meters, trace=trace) as relay,
            announcing(config, outbox, reach, link=lambda: relay.link) as home,
        ):
            await _watch(
                config, outbox, connect, stop, thrift, until_end=until_end, observe=observe, trace=trace,
                home=home, seal=seal, held=lambda: relay.held,
            )  # fmt: skip


async def _watch(
    config: Config,
    outbox: Outbox,
    connect: Connect,
    stop: asyncio.Event,
    thrift: Thrift,
    *,
    until_end: bool,
    observe: Observe | None,
    trace: Tracer,
    home: Home | None,
    seal: Seal | None,
    held: Callable[[], int],
) -> None:
    """Run the cameras' threads until `stop`, or until they and the outbox have come to an end."""
    halt = threading.Event()
    cv2.setNumThreads(1)  # the cameras' threads are the parallel work
    detector = await asyncio.to_thread(configured, config.detect)
    turn = threading.Semaphore(os.cpu_count() or 1)
    watchers = _Watchers()

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
            trace=trace,
            seal=seal,
            witness=None if home is None else home.witness(camera.name),
        )
        watchers.add(watcher, posted=mailbox is not None)
        watcher.start()

    office = PostOffice(config.camera, limits=config.limits.face, own=config.face_topic, appear=watch)
    try:
        async with _open_office(office, connect, f"{config.site}-capture-{outbox.id[:8]}-pictures"):
            for camera in config.camera:
                if not is_topic(camera.source):
                    watch(camera)
            while (office.filters or any(each.is_alive() for each in watchers.all)) and not stop.is_set():
                await _pause(stop, _LOOK_S)
            await _ended(watchers, outbox, stop, held, until_end=until_end)
    finally:
        halt.set()
        await asyncio.gather(*(asyncio.to_thread(each.join, 5) for each in watchers.all if each.ident))


class _Watchers:
    """The cameras' threads; one whose camera lost its place to another and has ended well is forgotten."""

    def __init__(self) -> None:
        self.all: list[Watcher] = []
        self._posted: set[Watcher] = set()
        self._released = 0

    def add(self, watcher: Watcher, *, posted: bool) -> None:
        """Take in a camera that is about to start; `posted` where its pictures come by MQTT."""
        gone = {each for each in self._posted if each.ident and not each.is_alive() and not each.failure}
        self._released += len(gone)
        self._posted -= gone
        self.all = [each for each in self.all if each not in gone]
        self.all.append(watcher)
        if posted:
            self._posted.add(watcher)

    @property
    def failures(self) -> list[str]:
        """What went wrong, one for each camera with which it did."""
        return [str(each.failure) for each in self.all if each.failure]

    @property
    def none_was_watched(self) -> bool:
        """Whether there were cameras, and all of them failed."""
        return bool(self.all) and not self._released and all(each.failure for each in self.all)


async def _ended(
    watchers: _Watchers, outbox: Outbox, stop: asyncio.Event, held: Callable[[], int], *, until_end: bool
) -> None:
    """Wait for what is to be waited for when the cameras have come to an end."""
    failures = watchers.failures
    if watchers.none_was_watched:
        raise CamerasFailedError("; ".join(failures))
    if until_end:
        await _answered(outbox, stop, held)
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


async def _answered(outbox: Outbox, stop: asyncio.Event, held: Callable[[], int]) -> None:
    """Return once no face waits; while a store holds some, that may take minutes."""
    loop = asyncio.get_running_loop()
    before, moved = -1, loop.time()
    while waiting := await asyncio.wrap_future(outbox.waiting()):
        if stop.is_set():
            return
        if waiting != before:
            before, moved = waiting, loop.time()
        elif loop.time() - moved > (LAST_S if held() else _STUCK_S):
            raise StuckError(waiting)
        await _pause(stop, _LOOK_S)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
