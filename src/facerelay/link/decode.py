"""A server's MQTT 3.1.1 packets out of a stream of bytes, with every size checked before memory is spent."""

from collections.abc import Callable
from functools import lru_cache

from facerelay.link.wire import (
    CACHED,
    Ack,
    ConnAck,
    Kind,
    Oversize,
    Packet,
    PacketTooLargeError,
    PingResp,
    ProtocolError,
    Publish,
    SubAck,
)

_CONTROL_LIMIT = 4_096
_BUFFER = 262_144
_FAILED = 0x80


class Decoder:
    """Packets out of a stream of bytes, never holding more than one packet that is within the limits.

    Fill the memory that `space` lends, say how much with `advance`, then call `next` until it has none.

    Args:
        max_payload: Largest payload of a message in bytes, checked before any of it is kept.
        skip_oversize: Discard a larger message as it comes and report `Oversize`; False: raise.
    """

    def __init__(self, *, max_payload: int, skip_oversize: bool = True) -> None:
        self._max_payload = max_payload
        self._skip_oversize = skip_oversize
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._head = self._tail = 0
        self._need = 0
        self._skip = 0
        self._oversize: Oversize | None = None

    def space(self) -> memoryview:
        """Memory to receive into, never empty."""
        if self._head == self._tail:
            self._head = self._tail = 0
        capacity = len(self._buffer)
        # A packet that begins the buffer and fits is not moved again, however little comes at a time.
        little = bool(self._head) and capacity - self._tail < capacity // 4
        too_small = self._head + self._need > capacity or little
        too_large = self._head == self._tail and self._need <= _BUFFER // 2 < capacity - _BUFFER // 2
        if too_small or too_large:
            self._compact()
        return self._view[self._tail :]

    def advance(self, count: int) -> None:
        """The first `count` bytes of the last `space` were filled."""
        self._tail += count

    def feed(self, data: bytes) -> None:
        """Copy `data` in, for callers without a socket; `next` must be exhausted between calls."""
        space = self.space()
        if len(data) > len(space):
            raise ValueError(f"feed at most {len(space):,} bytes at a time")
        space[: len(data)] = data
        self.advance(len(data))

    def next(self) -> Packet | None:
        """The next packet, or None until more bytes are there.

        Raises:
            ProtocolError: the bytes are no MQTT; the stream cannot be read any further.
        """
        if self._skip:
            return self._discard()
        head = self._length()
        if head is None:
            return None
        body, remaining = head
        first = self._buffer[self._head]
        if first >> 4 == Kind.PUBLISH:
            return self._publish(first, body, remaining)
        if remaining > _CONTROL_LIMIT:
            raise PacketTooLargeError(remaining, _CONTROL_LIMIT)
        if not self._have(body + remaining):
            return None
        self._head = body + remaining
        return _control(first, bytes(self._view[body : body + remaining]))

    def _length(self) -> tuple[int, int] | None:
        remaining = shift = 0
        for at in range(self._head + 1, min(self._head + 5, self._tail)):
            byte = self._buffer[at]
            remaining |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the top bit says that more follow (2.2.3)
                return at + 1, remaining
            shift += 7
        if shift == 28:  # noqa: PLR2004 - four bytes of seven bits, and still more to come
            raise ProtocolError("a packet's length has more than four bytes")
        self._need = 5
        return None

    def _publish(self, first: int, body: int, remaining: int) -> Packet | None:
        qos = first >> 1 & 3
        if remaining < 2 or qos == 3:  # noqa: PLR2004 - a topic has a length; QoS 3 does not exist
            raise ProtocolError("a PUBLISH is malformed")
        if not self._have(body + 2):
            return None
        topic_end = body + 2 + (self._buffer[body] << 8 | self._buffer[body + 1])
        start = topic_end + 2 if qos else topic_end
        end = body + remaining
        if start > end:
            raise ProtocolError("a PUBLISH ends inside its topic")
        fits = end - start <= self._max_payload
        if not fits and not self._skip_oversize:
            raise PacketTooLargeError(end - start, self._max_payload)
        if not self._have(end if fits else start):
            return None
        topic = _topic(bytes(self._view[body + 2 : topic_end]))
        packet_id = self._buffer[topic_end] << 8 | self._buffer[topic_end + 1] if qos else 0
        if qos and not packet_id:
            raise ProtocolError("a PUBLISH has packet identifier 0")
        if not fits:
            self._head, self._skip = start, end - start
            self._oversize = Oversize(topic, end - start, qos, packet_id)
            return self._discard()
        self._head = end
        return Publish(topic, bytes(self._view[start:end]), qos, bool(first & 1), bool(first & 8), packet_id)

    def _have(self, end: int) -> bool:
        self._need = end - self._head
        return end <= self._tail

    def _discard(self) -> Oversize | None:
        count = min(self._skip, self._tail - self._head)
        self._head += count
        self._skip -= count
        self._need = 0
        return None if self._skip else self._oversize

    def _compact(self) -> None:
        kept = bytes(self._view[self._head : self._tail])
        size = max(_BUFFER, self._need + _BUFFER // 4 if self._need > _BUFFER // 2 else 0)
        size = max(size, len(kept) + _BUFFER // 4)
        if size != len(self._buffer):
            self._buffer = bytearray(size)
            self._view = memoryview(self._buffer)
        self._view[: len(kept)] = kept
        self._head, self._tail = 0, len(kept)


def _topic(raw: bytes) -> str:
    return _known_topic(raw) if len(raw) < CACHED else _new_topic(raw)


def _new_topic(raw: bytes) -> str:
    try:
        topic = raw.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a topic is not UTF-8: {raw[:80]!r}") from error
    if not topic or any(sign in topic for sign in "+#\x00"):
        raise ProtocolError(f"a message came on topic {topic[:80]!a}")
    return topic


_known_topic = lru_cache(maxsize=256)(_new_topic)


def _control(first: int, body: bytes) -> Packet:
    decode = _DECODERS.get(first)
    if decode is None:
        raise ProtocolError(f"a packet begins with byte {first:#04x}")
    return decode(Kind(first >> 4), body)


def _connack(_kind: Kind, body: bytes) -> Packet:
    if len(body) != 2 or body[0] > 1:  # noqa: PLR2004 - flags and code (3.2.2)
        raise ProtocolError("a CONNACK is malformed")
    return ConnAck(bool(body[0]), body[1])


def _ack(kind: Kind, body: bytes) -> Packet:
    if len(body) != 2 or not any(body):  # noqa: PLR2004 - one packet identifier, not 0
        raise ProtocolError(f"a {kind.name} is malformed")
    return Ack(kind, int.from_bytes(body, "big"))


def _suback(_kind: Kind, body: bytes) -> Packet:
    if len(body) < 3 or any(code > 2 and code != _FAILED for code in body[2:]):  # noqa: PLR2004 - (3.9.3)
        raise ProtocolError("a SUBACK is malformed")
    granted = tuple(None if code == _FAILED else code for code in body[2:])
    return SubAck(int.from_bytes(body[:2], "big"), granted)


def _pingresp(_kind: Kind, body: bytes) -> Packet:
    if body:
        raise ProtocolError("a PINGRESP is malformed")
    return PingResp()


# By the whole first byte: the flags are fixed for all but PUBLISH (2.2.2).
_DECODERS: dict[int, Callable[[Kind, bytes], Packet]] = {
    0x20: _connack,
    0x40: _ack,
    0x50: _ack,
    0x62: _ack,
    0x70: _ack,
    0x90: _suback,
    0xB0: _ack,
    0xD0: _pingresp,
}
