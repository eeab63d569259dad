"""What the broker says when a session begins, and what follows from it."""

import logging
import os
import re
import ssl
from collections.abc import Sequence

from facerelay.config import Broker

_log = logging.getLogger(__name__)
_FAVOURS = re.compile(r"\$SYS/.+|link/[^/]+/reset")
_REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not take the client id {client_id!r}",
    3: "its MQTT service is not available",
    4: "the user name or password is wrong: check username and password of this broker",
    5: "not authorised: check username and password of this broker, and its access list",
}


class RefusedError(Exception):
    """The broker answered, and refused the connection or a subscription."""


def see_connack(code: int, *, client_id: str) -> None:
    """Check that the broker takes us.

    Raises:
        RefusedError: it does not; the message says why.
    """
    if code:
        why = _REFUSALS.get(code, f"code {code}").format(client_id=client_id)
        raise RefusedError(f"the broker refused us: {why}")


def see_suback(url: str, filters: Sequence[tuple[str, int]], granted: Sequence[int | None]) -> None:
    """Check that the broker grants what was asked for; its own figures and resets are a favour.

    Raises:
        RefusedError: another subscription is refused.
    """
    for (name, qos), given in zip(filters, granted, strict=False):
        if given is None and _FAVOURS.fullmatch(name):
            _log.info("%s: it refuses the subscription to %s, and we do without", url, name)
        elif given is None:
            raise RefusedError(f"the broker refused the subscription to {name}: check its access list")
        elif given < qos:
            _log.warning("%s: %s is granted at QoS %d, not %d", url, name, given, qos)


def plainly(error: Exception) -> str:
    """Return why a connection could not be made, as a person would say it."""
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno).lower()  # asyncio's own words are of calls and tuples
    return str(error) or "it does not answer"


def tls_context(broker: Broker) -> ssl.SSLContext:
    """Return what checks the broker's certificate, and shows ours if there is one."""
    context = ssl.create_default_context(cafile=broker.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert is not None and broker.key is not None:
        context.load_cert_chain(broker.cert, broker.key)
    return context
