"""Faces from a JetStream stream, which the stores of a group share: each pulls what it has room for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from facerelay.link import stream
from facerelay.link.backoff import Backoff
from facerelay.link.dial import dialled, plainly
from facerelay.link.requests import Requests
from facerelay.link.stream import StreamError
from facerelay.link.subjects import SLACK_BYTES, subject, topic
from facerelay.link.tls import TlsFileError
from facerelay.sections import Broker, JetStream
from facerelay.seldom import Seldom
from facerelay.topics import shown

_log = logging.getLogger(__name__)
_LAST_DELAY_S: Final = 1.0
# Short: while nodes choose who leads, a question that nobody takes is asked again.
_ANSWER_S: Final = 1.5
_PENDING_EVERY_S: Final = 5.0
_TURN_S: Final = 1.0
_GOODBYE_S: Final = 2.0
_CANCEL_S: Final = 0.1
_MOST_ACKS: Final = 100_000
_MOST_AT_ONCE: Final = 8
_ACK: Final = b"+ACK"
_NAK: Final = b"-NAK"
# What the server says of a request: that it still waits; that nobody knows of it any more.
_BEAT: Final = "100"
_NOBODY: Final = "503"
_DELETED: Final = "deleted"


class Pulled:
    """A face that was pulled; `ack` may be called from any task, and never waits."""

    __slots__ = ("_ack", "payload", "reply", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, reply: str, ack: Callable[[str], None]) -> None:
        self.topic = topic
        self.payload = payload
        self.retain = False
        self.reply = reply
        self._ack = ack

    def ack(self) -> None:
        """Tell the stream that it was dealt with; harmless when said twice or too late."""
        reply, self.reply = self.reply, ""
        if reply:
            self._ack(reply)


async def examine(broker: Broker, settings: JetStream, *, name: str, group: str) -> str:
    """Return how the stream of a group does, in words.

    Raises:
        StreamError: it cannot be asked, or is not well.
    """
    try:
        async with dialled(broker, settings, name=name) as client:
            return await stream.state(client.jetstream(timeout=_ANSWER_S), settings, group)
    except (NatsError, TlsFileError, OSError) as error:  # a TimeoutError is an OSError
        raise StreamError(f"{', '.join(settings.servers)}: {plainly(error, broker)}") from None


class JetStreamPull:
    """Faces as they are pulled, over all reconnects: an asynchronous context manager and iterator.

    Stream and consumer are made where they are not there, and again when they were deleted. What is pulled
    and not taken when this is left is handed back at once; when the process dies, after half a minute.

    Args:
        broker: whose login and certificates count.
        settings: where, and which stream.
        faces: topic filter of faces.
        name: of this store, as the server lists it.
        group: stores that share.
        window: messages that were pulled and not taken, at most.
        max_message: bytes of payload; a larger message is discarded, and acknowledged.

    Attributes:
        on_oversize: is called with topic and size of a discarded message, if set.
    """

    def __init__(
        self,
        broker: Broker,
        settings: JetStream,
        *,
        faces: str,
        name: str,
        group: str,
        window: int = 64,
        max_message: int,
    ) -> None:
        self._broker, self._settings = broker, settings
        self._subject, self._name, self._group = subject(faces), name, group
        self._max_message = max_message
        self.on_oversize: Callable[[str, int], None] | None = None
        self._came: asyncio.Queue[Pulled | None] = asyncio.Queue()
        most = _MOST_AT_ONCE * (max_message + SLACK_BYTES)
        self._requests = Requests(window=window, max_bytes=most, clock=time.monotonic)
        self._acks: deque[str] = deque(maxlen=_MOST_ACKS)
        self._wake = asyncio.Event()
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._said = self._lost = ""
        self._seldom = Seldom(_log)
        self._closed = False
        self.pending: int | None = None
        self.oversize = 0

    async def __aenter__(self) -> Self:
        """Begin to connect; does not wait for it."""
        self._task = asyncio.create_task(self._run(), name=f"jetstream {self._settings.stream}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hand back what was not taken, and end the iteration."""
        self._closed = True
        client = self._client
        if client is not None:
            with suppress(NatsError, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._leave(client)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._came.put_nowait(None)

    @property
    def connected(self) -> bool:
        """Whether the stream can be asked at this moment."""
        return self._client is not None

    @property
    def trouble(self) -> str:
        """Why it is not connected, or not any more; empty while it is, or before the first try."""
        return self._said

    async def look(self) -> str:
        """Say if it is not connected."""
        where = ", ".join(self._settings.servers)
        return "" if self.connected else f"not connected to {where}: {self._said or 'not yet'}"

    def __aiter__(self) -> AsyncIterator[Pulled]:
        """Iterate over what is pulled, until closed."""
        return self

    async def __anext__(self) -> Pulled:
        """Wait for the next face; each one that is taken makes room for another."""
        message = None if self._closed else await self._came.get()
        if message is None:
            raise StopAsyncIteration
        self._wake.set()
        return message

    async def _run(self) -> None:
        backoff = Backoff(longest_s=_LAST_DELAY_S)
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                async with dialled(
                    self._broker, self._settings, name=self._name, on_error=self._heed
                ) as client:
                    reason = await self._live(client)
            except (NatsError, StreamError, TlsFileError, OSError) as error:  # a TimeoutError is an OSError
                reason = plainly(error, self._broker)
            except Exception as error:  # noqa: BLE001 - a pull that ended in silence would never come back
                _log.exception("a fault of ours; the pull goes on")
                reason = f"a fault of ours: {type(error).__name__}"
            if clock() - began > _LAST_DELAY_S:
                backoff.begin_anew()
            self._say(reason)
            await backoff.pause()

    async def _live(self, client: Client) -> str:
        """Pull until the connection or the consumer is gone, and return why."""
        await stream.prepare(
            client.jetstream(timeout=_ANSWER_S), self._settings,
            subject=self._subject, group=self._group, max_message=self._max_message,
        )  # fmt: skip
        self._requests.forget()
        self._lost = ""
        ours = client.new_inbox()
        self._subscription = await client.subscribe(f"{ours}.*", cb=self._take)
        self._client = client
        self._say("")
        looking = asyncio.create_task(self._look(client))
        try:
            while not (client.is_closed or self._lost):
                await self._turn(client, ours)
            error = client.last_error
            return self._lost or (plainly(error, self._broker) if error else "the connection was closed")
        finally:
            self._client = self.pending = None
            while not looking.done():  # a cancellation is lost where an answer comes in the same moment
                looking.cancel()
                await asyncio.wait([looking], timeout=_CANCEL_S)

    async def _turn(self, client: Client, ours: str) -> None:
        """Acknowledge what was dealt with, ask for more if there is room, and wait for a reason to."""
        await self._acknowledge(client)
        if (asked := self._requests.ask(self._came.qsize())) is not None:
            number, wanted = asked
            where = f"$JS.API.CONSUMER.MSG.NEXT.{self._settings.stream}.{self._group}"
            await client.publish(where, wanted, reply=f"{ours}.{number}")
        with suppress(TimeoutError):
            async with asyncio.timeout(_TURN_S):
                await self._wake.wait()
        self._wake.clear()

    async def _acknowledge(self, client: Client) -> None:
        while self._acks:
            await client.publish(self._acks[0], _ACK)
            self._acks.popleft()

    async def _take(self, message: Msg) -> None:
        """Take what came for a request: a face, or the server's word about it."""
        number = message.subject.rpartition(".")[2]
        code, words = stream.status(message.headers)
        if not code:
            self._requests.came(number)
            self._keep(message)
            return
        if code == _BEAT:
            self._requests.alive(number)
            return
        self._requests.ended(number)
        if code == _NOBODY or _DELETED in words.lower():
            said = "nobody answers for it" if code == _NOBODY else words.lower()
            self._lost = f"stream {self._settings.stream}: {said}"
        self._wake.set()

    def _keep(self, message: Msg) -> None:
        pulled = Pulled(topic(message.subject), message.data, message.reply, self._ack)
        if self._closed:
            return
        if len(pulled.payload) <= self._max_message:
            self._came.put_nowait(pulled)
            return
        self.oversize += 1
        form = "%s: a message of %d bytes on %s is over the limit of %d and was discarded"
        facts = self._settings.stream, len(pulled.payload), shown(pulled.topic), self._max_message
        self._seldom.say(logging.ERROR, "oversize", form, *facts)
        if self.on_oversize is not None:
            self.on_oversize(pulled.topic, len(pulled.payload))
        pulled.ack()

    def _ack(self, reply: str) -> None:
        self._acks.append(reply)
        self._wake.set()

    async def _look(self, client: Client) -> None:
        """Ask now and then how many faces wait."""
        js = client.jetstream(timeout=_ANSWER_S)
        while True:
            try:
                self.pending = await stream.waiting(js, self._settings, self._group)
            except (NatsError, StreamError, OSError):
                self.pending = None
            await asyncio.sleep(_PENDING_EVERY_S)

    async def _leave(self, client: Client) -> None:
        if self._subscription is not None:  # else what is handed back would come to us again
            await self._subscription.unsubscribe()
        await self._acknowledge(client)
        while not self._came.empty():
            if (message := self._came.get_nowait()) is not None:
                await client.publish(message.reply, _NAK)
        await client.flush()

    async def _heed(self, error: Exception) -> None:
        """Say what the server complains of; that it is gone is said by the one who notices."""
        if "violation" in f"{error}".lower():
            self._seldom.say(logging.ERROR, "refused", "%s: %s", self._settings.stream, f"{error}"[:200])

    def _say(self, reason: str) -> None:
        where = ", ".join(self._settings.servers)
        if reason and reason != self._said:
            _log.warning("%s: %s; trying again", where, reason)
        elif not reason:
            _log.info("%s: pulls from stream %s", where, self._settings.stream)
        self._said = reason
