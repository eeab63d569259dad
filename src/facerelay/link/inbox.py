"""The window on what comes in: so many messages are held without an acknowledgement, and no more."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from facerelay.link.wire import Publish


@dataclass(slots=True, eq=False)
class Message:
    """A message that came, and waits for its `ack`.

    At QoS 1 and 2 the broker keeps it until then. At every QoS it fills the window until then, so that
    each message must be acknowledged, soon or late. Leaving the connection it came by makes `ack` vain:
    the broker sends again what a persistent session was not told of.
    """

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    duplicate: bool
    _release: Callable[[], None] = field(repr=False)

    def ack(self) -> None:
        """Acknowledge, once; more calls do nothing."""
        self._release()


class Inbox:
    """Messages that came and are not acknowledged, in a window of `window` of them and `window_bytes`."""

    def __init__(self, *, window: int, window_bytes: int) -> None:
        self._window = window
        self._window_bytes = window_bytes
        self._queue: deque[Message] = deque()
        self._held: dict[int, int] = {}
        self._bytes = 0
        self._serials = count()
        self._taker: asyncio.Future[None] | None = None
        self._closed = False
        self.on_space: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Whether nothing more may be put in."""
        return len(self._held) >= self._window or self._bytes >= self._window_bytes

    def __len__(self) -> int:
        """Count the messages that are not acknowledged."""
        return len(self._held)

    def put(self, packet: Publish, acknowledge: Callable[[Publish], None]) -> None:
        """Take a message in; `acknowledge` is called once, when its `ack` is."""
        serial = next(self._serials)
        self._held[serial] = len(packet.payload)
        self._bytes += len(packet.payload)

        def release() -> None:
            size = self._held.pop(serial, None)
            if size is not None:
                self._bytes -= size
                acknowledge(packet)
                if self.on_space is not None:
                    self.on_space()

        self._queue.append(
            Message(packet.topic, packet.payload, packet.qos, packet.retain, packet.duplicate, release)
        )
        self._wake()

    async def get(self) -> Message | None:
        """The next message, or None once closed and empty. One taker at a time."""
        while not self._queue:
            if self._closed:
                return None
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        return self._queue.popleft()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)
