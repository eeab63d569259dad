"""The forwarder: faces, ledgers and the link state up, receipts and stores' hellos down, nothing else."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from facerelay import messages, topics
from facerelay.config import Broker
from facerelay.link.measures import source
from facerelay.link.pipe import Pipe
from facerelay.link.session import Session
from facerelay.metrics import Meters
from facerelay.mqtt import NotConnectedError, Will

_log = logging.getLogger(__name__)

# A NATS server loses a retained message on who subscribes at that very moment (5 of 300 forced cases), and a
# late will of ours may undo one: what is said again is true in the end.
_REPEAT_S = 10.0
_FAREWELL_S = 1.0
_RESET_EVERY_S = 60.0


async def forward(
    *,
    edge: Broker,
    cloud: Broker,
    site: str,
    faces: str,
    qos: int,
    delivery: str,
    window: int,
    max_message: int,
    meters: Meters | None = None,
) -> None:
    """Carry a site's messages between its broker and the cloud's, until cancelled.

    Each direction has a connection of its own on either side, so that a full window of faces cannot keep
    receipts' acknowledgements from being read, nor the other way round. All are made anew when the edge asks
    for it on `link/<site>/reset`, at most once a minute.

    Args:
        edge: The broker at the site.
        cloud: The broker in the cloud.
        site: The site's name.
        faces: Topic filter of its faces.
        qos: Quality of service of faces, on both hops.
        delivery: `broker` keeps sessions over a restart; the others begin anew, their promise (or none)
            lies in the outbox.
        window: Messages in each direction without the other broker's answer, at most.
        max_message: Bytes of one face, at most; larger messages are discarded and logged.
        meters: Are asked for figures.

    Raises:
        ValueError: both brokers are one, where messages would go round for ever.
    """
    if (edge.host, edge.port) == (cloud.host, cloud.port):
        raise ValueError(f"broker and cloud are both {edge.url}: the forwarder needs two")
    state = topics.link(site)
    session = partial(
        Session,
        client_id=f"{site}-forward",
        window=window,
        max_message=max(max_message, messages.MAX_MESSAGE_BYTES),
        clean=delivery != "broker",
    )
    sender = partial(
        session,
        client_id=f"{site}-forward-out",
        clean=True,
        will=Will(state, topics.DOWN, qos=1, retain=True),
    )
    up = [(faces, qos), (topics.site_ledgers(site), qos)]
    # Soft state. A cluster of NATS takes a minute for a subscription at QoS 1 while one of its nodes is away.
    down = [(topics.site_receipts(site), 0), (topics.HELLOS, 0)]
    at_edge, at_cloud = _Herald(state), _Herald(state)

    def cloud_changed(_connected: bool) -> None:  # noqa: FBT001 - the session's own signature
        at_edge.look()
        at_cloud.look()

    def is_up() -> bool:
        return edge_in.connected and cloud_in.connected and cloud_out.connected

    async with (
        session(edge, subscribe=up, on_state=lambda _: at_edge.look()) as edge_in,
        sender(edge, subscribe=[(topics.reset(site), 1)], on_state=lambda _: at_edge.look()) as edge_out,
        session(cloud, subscribe=down, on_state=cloud_changed) as cloud_in,
        sender(cloud, on_state=cloud_changed) as cloud_out,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_heed(edge_out, (edge_in, edge_out, cloud_in, cloud_out)))
        tell_edge = partial(at_edge.say, edge_out, is_up)
        tell_cloud = partial(at_cloud.say, cloud_out, lambda: True)
        up_pipe = Pipe(edge_in, cloud_out, qos=qos, retain=_retained, probe=tell_cloud)
        down_pipe = Pipe(
            cloud_in, edge_out, qos=1, retain=_retained, probe=tell_edge, wanted=partial(_is_down, site)
        )
        if meters is not None:
            sessions = {("edge", "in"): edge_in, ("edge", "out"): edge_out,
                        ("cloud", "in"): cloud_in, ("cloud", "out"): cloud_out}  # fmt: skip
            meters.add(source(sessions, {"up": up_pipe, "down": down_pipe}))
        group.create_task(up_pipe.run())
        group.create_task(down_pipe.run())
        group.create_task(at_edge.tell(edge_out, is_up))
        group.create_task(at_cloud.tell(cloud_out, lambda: True))


async def _heed(orders: Session, sessions: Sequence[Session]) -> None:
    """Drop all connections when the edge asks for it: they may be up and yet carry nothing."""
    clock = asyncio.get_running_loop().time
    due = clock()
    async for message in orders:
        message.ack()
        if message.retain or clock() < due:
            continue
        due = clock() + _RESET_EVERY_S
        _log.warning("the edge asks for it, since no receipts come: all connections are made anew")
        for session in sessions:
            session.reset("made anew, since no receipts come")


class _Herald:
    """Keeps a retained link state true on one broker."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._news = asyncio.Event()

    def look(self) -> None:
        """Something changed."""
        self._news.set()

    async def say(self, session: Session, is_up: Callable[[], bool]) -> None:
        """Publish what is true now."""
        now = topics.UP if is_up() else topics.DOWN
        await session.publish(self._topic, now, qos=1, retain=True)

    async def tell(self, session: Session, is_up: Callable[[], bool]) -> None:
        """Publish each change, and say it again now and then."""
        told: bytes | None = None
        try:
            while True:
                self._news.clear()
                now = topics.UP if is_up() else topics.DOWN
                told = told if session.connected else None
                if session.connected and told != now:
                    with suppress(NotConnectedError):
                        await session.publish(self._topic, now, qos=1, retain=True)
                        told = now
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REPEAT_S):
                        await self._news.wait()
                    continue
                told = None
        finally:
            # Leaving politely voids the will.
            with suppress(NotConnectedError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await session.publish(self._topic, topics.DOWN, qos=1, retain=True)


def _is_down(site: str, topic: str) -> bool:
    """Whether a topic goes down: the site's broker has others, that switch cameras off or open doors."""
    return topic.startswith((f"receipts/{site}/", "stores/"))


def _retained(topic: str) -> bool:
    return topic.startswith(("ledger/", "stores/"))
