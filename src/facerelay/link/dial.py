"""One connection by the NATS protocol, with the login and the certificates of a broker's settings."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import AuthorizationError, NoServersError
from nats.errors import Error as NatsError

from facerelay.link.tls import tls_context, tls_trouble
from facerelay.sections import Broker, JetStream

_SYSTEM_RANDOM = random.SystemRandom()
_CONNECT_S: Final = 5
_PING_S: Final = 5
_PINGS: Final = 2
_CLOSE_S: Final = 2.0
_REFUSED: Final = (
    "refused our login: are username and password, or the certificate, of [broker] known to this server?"
)

OnError = Callable[[Exception], Awaitable[None]]


@asynccontextmanager
async def dialled(
    broker: Broker, settings: JetStream, *, name: str, on_error: OnError | None = None
) -> AsyncIterator[Client]:
    """Connect with the first server that answers, in any order; the connection does not come back by itself.

    Args:
        broker: whose login and certificates count.
        settings: names the servers.
        name: as the server lists us; what it answers goes to inboxes of this name.
        on_error: is told what the server complains of.

    Raises:
        NatsError, OSError: none of them can be reached; what the last one said.
        TlsFileError: certificates cannot be used.
    """
    client = await _first(broker, settings, name, on_error or _nothing)
    try:
        yield client
    finally:
        with suppress(NatsError, OSError):  # a TimeoutError is an OSError
            async with asyncio.timeout(_CLOSE_S):
                await client.close()


def plainly(error: BaseException, broker: Broker) -> str:
    """Return what ended a connection, or kept it from being made, in words."""
    if isinstance(error, ssl.SSLError):
        return tls_trouble(error, broker)
    if isinstance(error, AuthorizationError) or "authorization violation" in f"{error}".lower():
        return _REFUSED
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{error}".removeprefix("nats: ") or type(error).__name__


async def _first(broker: Broker, settings: JetStream, name: str, on_error: OnError) -> Client:
    options: dict[str, Any] = {}
    if broker.username is not None:
        options |= {"user": broker.username, "password": broker.secret()}
    last: Exception = ConnectionError("no server")

    async def heed(error: Exception) -> None:
        nonlocal last
        last = error
        await on_error(error)

    for server in _SYSTEM_RANDOM.sample(settings.servers, len(settings.servers)):
        if server.startswith("tls:"):  # made each time: certificates are renewed while we run
            options["tls"] = tls_context(broker.model_copy(update={"alpn": None}))
        client = Client()
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client.connect(
                    [server],
                    name=f"facerelay-store-{name}",
                    inbox_prefix=f"_INBOX.{name}",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # else it tries a server that is not there for two minutes
                    reconnect_time_wait=0,
                    connect_timeout=_CONNECT_S,
                    ping_interval=_PING_S,
                    max_outstanding_pings=_PINGS,
                    error_cb=heed,
                    **options,
                )
        except (NatsError, OSError) as error:
            last = last if isinstance(error, NoServersError) else error
            with suppress(NatsError, OSError):
                await client.close()
        else:
            return client
    raise last


async def _nothing(error: Exception) -> None:
    """Stand in for nats-py's own line in the log: whoever dials says what came of it."""
