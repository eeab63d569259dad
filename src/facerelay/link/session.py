"""An MQTT session: it reconnects, resubscribes, and knows when it is not connected."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from facerelay.config import Broker
from facerelay.link.backoff import Backoff
from facerelay.link.connection import CLOSED, Connection, Memory
from facerelay.link.greeting import (
    ANSWER_S,
    RefusedError,
    hear_out,
    introduce,
    plainly,
    see_connack,
    subscribe,
)
from facerelay.link.heartbeat import Heartbeat
from facerelay.link.inbox import Inbox, Message
from facerelay.link.rival import Rival
from facerelay.link.tls import tls_context
from facerelay.mqtt import NotConnectedError, Will
from facerelay.seldom import Seldom
from facerelay.topics import shown

__all__ = ["Message", "NotConnectedError", "RefusedError", "Session", "Will"]

_log = logging.getLogger(__name__)
_LAST_DELAY_S = 10.0
_WITHOUT_A_WORD = " and did not say why: are certificate, client id, topics and alpn as it wants them?"


class Session:
    """One MQTT 3.1.1 connection that comes back, as an asynchronous context manager and iterator.

    Iterate to receive; every message needs its `ack`, which may come in any order and from any task of
    the loop. While `window` messages or `window_bytes` wait for it, the socket is not read: neither are
    the acknowledgements of what is published on the same session, so never let an `ack` wait for a
    `publish` on its own session.

    Nothing is sent again after a reconnect: a publish that fails with NotConnectedError is the caller's.

    Args:
        broker: Where, and as whom.
        client_id: Unique at the broker; with `clean=False` the name of the state it keeps. With a certificate
            it goes on the wire with an end that nobody can guess.
        subscribe: Topic filters and their QoS. The broker may refuse `$SYS/…`, `link/<site>/reset` and
            `stores/+/+`.
        clean: Whether the broker forgets us when we leave.
        window: Messages without acknowledgement, at most.
        window_bytes: Bytes of payload without acknowledgement from which reading stops.
        max_message: Bytes of payload; a larger message is discarded as it comes, and acknowledged.
        will: What the broker publishes when it loses us.
        on_state: Called on the event loop with True when connected and subscribed, False when not.
        on_oversize: Called with topic and size of a discarded message.
        keepalive: Seconds; a broker silent for one and a half times this is taken for dead.
        stuck_s: Seconds without an acknowledgement while some are owed, after which a broker that answers
            pings is taken for stuck, and the connection made anew.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        subscribe: Sequence[tuple[str, int]] = (),
        clean: bool = True,
        window: int = 256,
        window_bytes: int = 8_000_000,
        max_message: int,
        will: Will | None = None,
        on_state: Callable[[bool], None] | None = None,
        on_oversize: Callable[[str, int], None] | None = None,
        keepalive: float = 15,
        stuck_s: float = 30,
    ) -> None:
        self._broker = broker
        self._client_id = client_id
        self._filters = tuple(subscribe)
        self._clean = clean
        self._max_message = max_message
        self._will = will
        self._on_state = on_state
        self._on_oversize = on_oversize
        self._keepalive = keepalive
        self._stuck_s = stuck_s
        self._memory = Memory()
        self._inbox = Inbox(window=window, window_bytes=window_bytes)
        if broker.tls:
            tls_context(broker)  # files that cannot be used are told at once
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said = ""
        self._closing = self._wary = False
        self._hurry = asyncio.Event()
        self._seldom = Seldom(_log)
        self.oversize = self._resets = 0

    async def __aenter__(self) -> Self:
        """Start connecting; does not wait for it."""
        self._task = asyncio.create_task(self._run(), name=f"mqtt {self._client_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush, take leave of the broker, and end the iteration."""
        self._closing = True
        connection = self._connection
        try:
            if connection is not None:
                await connection.close()
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            self._inbox.close()

    @property
    def connected(self) -> bool:
        """Whether CONNACK and SUBACK are there, and the connection stands."""
        return self._up.is_set()

    @property
    def closed(self) -> bool:
        """Whether it took leave, and will not come back."""
        return self._closing

    @property
    def trouble(self) -> str:
        """Why the last connection ended or could not be made; empty while one stands, or before the first."""
        return self._said

    @property
    def unacknowledged(self) -> int:
        """Messages that came and wait for their `ack`."""
        return len(self._inbox)

    @property
    def resets(self) -> int:
        """How often a connection that stood was dropped: the broker was stuck, or by `reset`."""
        return self._resets

    async def wait_connected(self) -> None:
        """Return once connected."""
        await self._up.wait()

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publish a message.

        Returns at QoS 0 once the socket has it, at QoS 1 with the PUBACK, at QoS 2 with the PUBCOMP.

        Raises:
            NotConnectedError: not connected, or not any more before the answer came.
            ValueError: not a topic to publish on, or more than 256 MiB.
        """
        if self._connection is None or not self._up.is_set():
            raise NotConnectedError(f"not connected to {self._broker.url}: {self._said or 'not yet'}")
        await self._connection.publish(topic, payload, qos=qos, retain=retain)

    def hurry(self) -> None:
        """Come back at once, for the caller knows that the loss was its own doing: the delay begins anew."""
        self._hurry.set()

    def reset(self, why: str) -> None:
        """Drop the connection, if it stands, and come back; the reason is for the log."""
        if self._connection is not None and self._up.is_set():
            self._resets += 1
            self._connection.abort(ConnectionError(why))

    def __aiter__(self) -> Self:
        """Iterate over what comes, over all reconnects, until the session is closed."""
        return self

    async def __anext__(self) -> Message:
        """Wait for the next message."""
        message = await self._inbox.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def _run(self) -> None:
        backoff = Backoff(longest_s=_LAST_DELAY_S)
        loop = asyncio.get_running_loop()
        rival = Rival()
        while True:
            began = loop.time()
            try:
                reason = await self._live()
            except RefusedError as error:
                reason = str(error)
                backoff.take_longest()
            except (OSError, NotConnectedError, ValueError) as error:
                reason = plainly(error, self._broker)
                if reason == CLOSED and self._broker.tls:
                    reason += _WITHOUT_A_WORD
            except Exception as error:  # noqa: BLE001 - a session that ended in silence would never come back
                _log.exception("a fault of ours; the session goes on")
                reason = f"a fault of ours: {type(error).__name__}"
                backoff.take_longest()
            else:
                held = loop.time() - began
                if rival.ended(by_broker=reason == CLOSED, held_s=held, delay=backoff.delay_s):
                    reason += f" again: does another program connect as {self._client_id!r}?"
                elif held > backoff.delay_s:  # it deserves a quick return; one that broke at once does not
                    backoff.begin_anew()
            if self._closing:
                return
            self._say(reason)
            await backoff.pause(self._hurry)

    async def _live(self) -> str:
        """Connect, and return why the connection ended."""
        heartbeat = Heartbeat(
            keepalive=self._keepalive, stuck_s=self._stuck_s, clock=asyncio.get_running_loop().time
        )
        connection = await self._dial(heartbeat)
        self._inbox.on_space = connection.resume
        self._connection = connection
        try:
            if self._wary:
                await hear_out(connection.lost)
            self._wary = self._broker.tls
            answer = await introduce(
                connection, self._broker, name=self._client_id, clean=self._clean, keepalive=self._keepalive,
                will=self._will,
            )  # fmt: skip
            self._wary = False
            see_connack(answer.code, client_id=self._client_id, broker=self._broker)
            if not answer.session_present:
                self._memory.received.clear()
            connection.recall()
            await subscribe(connection, self._broker, self._filters)
            self._say("")
            self._set_up(up=True)
            return await asyncio.shield(connection.lost)
        finally:
            self._resets += heartbeat.stuck
            self._set_up(up=False)
            self._connection = None
            connection.abort(NotConnectedError("given up"))

    async def _dial(self, heartbeat: Heartbeat) -> Connection:
        def protocol() -> Connection:
            return Connection(
                inbox=self._inbox,
                memory=self._memory,
                max_message=self._max_message,
                heartbeat=heartbeat,
                on_oversize=self._discarded,
                on_lost=lambda: self._set_up(up=False),
                plainly=lambda error: plainly(error, self._broker),
            )

        # Made each time: certificates are renewed while we run.
        tls = tls_context(self._broker) if self._broker.tls else None

        # Not wait_for: in Python 3.11 it loses a cancellation that comes as the dial ends.
        async with asyncio.timeout(ANSWER_S):
            # asyncio sets TCP_NODELAY by itself.
            _, connection = await asyncio.get_running_loop().create_connection(
                protocol, self._broker.host, self._broker.port, ssl=tls
            )
        return connection

    def _set_up(self, *, up: bool) -> None:
        if up == self._up.is_set():
            return
        (self._up.set if up else self._up.clear)()
        _log.info("%s: %s", self._broker.url, "connected" if up else "not connected")
        if self._on_state is not None:
            self._on_state(up)

    def _say(self, reason: str) -> None:
        if reason and reason != self._said:
            _log.warning("%s: %s; trying again", self._broker.url, reason)
        self._said = reason

    def _discarded(self, topic: str, size: int) -> None:
        self.oversize += 1
        form = "%s: a message of %d bytes on %s is over the limit of %d and was discarded"
        facts = self._broker.url, size, shown(topic), self._max_message
        self._seldom.say(logging.ERROR, "oversize", form, *facts)
        if self._on_oversize is not None:
            self._on_oversize(topic, size)
