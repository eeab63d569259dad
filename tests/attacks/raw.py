"""An MQTT client that says whatever it is told to, over the TLS of an enrolled machine."""

from __future__ import annotations

import secrets
import socket
import time
from types import TracebackType
from typing import Self

from facerelay.config import Broker
from facerelay.link import wire
from facerelay.link.tls import tls_context

PUBLISH = 3
PUBACK = 4
SUBACK = 9
REFUSED = 0x80


class ClosedError(Exception):
    """The broker has ended the connection."""


class Raw:
    """One connection, without any memory or manners.

    Attributes:
        code: of CONNACK.
    """

    def __init__(
        self,
        broker: Broker,
        name: str = "raw",
        *,
        client_id: str = "",
        hello: bytes | None = None,
        clean: bool = True,
    ) -> None:
        # NATS makes one wait whose client id has just been here.
        client_id = client_id or f"{name}-{secrets.token_hex(4)}"
        self.socket = socket.create_connection((broker.host, broker.port), 10)
        self._ids = 0
        self.inbox: list[tuple[str, bytes]] = []
        try:
            if broker.tls:
                self.socket = tls_context(broker).wrap_socket(self.socket, server_hostname=broker.host)
            self.send(hello if hello is not None else wire.connect(client_id=client_id, clean=clean))
            kind, body = self.packet()
        except BaseException:
            self.socket.close()
            raise
        assert kind == wire.Kind.CONNACK
        self.code = body[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise ClosedError from error

    def packet(self, timeout: float = 10) -> tuple[int, bytes]:
        """Return the next packet's kind and body; a message is put into the inbox as well."""
        self.socket.settimeout(timeout)
        first = self._exactly(1)[0]
        size = shift = 0
        while True:
            byte = self._exactly(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        body = self._exactly(size)
        kind = first >> 4
        if kind == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            qos = first >> 1 & 3
            self.inbox.append((body[2:end].decode(), body[end + (2 if qos else 0) :]))
            if qos:
                self.send(wire.puback(int.from_bytes(body[end : end + 2], "big")))
        return kind, body

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """Publish; whether the broker acknowledged it, or ended the connection."""
        self._ids += 1
        try:
            self.send(wire.publish(topic, payload, qos=qos, retain=retain, packet_id=self._ids))
            while qos and self.packet()[0] != PUBACK:
                pass
        except ClosedError:
            return False
        return True

    def subscribe(self, *filters: str) -> list[bool]:
        """Return which filters are granted; none where the broker ends the connection."""
        self._ids += 1
        try:
            self.send(wire.subscribe(self._ids, [(each, 1) for each in filters]))
            while True:
                kind, body = self.packet()
                if kind == SUBACK:
                    return [code != REFUSED for code in body[2:]]
        except ClosedError:
            return [False for _ in filters]

    def heard(self, seconds: float = 1.0) -> list[tuple[str, bytes]]:
        """Return what has come until so long nothing more did."""
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                self.packet(left)
        except (TimeoutError, ClosedError):
            pass
        return self.inbox

    def ended(self, seconds: float = 10) -> bool:
        """Whether the broker ends the connection within a time."""
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                self.packet(left)
        except ClosedError:
            return True
        except TimeoutError:
            pass
        return False

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except TimeoutError:
                raise
            except OSError as error:
                raise ClosedError from error
            if not more:
                raise ClosedError
            data += more
        return data
