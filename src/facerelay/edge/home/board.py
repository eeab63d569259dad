"""What stands on a broker for others to read: states that are kept there, and word that passes by."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from facerelay.mqtt import NotConnectedError, Session

_MOST: Final = 256
"""Words that wait for the broker, at most; the oldest go."""

_LEAVE_S: Final = 2.0


class Board:
    """Publishes what changes; all of it again after each connection, for the broker may be another.

    Nothing waits for it: while the broker is away states are only remembered, and passing word is forgotten.
    Pictures are not published again: who reads them takes each for a new one.

    Args:
        session: with the broker.
        image_s: how long a picture stays there, in seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self, session: Session, *, image_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._image_s = image_s
        self._clock = clock
        self._kept: dict[str, bytes] = {}
        self._due: dict[str, bytes] = {}
        self._fleeting: set[str] = set()
        self._passing: deque[tuple[str, bytes]] = deque(maxlen=_MOST)
        self._shown: dict[str, float] = {}
        self._wake = asyncio.Event()

    def keep(self, topic: str, payload: str | bytes, *, retain: bool = True) -> None:
        """Set a state; `retain` has the broker keep it for whoever comes later."""
        data = payload.encode() if isinstance(payload, str) else payload
        if self._kept.get(topic) != data:
            self._kept[topic] = self._due[topic] = data
            (self._fleeting.discard if retain else self._fleeting.add)(topic)
            self._wake.set()

    def show(self, topic: str, picture: bytes) -> None:
        """Set a picture that the broker keeps, for as long as pictures may stay; none if it is empty."""
        self._due[topic] = picture
        self._shown[topic] = self._clock() + self._image_s if picture else float("inf")
        self._wake.set()

    def say(self, topic: str, payload: str | bytes) -> None:
        """Say something that is not kept; nobody hears it while the broker is away."""
        if self._session.connected:
            self._passing.append((topic, payload.encode() if isinstance(payload, str) else payload))
            self._wake.set()

    def again(self) -> None:
        """Publish all states anew."""
        self._due = self._kept | {topic: data for topic, data in self._due.items() if topic in self._shown}
        self._wake.set()

    def look(self) -> None:
        """Take off the pictures that have been there for long enough."""
        for topic in [topic for topic, until in self._shown.items() if self._clock() >= until]:
            self.show(topic, b"")

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._publish()

    async def leave(self) -> None:
        """Take off all pictures, and publish what is due, in two seconds or not at all."""
        for topic in self._shown:
            self.show(topic, b"")
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._publish()
        except TimeoutError:
            return

    async def _publish(self) -> None:
        """Publish what is due while there is a connection; at the next one all states are due anyway."""
        try:
            while self._session.connected and (self._due or self._passing):
                await self._one()
        except NotConnectedError:
            self._passing.clear()

    async def _one(self) -> None:
        if not self._due:
            topic, data = self._passing.popleft()
            await self._session.publish(topic, data)
            return
        topic = next(iter(self._due))
        data = self._due[topic]
        await self._session.publish(topic, data, retain=topic not in self._fleeting)
        if self._due.get(topic) is data:  # and nothing newer came meanwhile
            del self._due[topic]
