"""How a session begins: what we say to the broker, what it answers, and what follows from that."""

import asyncio
import hmac
import logging
import os
import re
import ssl
from collections.abc import Sequence
from typing import Any, TypeVar

from facerelay.config import Broker
from facerelay.link import wire
from facerelay.link.connection import Connection
from facerelay.link.tls import TlsFileError, tls_trouble
from facerelay.mqtt import NotConnectedError, Will

ANSWER_S = 10.0
"""A broker has so long to answer."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_CLIENT_ID = b"facerelay client id 1\0"
_ID_BYTES = 8
_ALERT_S = 1.0
_MOST_KEY_BYTES = 65_536
_FAVOURS = re.compile(r"\$SYS/.+|link/[^/]+/reset|stores/\+/\+")
_NO_SHARING = (
    '; NATS shares nothing by MQTT: there set store.intake = "jetstream", or "mqtt" where one store is enough'
)
_REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not take the client id {client_id!r}",
    3: "its MQTT service is not available",
    4: "the user name or password is wrong: check username and password of this broker",
    5: "not authorised: check username and password of this broker, and its access list",
}
_NOT_AUTHORISED = frozenset({4, 5})
_NOT_ENROLLED = (
    "not authorised: was our certificate ({cert}) revoked? Else this machine is not enrolled at this broker"
)


class RefusedError(Exception):
    """The broker answered, and refused the connection or a subscription."""


async def hear_out(lost: asyncio.Future[str]) -> None:
    """Leave the broker a moment for its word on our certificate.

    TLS 1.3 gives it after the handshake, together with the connection's end. What we send meanwhile makes a
    reset of that end, which takes the word with it.

    Args:
        lost: done when the connection is no more; its result says why.

    Raises:
        NotConnectedError: the broker ended the connection.
    """
    await asyncio.wait([lost], timeout=_ALERT_S)
    if lost.done():
        raise NotConnectedError(lost.result())


async def introduce(
    connection: Connection, broker: Broker, *, name: str, clean: bool, keepalive: float, will: Will | None
) -> wire.ConnAck:
    """Say who we are; returns the broker's answer, for `see_connack`.

    Args:
        connection: just made.
        broker: who it is, and as whom we come.
        name: our client id, as `client_id` takes it.
        clean: whether the broker forgets us when we leave.
        keepalive: seconds.
        will: what the broker publishes when it loses us.

    Raises:
        NotConnectedError: the connection ended.
        TimeoutError: there was no answer.
    """
    connection.send(
        wire.connect(
            client_id=client_id(name, broker),
            clean=clean,
            keepalive=max(1, round(keepalive)),
            username=broker.username,
            password=broker.secret(),
            will=will,
        )
    )
    return await _answer(connection, connection.connack)


async def subscribe(connection: Connection, broker: Broker, filters: Sequence[tuple[str, int]]) -> None:
    """Ask for topic filters at their QoS.

    Raises:
        RefusedError: the broker does not grant one; the message says why.
        NotConnectedError, TimeoutError: as `introduce`.
    """
    if not filters:
        return
    connection.subscribe(filters)
    answer = await _answer(connection, connection.suback)
    see_suback(broker.url, filters, answer.granted)


async def _answer(connection: Connection, question: asyncio.Future[_T]) -> _T:
    """Wait for an answer, and don't blame the broker while it is us who don't read."""
    while not question.done():
        either: list[asyncio.Future[Any]] = [question, connection.lost]
        await asyncio.wait(either, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        if connection.lost.done():
            raise NotConnectedError(connection.lost.result())
        if not question.done() and connection.reading:
            raise TimeoutError("the broker does not answer")
    return question.result()


def see_connack(code: int, *, client_id: str, broker: Broker) -> None:
    """Check that the broker takes us.

    Raises:
        RefusedError: it does not; the message says why.
    """
    if code:
        if code in _NOT_AUTHORISED and broker.cert is not None and broker.username is None:
            raise RefusedError(f"the broker refused us: {_NOT_ENROLLED.format(cert=broker.cert)}")
        why = _REFUSALS.get(code, f"code {code}").format(client_id=client_id)
        raise RefusedError(f"the broker refused us: {why}")


def see_suback(url: str, filters: Sequence[tuple[str, int]], granted: Sequence[int | None]) -> None:
    """Check that the broker grants what was asked for; figures, resets, beats of stores are a favour.

    Raises:
        RefusedError: another subscription is refused.
    """
    for (name, qos), given in zip(filters, granted, strict=False):
        if given is None and _FAVOURS.fullmatch(name):
            _log.info("%s: it refuses the subscription to %s, and we do without", url, name)
        elif given is None:
            hint = _NO_SHARING if name.startswith("$share/") else ""
            raise RefusedError(f"the broker refused the subscription to {name}: check its access list{hint}")
        elif given < qos:
            _log.warning("%s: %s is granted at QoS %d, not %d", url, name, given, qos)


def plainly(error: Exception, broker: Broker) -> str:
    """Return why a connection could not be made, or ended, as a person would say it."""
    if isinstance(error, ssl.SSLError):
        return tls_trouble(error, broker)
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno).lower()  # asyncio's own words are of calls and tuples
    return str(error) or "it does not answer"


def client_id(plain: str, broker: Broker) -> str:
    """Return the client id by which a broker knows us.

    A broker ends a connection whose client id another one brings, and most do not ask whose certificate that
    is. So one who has a certificate has an id that nobody can guess: it ends with 16 hex digits made from the
    key, which are the same after a restart, and others once the key is renewed.

    Args:
        plain: readable, and unique at the broker among those who mean well.
        broker: with the key of our certificate, if we have one.

    Raises:
        TlsFileError: the key cannot be read.
    """
    if broker.key is None or not broker.tls:
        return plain
    try:
        with broker.key.open("rb") as file:
            key = file.read(_MOST_KEY_BYTES)
    except OSError as error:
        raise TlsFileError(f"key: {broker.key}: {error.strerror}") from None
    return f"{plain}-{hmac.digest(key, _CLIENT_ID + plain.encode(), 'sha256')[:_ID_BYTES].hex()}"
