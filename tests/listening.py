"""All that a broker carries, as a client hears it that subscribed to `#`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from facerelay.config import Broker
from facerelay.link.session import Session


class Ear:
    """What was heard: all in its order, the last of each topic, the last of each that the broker had kept."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._news = asyncio.Event()
        self.clear()

    def clear(self) -> None:
        """Forget."""
        self.all: list[tuple[str, bytes]] = []
        self.last: dict[str, bytes] = {}
        self.kept: dict[str, bytes] = {}

    async def until(self, topic: str, payload: bytes | None = None, *, seconds: float = 15) -> bytes:
        """Wait until the last word on a topic is this one, or any; returns it."""
        try:
            async with asyncio.timeout(seconds):
                while topic not in self.last or payload not in (None, self.last[topic]):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{topic}: {self.last.get(topic)!r:.200}; heard {sorted(self.last)}"
            ) from None
        return self.last[topic]

    async def listen(self) -> None:
        """Hear until cancelled."""
        async for message in self.session:
            message.ack()
            self.all.append((message.topic, message.payload))
            self.last[message.topic] = message.payload
            if message.retain and message.payload:
                self.kept[message.topic] = message.payload
            self._news.set()


@asynccontextmanager
async def ear(url: str) -> AsyncIterator[Ear]:
    """Listen to all topics of a broker while the block runs."""
    session = Session(
        Broker(url=url), client_id="ear-" + url.rpartition(":")[2] + f"-{id(object())}", subscribe=[("#", 1)],
        max_message=2_000_000,
    )  # fmt: skip
    async with session:
        await session.wait_connected()
        heard = Ear(session)
        task = asyncio.create_task(heard.listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait([task])
