"""What a role needs of an MQTT session, so that edge and cloud can be handed one without knowing the link."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


class NotConnectedError(ConnectionError):
    """A publish was tried, or its acknowledgement lost, while there was no connection."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when the session ends without a word."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class Message(Protocol):
    """A received message; `ack` tells the broker that it was dealt with, once."""

    @property
    def topic(self) -> str:
        """Where it was published."""

    @property
    def payload(self) -> bytes:
        """Its bytes."""

    @property
    def retain(self) -> bool:
        """Whether it was kept by the broker from before the subscription."""

    def ack(self) -> None:
        """Acknowledge it, whatever its quality of service; harmless when said twice or too late."""


class Session(Protocol):
    """An MQTT connection that comes back by itself, and resubscribes."""

    @property
    def connected(self) -> bool:
        """Whether the broker has answered CONNECT and all subscriptions."""

    @property
    def resets(self) -> int:
        """How often a connection that stood was dropped: the broker was stuck, or by `reset`."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publish; returns when the quality of service is fulfilled.

        Raises:
            NotConnectedError: nothing is sent again by itself.
        """

    def reset(self, why: str) -> None:
        """Drop the connection, and come back; the reason is for the log."""

    def __aiter__(self) -> AsyncIterator[Message]:
        """Yield what arrives, until the session is closed."""

    async def __aenter__(self) -> Self:
        """Begin to connect."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye."""


class Pull(Protocol):
    """A queue that processes share, where each takes what it can: faces that come another way than by MQTT.

    Every message needs its `ack`, in any order; what has none when this is closed is given to another.

    Attributes:
        on_oversize: is told topic and size of what is discarded for its size, if set.
    """

    on_oversize: Callable[[str, int], None] | None

    @property
    def connected(self) -> bool:
        """Whether the queue can be asked at this moment."""

    @property
    def pending(self) -> int | None:
        """Messages that wait there for anybody, when last heard; None where that is not known."""

    def __aiter__(self) -> AsyncIterator[Message]:
        """Yield what is taken, over all reconnects, until closed."""

    async def __aenter__(self) -> Self:
        """Begin to connect; does not wait for it."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take leave, and end the iteration."""


class Connect(Protocol):
    """Makes a session with this machine's broker; it connects when entered."""

    def __call__(
        self,
        *,
        client_id: str,
        subscribe: Sequence[tuple[str, int]],
        clean: bool,
        window: int,
        will: Will | None = None,
        on_state: Callable[[bool], None] | None = None,
        on_oversize: Callable[[str, int], None] | None = None,
    ) -> Session:
        """Return the session; `on_oversize` is told topic and size of what is discarded for its size."""
