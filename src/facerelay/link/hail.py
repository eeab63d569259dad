"""Ask our own embedded broker whether it answers."""

import asyncio
import socket
import ssl
from collections import deque
from contextlib import suppress
from typing import Final

from facerelay.link import wire
from facerelay.sections import Broker

ADDRESSES: Final[deque[str]] = deque(maxlen=16)
"""Whence `greet` came of late: without a certificate it is refused, which says that the server is well."""


async def greet(broker: Broker) -> None:
    """Wait for a CONNACK, whatever it says, or for a refusal of those who show no certificate."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(broker.host, broker.host)  # noqa: S104 - compared, not bound
    context = _unchecked(broker) if broker.tls else None
    hello = wire.connect(client_id="facerelay-start", username=broker.username, password=broker.secret())
    while True:
        try:
            name = host if context else None
            reader, writer = await asyncio.open_connection(
                sock=await _connection(host, broker.port), ssl=context, server_hostname=name
            )
        except ssl.SSLError:
            return
        except OSError:
            await asyncio.sleep(0.05)
            continue
        try:
            writer.write(hello)
            if (await reader.read(4))[:1] == b"\x20":
                return
        except ssl.SSLError:
            return
        except OSError:
            pass
        finally:
            writer.close()
        await asyncio.sleep(0.05)


async def _connection(host: str, port: int) -> socket.socket:
    """Return a connection whose refusal is nobody's attempt."""
    ours = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    ours.settimeout(0)
    try:
        await asyncio.get_running_loop().sock_connect(ours, (host, port))
    except BaseException:
        ours.close()
        raise
    address, at = ours.getsockname()[:2]
    ADDRESSES.append(f"[{address}]:{at}" if ":" in address else f"{address}:{at}")
    return ours


def _unchecked(broker: Broker) -> ssl.SSLContext:
    """Return what takes any certificate: it is our own child's, which said that it has the port."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if broker.cert is not None and broker.key is not None:
        with suppress(OSError):  # without one it is refused, which is an answer as well
            context.load_cert_chain(broker.cert, broker.key)
    return context
