from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerelay.link import decode as decode_module
from facerelay.link import wire
from facerelay.link.decode import Decoder
from facerelay.link.wire import (
    Ack,
    ConnAck,
    Kind,
    Oversize,
    Packet,
    PacketTooLargeError,
    ProtocolError,
    SubAck,
)
from facerelay.mqtt import Will

TOPICS = st.text(
    st.characters(exclude_characters="+#\x00", exclude_categories=["Cs"]), min_size=1, max_size=40
)
IDS = st.integers(1, 65_535)


def decode(data: bytes, *, step: int = 1_000_000, decoder: Decoder | None = None) -> list[Packet]:
    decoder = decoder or Decoder(max_payload=1_000_000)
    packets = []
    while data:
        part = min(step, len(decoder.space()))
        decoder.feed(data[:part])
        data = data[part:]
        while (packet := decoder.next()) is not None:
            packets.append(packet)
    return packets


@given(
    st.lists(
        st.tuples(TOPICS, st.binary(max_size=300), st.integers(0, 2), st.booleans(), st.booleans(), IDS)
    ),
    st.integers(1, 50),
)
def test_messages_survive_any_cut_of_the_stream(
    messages: list[tuple[str, bytes, int, bool, bool, int]], step: int
) -> None:
    sent = [wire.Publish(t, p, q, r, d, i if q else 0) for t, p, q, r, d, i in messages]
    data = b"".join(
        wire.publish(
            m.topic, m.payload, qos=m.qos, retain=m.retain, duplicate=m.duplicate, packet_id=m.packet_id
        )
        for m in sent
    )
    assert decode(data, step=step) == sent


@given(IDS)
def test_acknowledgements_name_their_packet(packet_id: int) -> None:
    encoded = [wire.puback, wire.pubrec, wire.pubrel, wire.pubcomp]
    kinds = [Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP]
    assert decode(b"".join(make(packet_id) for make in encoded)) == [Ack(kind, packet_id) for kind in kinds]


@given(st.binary(max_size=2_000), st.integers(1, 100))
def test_random_bytes_are_packets_or_a_protocol_error(data: bytes, step: int) -> None:
    decoder = Decoder(max_payload=500)
    try:
        decode(data, step=step, decoder=decoder)
    except ProtocolError:
        return
    assert len(decoder.space()) <= 262_144


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_damaged_stream_raises_nothing_else(payload: bytes, data: st.DataObject) -> None:
    stream = bytearray(
        wire.publish("faces/a/b", payload, qos=1, packet_id=7) + b"\x20\x02\x00\x00\x90\x03\x00\x01\x01"
    )
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    with suppress(ProtocolError):
        decode(bytes(stream), step=13)


def test_answers_to_connect_and_subscribe() -> None:
    assert decode(b"\x20\x02\x01\x00\x90\x05\x00\x07\x01\x80\x02\xd0\x00") == [
        ConnAck(session_present=True, code=0),
        SubAck(7, (1, None, 2)),
        wire.PingResp(),
    ]


@pytest.mark.parametrize(
    "stream",
    [
        b"\x00\x00",  # no such packet
        b"\x10\x00",  # a client's packet
        b"\x42\x02\x00\x01",  # PUBACK with flags
        b"\x40\x03\x00\x01\x00",  # PUBACK too long
        b"\x40\x02\x00\x00",  # packet identifier 0
        b"\x30\xff\xff\xff\xff\x01",  # five bytes of length
        b"\x30\x00",  # PUBLISH without a topic
        b"\x30\x02\x00\x00",  # empty topic
        b"\x30\x03\x00\x01#",  # wildcard
        b"\x30\x03\x00\x01\xff",  # not UTF-8
        b"\x30\x03\x00\x09a",  # topic longer than the packet
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x32\x05\x00\x01a\x00\x00",  # PUBLISH with packet identifier 0
        b"\xd0\x01\x00",  # PINGRESP with a body
        b"\x20\xff\x7f",  # a control packet of 16 kB
    ],
)
def test_malformed_packets_are_refused(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(stream)


def test_a_message_over_the_limit_is_discarded_as_it_comes_and_the_next_one_passes() -> None:
    decoder = Decoder(max_payload=100)
    big = wire.publish("faces/a/b", bytes(50_000_000), qos=1, packet_id=9)
    good = wire.publish("faces/a/b", b"x" * 100, qos=1, packet_id=10)
    first, second = decode(big + good, decoder=decoder)
    assert first == Oversize("faces/a/b", 50_000_000, 1, 9)
    assert isinstance(second, wire.Publish)
    assert second.payload == b"x" * 100
    assert len(decoder.space()) <= 262_144


def test_a_strict_decoder_names_size_and_limit_of_what_it_refuses() -> None:
    decoder = Decoder(max_payload=100, skip_oversize=False)
    with pytest.raises(PacketTooLargeError, match="101 bytes is over the limit of 100 bytes") as caught:
        decode(wire.publish("a", bytes(101))[:10], decoder=decoder)
    assert (caught.value.size, caught.value.limit) == (101, 100)


def test_the_buffer_grows_for_a_large_message_and_shrinks_again() -> None:
    decoder = Decoder(max_payload=3_000_000)
    (packet,) = decode(wire.publish("a", bytes(3_000_000)), decoder=decoder, step=100_000)
    assert isinstance(packet, wire.Publish)
    assert len(packet.payload) == 3_000_000
    decode(wire.publish("a", b"x"), decoder=decoder)
    decode(wire.publish("a", b"x") * 60_000, decoder=decoder)
    assert len(decoder.space()) <= 262_144


def test_a_message_that_comes_by_the_byte_is_not_copied_for_each() -> None:
    """Over three quarters of the buffer, and at its beginning: it need not move."""

    class Counted(Decoder):
        moved = 0

        def _compact(self) -> None:
            self.moved += 1
            super()._compact()

    decoder = Counted(max_payload=1_000_000)
    data = wire.publish("a", bytes(250_000))
    assert decode(data[:240_000], decoder=decoder) == []
    (packet,) = decode(data[240_000:] + data[:9], decoder=decoder, step=1)
    assert isinstance(packet, wire.Publish)
    assert len(packet.payload) == 250_000
    assert decoder.moved <= 2


def test_long_topics_are_not_remembered() -> None:
    known = decode_module._known_topic.cache_info, wire._known_field.cache_info
    for length, wanted in ((60_000, 0), (200, 1)):
        before = [cache().misses for cache in known]
        (packet,) = decode(wire.publish("x" * length, b""))
        assert isinstance(packet, wire.Publish)
        assert packet.topic == "x" * length
        assert [cache().misses - was for cache, was in zip(known, before, strict=True)] == [wanted] * 2


@pytest.mark.parametrize("topic", ["", "a/#", "+", "a\x00b", "x" * 65_536, "\ud800"])
def test_topics_that_cannot_be_published_on(topic: str) -> None:
    with pytest.raises(ValueError, match=r"topic|NUL|limit|surrogates"):
        wire.publish(topic, b"")


def test_a_packet_over_256_mib_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 268_435_456

    with pytest.raises(ValueError, match="limit of 268,435,455"):
        wire.publish("a", Huge())


def test_connect_holds_everything_in_the_order_of_the_standard() -> None:
    packet = wire.connect(
        client_id="me",
        clean=False,
        keepalive=60,
        username="u",
        password="p",  # noqa: S106 - of nothing
        will=Will("w", b"0", 1, retain=True),
    )
    assert packet == (b"\x10\x1a\x00\x04MQTT\x04\xec\x00\x3c\x00\x02me\x00\x01w\x00\x010\x00\x01u\x00\x01p")
    with pytest.raises(ValueError, match="username"):
        wire.connect(client_id="me", password="p")  # noqa: S106 - of nothing


def test_subscribe_holds_filters_and_qualities() -> None:
    assert wire.subscribe(1, [("a/#", 1), ("b", 2)]) == b"\x82\x0c\x00\x01\x00\x03a/#\x01\x00\x01b\x02"
