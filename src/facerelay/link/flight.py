"""What is on its way out: identifiers, and who waits for their acknowledgement."""

import asyncio
import secrets
from collections import deque

from facerelay.link import wire
from facerelay.link.wire import Ack, Kind
from facerelay.mqtt import NotConnectedError

SUBSCRIBE_ID = 65_535
_IN_FLIGHT = 1_000


class Flight:
    """Messages of ours at QoS 1 and 2 that the broker has not confirmed, at most 1,000 of them.

    Args:
        unreleased: Identifiers whose PUBCOMP has not come, kept for the next connection: the broker may
            remember them, and take a new message under one of them for the old one.
    """

    def __init__(self, unreleased: set[int]) -> None:
        self._unreleased = unreleased
        self._answers: dict[int, asyncio.Future[None]] = {}
        # A NATS server that was killed remembers even a clean session's; those of an earlier process of ours
        # are not known here, so the numbers begin where it hardly was.
        first = 1 + secrets.randbelow(SUBSCRIBE_ID - _IN_FLIGHT)
        self._free = deque(range(first, first + _IN_FLIGHT))
        self._waiting: deque[asyncio.Future[int]] = deque()

    def __len__(self) -> int:
        """Count the messages that were sent and not confirmed."""
        return len(self._answers)

    async def take(self) -> int:
        """Return a free identifier; whoever waits for one is served in order."""
        if self._free and not self._waiting:
            return self._free.popleft()
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result())
            raise

    def begin(self, packet_id: int, *, qos: int) -> asyncio.Future[None]:
        """Count a message as sent; the future is done with its PUBACK or PUBCOMP."""
        answer = self._answers[packet_id] = asyncio.get_running_loop().create_future()
        if qos == 2:  # noqa: PLR2004 - QoS 2
            self._unreleased.add(packet_id)
        return answer

    def recall(self) -> list[bytes]:
        """Return what finishes the messages that an earlier connection left half done at QoS 2."""
        self._free = deque(packet_id for packet_id in self._free if packet_id not in self._unreleased)
        for packet_id in self._unreleased:
            self._answers[packet_id] = asyncio.get_running_loop().create_future()
        return [wire.pubrel(packet_id) for packet_id in sorted(self._unreleased)]

    def on_ack(self, ack: Ack) -> bytes | None:
        """Take the broker's word; return what to answer, if anything."""
        if ack.kind is Kind.PUBREC:
            return wire.pubrel(ack.packet_id)
        answer = self._answers.pop(ack.packet_id, None)
        if answer is not None:
            self._unreleased.discard(ack.packet_id)
            self._give_back(ack.packet_id)
            if not answer.done():
                answer.set_result(None)
        return None

    def fail(self, error: NotConnectedError) -> None:
        """Tell all who wait that no answer will come."""
        waiters: list[asyncio.Future[None] | asyncio.Future[int]] = [*self._answers.values(), *self._waiting]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # nobody asks for that of a recalled one
        self._waiting.clear()

    def _give_back(self, packet_id: int) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(packet_id)
                return
        self._free.append(packet_id)
