"""One MQTT connection, from CONNECT until it is lost; another one takes its place."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from facerelay.link import wire
from facerelay.link.decode import Decoder
from facerelay.link.flight import SUBSCRIBE_ID, Flight
from facerelay.link.heartbeat import Heartbeat, Outflow
from facerelay.link.inbox import Inbox
from facerelay.link.wire import Ack, ConnAck, Kind, Oversize, PingResp, ProtocolError, Publish, SubAck
from facerelay.mqtt import NotConnectedError

CLOSED = "the broker closed the connection"
"""Why a connection ended that was closed in order, by the other side."""

_FLUSH_BYTES = 65_536
# What a broker asked for leaves together: a write for each answer costs more than all else about a message.
_GATHER_S = 0.002
_GATHER = 32
# A broker that uses all 65,535 identifiers at QoS 2 waits for half of this.
_UNREAD_ANSWERS = 1_048_576
_CLOSE_S = 2


@dataclass(slots=True)
class Memory:
    """What both sides keep of QoS 2 from one connection of a session to the next (4.1).

    Attributes:
        received: Identifiers we answered with PUBREC, whose PUBREL has not come, each with a hash of its
            message: a broker that lost its memory uses them again for others.
        unreleased: Identifiers of ours whose PUBCOMP has not come.
    """

    received: dict[int, int] = field(default_factory=dict)
    unreleased: set[int] = field(default_factory=set)


class Connection(asyncio.BufferedProtocol):
    """Speaks MQTT over one transport.

    Reading stops at the first message for which the inbox has no room, and goes on when it has.
    Writes of one turn of the event loop leave together; answers to the broker go with them, or within 2 ms.

    Attributes:
        lost: Done when the connection is no more; its result says why.
        connack: The answer to CONNECT.
        suback: The answer to SUBSCRIBE.
    """

    def __init__(
        self,
        *,
        inbox: Inbox,
        memory: Memory,
        max_message: int,
        heartbeat: Heartbeat,
        on_oversize: Callable[[str, int], None],
        on_lost: Callable[[], None],
        plainly: Callable[[Exception], str] = str,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox = inbox
        self._memory = memory
        self._flight = Flight(memory.unreleased)
        self._decoder = Decoder(max_payload=max_message)
        self._heartbeat = heartbeat
        self._on_oversize = on_oversize
        self._on_lost = on_lost
        self._plainly = plainly
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason: Exception | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._outflow = Outflow()
        self._due = self._gathering = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._unread_answers = 0
        self._stalled: Publish | None = None
        self._unanswered: set[int] = set()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.connack: asyncio.Future[ConnAck] = self._loop.create_future()
        self.suback: asyncio.Future[SubAck] = self._loop.create_future()

    @property
    def reading(self) -> bool:
        """False while our own full inbox keeps us from hearing the broker."""
        return self._stalled is None

    # What a session asks for.

    def send(self, packet: bytes) -> None:
        """Write a packet at the end of this turn of the loop, or when the broker takes more.

        Nothing happens if the connection is lost.
        """
        self._out.append(packet)
        self._out_bytes += len(packet)
        if self._out_bytes >= _FLUSH_BYTES:
            self._flush()
        elif not self._due:
            self._due = True
            self._loop.call_soon(self._soon)

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        """Ask for topics; `suback` has the answer."""
        self.send(wire.subscribe(SUBSCRIBE_ID, filters))

    def recall(self) -> None:
        """Finish what an earlier connection left half done at QoS 2."""
        for packet in self._flight.recall():
            self.send(packet)

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish, and wait for what the QoS promises."""
        wire.topic_field(topic)  # a wrong one must not cost an identifier
        while not self._writable.is_set():
            await self._writable.wait()
        self._check()
        if qos == 0:
            self.send(wire.publish(topic, payload, retain=retain))
            if not self._out:
                await asyncio.sleep(0)  # once per flush, so that a busy publisher leaves others their turn
            return
        packet_id = await self._flight.take()
        self._check()
        answer = self._flight.begin(packet_id, qos=qos)
        self.send(wire.publish(topic, payload, qos=qos, retain=retain, packet_id=packet_id))
        await answer

    async def close(self) -> None:
        """Send what is waiting and DISCONNECT, then close."""
        if self._transport is not None and not self.lost.done():
            self.send(wire.DISCONNECT)
            self._flush()
            self._transport.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await asyncio.shield(self.lost)
        self.abort(NotConnectedError("the session was closed"))

    def abort(self, reason: Exception) -> None:
        """Drop the connection at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - create_connection makes no other
        self._transport = transport
        self._timer = self._loop.call_later(self._heartbeat.every_s, self._beat)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's interface
        """Where the next bytes go."""
        return self._decoder.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._heartbeat.heard()
        self._decoder.advance(nbytes)
        self._read()

    def pause_writing(self) -> None:
        """The broker takes less than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The broker keeps up again."""
        self._writable.set()
        self._unread_answers = 0
        self._loop.call_soon(self._soon)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: everybody who waits hears of it."""
        self._reason = self._reason or exc or ConnectionError(CLOSED)
        if self._timer is not None:
            self._timer.cancel()
        why = self._plainly(self._reason)
        self.lost.set_result(why)
        self._flight.fail(NotConnectedError(f"not connected any more: {why}"))
        self._writable.set()
        self._on_lost()

    # Reading.

    def resume(self) -> None:
        """Go on reading, if it had stopped and the inbox has room."""
        if self._stalled is None or self._inbox.full or self._transport is None or self.lost.done():
            return
        packet, self._stalled = self._stalled, None
        self._heartbeat.heard()
        self._heartbeat.acknowledged()  # the broker may have, and we did not read it
        self._on_publish(packet)
        self._read()
        if self.reading:
            self._transport.resume_reading()

    def _read(self) -> None:
        try:
            while self._stalled is None and (packet := self._decoder.next()) is not None:
                self._handle(packet)
        except ProtocolError as error:
            self.abort(error)

    def _handle(self, packet: wire.Packet) -> None:
        match packet:
            case Publish():
                self._on_publish(packet)
            case Ack():
                self._on_ack(packet)
            case Oversize():
                self._on_oversize(packet.topic, packet.size)
                self._acknowledge(packet)
            case ConnAck() if not self.connack.done():
                self.connack.set_result(packet)
            case SubAck() if not self.suback.done():
                self.suback.set_result(packet)
            case ConnAck() | SubAck():
                raise ProtocolError(f"a second {type(packet).__name__} came")
            case PingResp():
                self._heartbeat.answered()

    def _on_publish(self, packet: Publish) -> None:
        if packet.packet_id in self._unanswered:
            return  # the broker grew impatient; the message is in the inbox
        if packet.duplicate and self._memory.received.get(packet.packet_id) == _content(packet):
            self._answer(wire.pubrec(packet.packet_id))
        elif self._inbox.full and self._transport is not None:
            self._stalled = packet
            self._transport.pause_reading()
        else:
            if packet.qos:
                self._unanswered.add(packet.packet_id)
            self._inbox.put(packet, self._acknowledge)

    def _acknowledge(self, packet: Publish | Oversize) -> None:
        if self.lost.done():
            return
        self._unanswered.discard(packet.packet_id)
        if packet.qos == 1:
            self._answer(wire.puback(packet.packet_id))
        elif packet.qos:
            self._memory.received[packet.packet_id] = _content(packet)
            self._answer(wire.pubrec(packet.packet_id))

    def _on_ack(self, ack: Ack) -> None:
        if ack.kind is Kind.PUBREL:
            self._memory.received.pop(ack.packet_id, None)
            self._answer(wire.pubcomp(ack.packet_id))
            return
        self._heartbeat.acknowledged()
        if answer := self._flight.on_ack(ack):
            self._answer(answer)

    # Writing.

    def _check(self) -> None:
        if self._transport is None or self.lost.done():
            raise NotConnectedError(f"not connected: {self._reason or 'not yet'}")

    def _answer(self, packet: bytes) -> None:
        """Send what the broker asked for; one that asks and does not read must not fill our memory."""
        if self._writable.is_set() or self._transport is None:
            self._gather(packet)
            return
        self._unread_answers += len(packet)
        if self._unread_answers > _UNREAD_ANSWERS:
            self._unread_answers = 0
            if self._transport.get_write_buffer_size() > _UNREAD_ANSWERS:
                self.abort(ProtocolError("the broker does not read our answers"))
        self.send(packet)

    def _gather(self, packet: bytes) -> None:
        """Send soon: with what is sent next, or when there are some, or when the time is up."""
        if self._due or len(self._out) + 1 >= _GATHER:
            self.send(packet)
            return
        self._out.append(packet)
        self._out_bytes += len(packet)
        if not self._gathering:
            self._gathering = True
            self._loop.call_later(_GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = False
        self._soon()

    def _soon(self) -> None:
        self._due = False
        # What the broker does not take yet waits here: a write of its own for each few bytes would be costly.
        if self._writable.is_set():
            self._flush()

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self.lost.done():
            self._outflow.wrote(self._out_bytes)
            self._transport.write(b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._heartbeat.every_s, self._beat)
        if self._outflow.moves(self._transport):
            self._heartbeat.heard()
        if fault := self._heartbeat.beat(reading=self.reading, owed=len(self._flight) > 0):
            self.abort(ConnectionError(fault))
        else:
            self.send(wire.PINGREQ)


def _content(packet: Publish | Oversize) -> int:
    return hash((packet.topic, packet.payload if isinstance(packet, Publish) else packet.size))
