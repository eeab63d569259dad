"""MQTT 3.1.1 on the wire: the packets, and a client's own as bytes. `decode.py` reads a server's.

Section numbers are those of the OASIS standard, "MQTT Version 3.1.1", 29 October 2014.
"""

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from facerelay.mqtt import Will

MAX_STRING = 65_535
MAX_REMAINING = 268_435_455
CACHED = 256
"""Topics of this length and more are not remembered: some hundred of 64 kB each would be a lot of memory."""
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"


class ProtocolError(Exception):
    """The server sent what MQTT 3.1.1 does not allow."""


class PacketTooLargeError(ProtocolError):
    """A packet is larger than we accept.

    Attributes:
        size: Bytes announced.
        limit: Bytes accepted.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a packet of {size:,} bytes is over the limit of {limit:,} bytes")
        self.size = size
        self.limit = limit


class Kind(IntEnum):
    """Control packet types (2.2.1) that a client receives."""

    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBACK = 9
    UNSUBACK = 11
    PINGRESP = 13


class ConnAck(NamedTuple):
    """The answer to CONNECT (3.2): code 0 is welcome."""

    session_present: bool
    code: int


class Publish(NamedTuple):
    """A message (3.3); `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    packet_id: int


class Oversize(NamedTuple):
    """A message whose payload of `size` bytes was over the limit; its bytes were discarded as they came."""

    topic: str
    size: int
    qos: int
    packet_id: int


class Ack(NamedTuple):
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK: a kind and the packet it speaks of."""

    kind: Kind
    packet_id: int


class SubAck(NamedTuple):
    """The answer to SUBSCRIBE (3.9): the QoS granted per filter, None where one was refused."""

    packet_id: int
    granted: tuple[int | None, ...]


class PingResp(NamedTuple):
    """The answer to PINGREQ (3.13)."""


Packet = ConnAck | Publish | Oversize | Ack | SubAck | PingResp


def connect(
    *,
    client_id: str,
    clean: bool = True,
    keepalive: int = 0,
    username: str | None = None,
    password: str | None = None,
    will: Will | None = None,
) -> bytes:
    """CONNECT (3.1). `keepalive` is in seconds, 0 turns it off."""
    if password is not None and username is None:
        raise ValueError("a password needs a username (3.1.2.9)")
    flags = 0x02 if clean else 0x00
    fields = [_string(client_id)]
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        fields += [topic_field(will.topic), _binary(will.payload)]
    if username is not None:
        flags |= 0x80
        fields.append(_string(username))
    if password is not None:
        flags |= 0x40
        fields.append(_binary(password.encode()))
    return _packet(0x10, b"\x00\x04MQTT\x04", bytes([flags]), keepalive.to_bytes(2, "big"), *fields)


def publish(
    topic: str,
    payload: bytes,
    *,
    qos: int = 0,
    retain: bool = False,
    duplicate: bool = False,
    packet_id: int = 0,
) -> bytes:
    """PUBLISH (3.3).

    Raises:
        ValueError: the topic is not one that can be published on, or the packet is over 256 MiB.
    """
    first = 0x30 | duplicate << 3 | qos << 1 | retain
    if qos:
        return _packet(first, topic_field(topic), packet_id.to_bytes(2, "big"), payload)
    return _packet(first, topic_field(topic), payload)


def subscribe(packet_id: int, filters: Sequence[tuple[str, int]]) -> bytes:
    """SUBSCRIBE (3.8) to topic filters, each with the highest QoS wanted."""
    fields = [part for name, qos in filters for part in (_string(name), bytes([qos]))]
    return _packet(0x82, packet_id.to_bytes(2, "big"), *fields)


def puback(packet_id: int) -> bytes:
    """PUBACK (3.4): a message at QoS 1 is ours."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def pubrec(packet_id: int) -> bytes:
    """PUBREC (3.5): a message at QoS 2 is ours."""
    return b"\x50\x02" + packet_id.to_bytes(2, "big")


def pubrel(packet_id: int) -> bytes:
    """PUBREL (3.6): the receiver may forget the identifier of a message at QoS 2."""
    return b"\x62\x02" + packet_id.to_bytes(2, "big")


def pubcomp(packet_id: int) -> bytes:
    """PUBCOMP (3.7): the identifier is forgotten."""
    return b"\x70\x02" + packet_id.to_bytes(2, "big")


def topic_field(topic: str) -> bytes:
    """A topic to publish on, as its field.

    Raises:
        ValueError: it is empty, too long, or holds a wildcard or NUL (4.7.1, 4.7.3).
    """
    return _known_field(topic) if len(topic) < CACHED else _new_field(topic)


def _new_field(topic: str) -> bytes:
    if not topic or "+" in topic or "#" in topic:
        raise ValueError(f"cannot publish on topic {topic[:80]!a}: it is empty or holds a wildcard")
    return _string(topic)


_known_field = lru_cache(maxsize=256)(_new_field)


def _string(text: str) -> bytes:
    if "\x00" in text:
        raise ValueError(f"{text[:80]!a} holds NUL, which MQTT does not allow (1.5.3)")
    return _binary(text.encode())


def _binary(data: bytes) -> bytes:
    if len(data) > MAX_STRING:
        raise ValueError(f"a field of {len(data):,} bytes is over MQTT's limit of {MAX_STRING:,} bytes")
    return len(data).to_bytes(2, "big") + data


def _packet(first: int, *fields: bytes) -> bytes:
    size = sum(map(len, fields))
    if size > MAX_REMAINING:
        raise ValueError(f"a packet of {size:,} bytes is over MQTT's limit of {MAX_REMAINING:,} bytes")
    head = bytearray((first,))
    while size > 127:  # noqa: PLR2004 - seven bits of length a byte (2.2.3)
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return b"".join((head, *fields))
