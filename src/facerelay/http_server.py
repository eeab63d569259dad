"""The server behind each page: bounded connections, bounded requests, TLS, an end that waits for nobody."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from facerelay import web
from facerelay.admission import Admission, Place
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_MAX_HEADER: Final = 16_384
_IDLE_S: Final = 45.0
"""Longer than any request takes to be answered."""

_HEAD_S: Final = 10.0
"""For a handshake, and then for the head of a request."""

_BODY_S: Final = 20.0
_PAUSE_S: Final = 0.2
_BACKLOG: Final = 1024

_seldom = Seldom(log)


class _Rare(logging.Filter):
    """Lets what anybody can cause by the thousand be said now and then."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is said as it comes."""
        if record.levelno != logging.WARNING:
            return True
        _seldom.say(logging.WARNING, str(record.msg), "%s", record.getMessage())
        return False


logging.getLogger("uvicorn.error").addFilter(_Rare())


def make_server(
    app: ASGIApp,
    *,
    tls: ssl.SSLContext | None = None,
    admission: Admission | None = None,
    proxies: Sequence[str] = (),
) -> Server:
    """Return a server of an app: `serve(sockets=[…])` serves until its `should_exit` is set.

    Args:
        app: answers; what it answers is hardened.
        tls: None: plain HTTP.
        admission: who may be connected.
        proxies: addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed.
    """
    answering: Any = web.hardened(app)
    if proxies:
        answering = ProxyHeadersMiddleware(answering, trusted_hosts=list(proxies))
    config = uvicorn.Config(
        answering,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # uvicorn's default believes whoever comes from loopback
        http=_Connection,
        ws="none",  # an upgrade would leave the bounds of a connection
        h11_max_incomplete_event_size=_MAX_HEADER,
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    return Server(config, tls=tls, admission=admission or Admission())


class Server(uvicorn.Server):
    """A server that leaves the process's signals to the role's runner, and has no answer wait.

    Args:
        config: uvicorn's.
        tls: of all its sockets.
        admission: who may be connected.
    """

    def __init__(self, config: uvicorn.Config, *, tls: ssl.SSLContext | None, admission: Admission) -> None:
        super().__init__(config)
        self._tls = tls
        self._admission = admission
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await self.lifespan.startup()
        self.servers = []
        for listening in sockets or ():
            listening.listen(_BACKLOG)
            listening.setblocking(False)  # noqa: FBT003 - the standard library's own
            self._start(self._accept(listening))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody else, and let the others end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def cut_off(self) -> None:
        """Close all connections at once, so that no endless answer holds up the end."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _start(self, work: Any) -> asyncio.Task[None]:  # noqa: ANN401 - a coroutine
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            log.error("a connection was not taken, by a fault of ours", exc_info=fault)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:  # no descriptor is left, or who came has left again
                _seldom.say(logging.WARNING, "accept", "the page cannot take a connection: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            place = self._admission.enter(address[0])
            if place is None:
                connection.close()
                continue
            place.abort = self._start(self._begin(connection, place)).cancel

    async def _begin(self, connection: socket.socket, place: Place) -> None:
        """Shake hands, and have the connection answered."""
        connected = False
        try:
            # Else the second part of an answer waits 40 ms for the delayed acknowledgement of the first.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol(place), connection, ssl=self._tls,
                ssl_handshake_timeout=_HEAD_S if self._tls else None,
                ssl_shutdown_timeout=_HEAD_S if self._tls else None,
            )  # fmt: skip
            connected = True
        except OSError:
            log.debug("a handshake failed", exc_info=True)
        finally:
            if not connected:
                connection.close()
                place.leave()

    def _protocol(self, place: Place) -> Callable[[], asyncio.Protocol]:
        def make() -> asyncio.Protocol:
            made = _Connection(self.config, self.server_state, self.lifespan.state)
            made.place = place
            return made

        return make


class _Connection(H11Protocol):
    """A connection that is closed when a request takes long to come, or none begins, or nobody reads.

    A server without limits for this waits for ever on requests that were sent by half, until there are
    as many as it takes, and then answers nobody. An answer that goes on and on may do so, as long as
    something of it is taken.
    """

    place: Place

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self.place.abort = transport.abort
        self.place.waits = self._waits
        self._ends_after: object = None
        self._timer = self.loop.call_later(_IDLE_S, self._look)
        self._comes: object = None
        self._deadline: asyncio.TimerHandle | None = None
        self._limit()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to look."""
        self._timer.cancel()
        self._comes = None
        if self._deadline is not None:
            self._deadline.cancel()
        self.place.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        super().data_received(data)
        self._limit()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.place.since = time.monotonic()
        super().on_response_complete()
        self._limit()

    def resume_writing(self) -> None:
        """Note that something was taken."""
        self._ends_after = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, hardened as any other answer."""
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close"), *web.PLAIN.items()]
        with suppress(h11.LocalProtocolError):  # in the middle of an answer
            start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (start, h11.Data(data=msg.encode()), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _waits(self) -> bool:
        return self.conn.their_state in {h11.IDLE, h11.SEND_BODY}

    def _limit(self) -> None:
        """Give what comes next, a head or a body, its time."""
        state = self.conn.their_state
        if state is self._comes or self.transport.is_closing():
            return
        self._comes = state
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        seconds = {h11.IDLE: _HEAD_S, h11.SEND_BODY: _BODY_S}.get(state)
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _look(self) -> None:
        flowing = self._answering() and not self.flow.write_paused
        if self.cycle is self._ends_after and not flowing:  # as at the last look, or still none
            self.transport.abort()
            return
        self._ends_after = self.cycle
        self._timer = self.loop.call_later(_IDLE_S, self._look)

    def _answering(self) -> bool:
        return bool(self.cycle and self.cycle.response_started and not self.cycle.response_complete)
