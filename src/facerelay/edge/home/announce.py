"""The layouts that are asked for, each with a session of its own: its will says when capture is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol, TypeAlias

from facerelay.config import Config
from facerelay.edge.home.assistant import OFFLINE, Assistant
from facerelay.edge.home.board import Board
from facerelay.edge.home.discovery import Names
from facerelay.edge.home.frigate import Frigate
from facerelay.edge.home.switches import Switches
from facerelay.edge.home.today import Today
from facerelay.edge.home.witness import Captured, News, Witness
from facerelay.edge.outbox import Outbox
from facerelay.edge.pulse import NOTE
from facerelay.messages import LinkHealth, WireError
from facerelay.mqtt import Connect, Message, Session, Will
from facerelay.sections import Broker

log = logging.getLogger(__name__)

Reach: TypeAlias = Callable[[Broker], Connect]
"""Gives what makes sessions with a broker."""

_LOOK_S: Final = 1.0
_EVERY_S: Final = 10.0
_LONGEST_S: Final = 300.0
_SHARE: Final = 0.02
"""Of the time, at most, goes into putting the books together."""

_AGAIN_S: Final = 600.0
_HOUR_S: Final = 3600.0
_WINDOW: Final = 16


class Layout(Protocol):
    """Who is told, in words of its own."""

    def appear(self, camera: str) -> None:
        """Tell of a camera."""

    def switched(self, camera: str) -> None:
        """Tell how a camera's switch stands."""

    def take(self, news: News) -> None:
        """Tell of a face, or of a visit's end."""

    def hear(self, message: Message) -> None:
        """Act on a message."""

    async def leave(self) -> None:
        """Say that capture ends."""


class Home:
    """Takes what the cameras' threads tell to all layouts.

    Args:
        today: counts.
        link: whether the way to the cloud is up.
    """

    def __init__(self, outbox: Outbox, *, today: Today, link: Callable[[], bool | None]) -> None:
        self.switches = Switches(outbox, changed=self._switched)
        self.layouts: list[Layout] = []
        self.boards: list[Board] = []
        self.assistant: Assistant | None = None
        self._outbox = outbox
        self._today = today
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._began = datetime.now(UTC).replace(microsecond=0)

    def witness(self, camera: str) -> Witness:
        """Return what follows a camera that is about to start."""
        paused = self.switches.paused(camera)
        for layout in self.layouts:
            layout.appear(camera)
        return Witness(camera=camera, tell=self._tell, paused=paused)

    def _tell(self, news: News) -> None:
        """From a camera's thread: nothing is waited for."""
        with suppress(RuntimeError):  # the loop was closed: nobody is told any more
            self._loop.call_soon_threadsafe(self._take, news)

    def _take(self, news: News) -> None:
        if isinstance(news, Captured):
            self._today.add(news.frozen.face.camera)
        for layout in self.layouts:
            layout.take(news)

    def _switched(self, camera: str) -> None:
        for layout in self.layouts:
            layout.switched(camera)

    async def tick(self) -> None:
        """Tell now and then what changes by itself: the link every second, the books more seldom."""
        now = self._loop.time
        read, again = now(), now() + _AGAIN_S
        while True:
            self._today.turn()
            await self.switches.save()
            if self.assistant is not None:
                self.assistant.linked(self._link())
                if now() >= read:
                    begin = now()
                    await self._read(self.assistant)
                    read = now() + min(max(_EVERY_S, (now() - begin) / _SHARE), _LONGEST_S)
            for board in self.boards:
                board.look()
                if now() >= again:
                    board.again()
            again = now() + _AGAIN_S if now() >= again else again
            await asyncio.sleep(_LOOK_S)

    async def _read(self, assistant: Assistant) -> None:
        books = await asyncio.wrap_future(self._outbox.ledger())
        health: LinkHealth | None = None
        with suppress(WireError):
            noted = await asyncio.wrap_future(self._outbox.noted(NOTE))
            health = LinkHealth.from_bytes(noted.encode()) if noted else None
        if health is not None and health.time < self._began:
            health = None  # of an earlier run
        assistant.books(books, health)


@asynccontextmanager
async def announcing(
    config: Config, outbox: Outbox, reach: Reach | None, *, link: Callable[[], bool | None]
) -> AsyncIterator[Home | None]:
    """Tell Home Assistant and others what the cameras see, as far as the settings ask for it.

    A broker that is away holds up nothing, and a fault in here ends the telling alone.

    Args:
        config: this machine's settings.
        outbox: where faces, books and switches are.
        reach: gives what makes sessions with a broker; None where nobody is to be told.
        link: whether the way to the cloud is up.
    """
    if reach is None or not (config.homeassistant.enabled or config.frigate.enabled):
        yield None
        return
    today = Today()
    await today.load(outbox, config.site)
    home = Home(outbox, today=today, link=link)
    await home.switches.load()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_guard, home.switches.save)
        works: list[Callable[[], Awaitable[None]]] = [home.tick]
        for layout, board, session in _layouts(config, home, today, reach, outbox.id[:8]):
            home.layouts.append(layout)
            home.boards.append(board)
            works += [board.run, partial(_listen, session, layout)]
            await stack.enter_async_context(session)
            stack.push_async_callback(_guard, layout.leave)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        parts = [group.create_task(_guard(work)) for work in works]
        try:
            yield home
            await asyncio.sleep(0)  # what the threads told last
        finally:
            for part in parts:
                part.cancel()


def _layouts(
    config: Config, home: Home, today: Today, reach: Reach, owner: str
) -> list[tuple[Layout, Board, Session]]:
    """Make what was asked for."""
    made: list[tuple[Layout, Board, Session]] = []
    if config.homeassistant.enabled:
        asked = config.homeassistant
        names = Names(prefix=asked.prefix, topic=asked.topic, site=config.site)
        board, session = _board(
            reach(asked.broker(config.broker)), f"{config.site}-capture-{owner}-homeassistant",
            [names.birth, names.commands], will=names.available, hours=asked.image_hours,
        )  # fmt: skip
        home.assistant = Assistant(
            names=names, board=board, today=today, switches=home.switches,
            images=asked.images, picture=config.picture.format,
        )  # fmt: skip
        made.append((home.assistant, board, session))
    if config.frigate.enabled:
        theirs = config.frigate
        board, session = _board(
            reach(theirs.broker(config.broker)), f"{config.site}-capture-{owner}-frigate",
            [f"{theirs.prefix}/+/detect/set"], will=f"{theirs.prefix}/available", hours=theirs.image_hours,
        )  # fmt: skip
        frigate = Frigate(
            prefix=theirs.prefix, label=theirs.label, board=board, switches=home.switches,
            images=theirs.images,
        )  # fmt: skip
        made.append((frigate, board, session))
    return made


def _board(
    connect: Connect, client_id: str, subscribe: list[str], *, will: str, hours: float
) -> tuple[Board, Session]:
    """Return a board and its session, which is only to be entered."""

    def on_state(up: bool) -> None:  # noqa: FBT001 - the shape of a session's callback
        if up:
            board.again()

    session = connect(
        client_id=client_id, subscribe=[(topic, 1) for topic in subscribe], clean=True, window=_WINDOW,
        will=Will(will, OFFLINE, qos=1, retain=True), on_state=on_state,
    )  # fmt: skip
    board = Board(session, image_s=hours * _HOUR_S)
    return board, session


async def _listen(session: Session, layout: Layout) -> None:
    async for message in session:
        message.ack()
        layout.hear(message)


async def _guard(work: Callable[[], Awaitable[None]]) -> None:
    """Do a work; its fault is logged, and nobody else's."""
    try:
        await work()
    except Exception:
        log.exception(
            "a fault of ours: Home Assistant or Frigate's topics are told no more until the next start"
        )
