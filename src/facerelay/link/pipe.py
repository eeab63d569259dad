"""From one broker to another: a message is acknowledged on this side when the other side has it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count

from facerelay.link.inbox import Message
from facerelay.link.session import Session
from facerelay.mqtt import NotConnectedError
from facerelay.seldom import Seldom
from facerelay.topics import shown

_log = logging.getLogger(__name__)
_FRUITLESS = 2
_ALONE = 3
_MAX_TOPIC = 512
_MAX_LEVELS = 100


class Pipe:
    """Carries what one session receives to another, in order.

    What the target did not confirm before its connection was lost is held, and sent again first when it
    is back; the source's window bounds how much that can be.

    A message that makes the target's broker close the connection would stop all others for ever. One with
    a topic of the kind that brokers refuse is given up as it comes: acknowledged, counted and logged. Any
    other is found out: after two connections on which nothing got through, messages go one at a time, and
    the one with which three more connections end is given up too. Such a connection is replaced at once,
    and only one that took a probe or another message just before counts: a broker which takes nothing is
    ill, and no message is to blame for it.

    Args:
        source: Where messages come from; no one else may iterate over it.
        target: Where they go. Not the source: the answers it waits for would stand behind a full window.
        qos: Of the second hop.
        retain: Which topics are retained at the target. The first broker clears the flag of what it
            passes on to a subscription that stands (MQTT 3.3.1.3), so only the topic can tell.
        probe: Publishes what the target's broker surely takes, and returns once it did.
        wanted: Which topics are carried: a hostile broker sends others than were asked for, too.

    Attributes:
        carried: Messages that the target's broker has.
        bytes: Of their payloads.
        given_up: Messages that the target's broker would not take, or nobody asked for.
    """

    def __init__(
        self,
        source: Session,
        target: Session,
        *,
        qos: int,
        retain: Callable[[str], bool] = lambda _: False,
        probe: Callable[[], Awaitable[None]] | None = None,
        wanted: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._source = source
        self._target = target
        self._qos = qos
        self._retain = retain
        self._probe = probe
        self._wanted = wanted
        self._held: dict[int, Message] = {}
        self._serials = count()
        self._fruitless = 0
        self._suspect = -1
        self._ended_alone = 0
        self._seldom = Seldom(_log)
        self.carried = self.bytes = self.given_up = 0

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
                if fault := self._fault(message.topic):
                    self._refuse(message, fault)
                    continue
                serial = next(self._serials)
                self._held[serial] = message
                if self._qos:
                    group.create_task(self._carry(serial))
                else:
                    await self._carry(serial)

    async def _one_by_one(self) -> None:
        if self._probe is not None:
            await self._probe()
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
        self.carried += 1
        self.bytes += len(message.payload)
        self._held.pop(serial).ack()

    def _fault(self, topic: str) -> str:
        """Return why a topic is not carried; empty where it is."""
        if not _deliverable(topic):
            return "brokers do not take the topic"
        return "" if self._wanted(topic) else "nobody asked for the topic"

    def _refuse(self, message: Message, fault: str) -> None:
        message.ack()
        self.given_up += 1
        self._seldom.say(logging.ERROR, fault, "given up: %s %s", fault, shown(message.topic))

    def _blame(self, serial: int) -> None:
        self._fruitless = _FRUITLESS  # the next connection begins with care too
        self._target.hurry()
        self._ended_alone = self._ended_alone + 1 if serial == self._suspect else 1
        self._suspect = serial
        if self._ended_alone < _ALONE:
            return
        message = self._held.pop(serial)
        message.ack()
        self.given_up += 1
        form = "given up: the broker ended %d connections at %d bytes on %s; check its size limit"
        self._seldom.say(logging.ERROR, "blamed", form, _ALONE, len(message.payload), shown(message.topic))


def _deliverable(topic: str) -> bool:
    """Whether any broker takes it: NATS and Mosquitto end the connection of who publishes on another."""
    return (
        len(topic) <= _MAX_TOPIC
        and topic.count("/") < _MAX_LEVELS
        and topic.isprintable()
        and " " not in topic
    )
