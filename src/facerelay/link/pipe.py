"""From one broker to another: a message is acknowledged on this side when the other side has it."""

import asyncio
import logging
from collections.abc import Callable
from itertools import count

from facerelay.link.inbox import Message
from facerelay.link.session import Session
from facerelay.mqtt import NotConnectedError

_log = logging.getLogger(__name__)
_FRUITLESS = 2
_ALONE = 3


class Pipe:
    """Carries what one session receives to another, in order.

    What the target did not confirm before its connection was lost is held, and sent again first when it
    is back; the source's window bounds how much that can be.

    A message that makes the target's broker close the connection would stop all others for ever. So after
    two connections on which nothing got through, messages go one at a time, and the one with which three
    more connections end is given up: acknowledged, counted and logged.

    Args:
        source: Where messages come from; no one else may iterate over it.
        target: Where they go. Not the source: the answers it waits for would stand behind a full window.
        qos: Of the second hop.
        retain: Which topics are retained at the target. The first broker clears the flag of what it
            passes on to a subscription that stands (MQTT 3.3.1.3), so only the topic can tell.

    Attributes:
        given_up: Messages that the target's broker would not take.
    """

    def __init__(
        self, source: Session, target: Session, *, qos: int, retain: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._source = source
        self._target = target
        self._qos = qos
        self._retain = retain
        self._held: dict[int, Message] = {}
        self._serials = count()
        self._fruitless = 0
        self._suspect = -1
        self._ended_alone = 0
        self.given_up = 0

    def __len__(self) -> int:
        """Count the messages taken from the source and not confirmed by the target."""
        return len(self._held)

    async def run(self) -> None:
        """Carry until the source is closed."""
        open_ = True
        while open_:
            await self._target.wait_connected()
            try:
                await self._carry_on()
                open_ = False
            except* NotConnectedError:
                self._fruitless += 1

    async def _carry_on(self) -> None:
        if self._fruitless >= _FRUITLESS:
            await self._one_by_one()
        async with asyncio.TaskGroup() as group:
            for serial in self._held:
                group.create_task(self._carry(serial))
            async for message in self._source:
                serial = next(self._serials)
                self._held[serial] = message
                if self._qos:
                    group.create_task(self._carry(serial))
                else:
                    await self._carry(serial)

    async def _one_by_one(self) -> None:
        for serial in list(self._held):
            try:
                await self._carry(serial)
            except NotConnectedError:
                self._blame(serial)
                raise

    async def _carry(self, serial: int) -> None:
        message = self._held[serial]
        await self._target.publish(
            message.topic, message.payload, qos=self._qos, retain=self._retain(message.topic)
        )
        self._fruitless = 0
        self._held.pop(serial).ack()

    def _blame(self, serial: int) -> None:
        self._ended_alone = self._ended_alone + 1 if serial == self._suspect else 1
        self._suspect = serial
        if self._ended_alone < _ALONE:
            return
        message = self._held.pop(serial)
        message.ack()
        self.given_up += 1
        _log.error(
            "given up: the broker ended %d connections at a message of %d bytes on %s; check its size limit",
            _FRUITLESS + _ALONE, len(message.payload), message.topic,
        )  # fmt: skip
