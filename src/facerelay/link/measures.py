"""What the forwarder and the embedded broker measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from facerelay.link.monitor import told
from facerelay.link.pipe import Pipe
from facerelay.metrics import Reading, Source
from facerelay.metrics import catalogue as c
from facerelay.mqtt import Pull, Session


def source(sessions: Mapping[tuple[str, str], Session], pipes: Mapping[str, Pipe]) -> Source:
    """Return a source of the forwarder's figures.

    Args:
        sessions: by broker and connection.
        pipes: by direction.
    """

    async def read() -> Iterator[Reading]:
        return _forwarder(sessions, pipes)

    return read


def _forwarder(sessions: Mapping[tuple[str, str], Session], pipes: Mapping[str, Pipe]) -> Iterator[Reading]:
    for labels, session in sessions.items():
        yield Reading(c.CONNECTED, labels, int(session.connected))
        yield Reading(c.CONNECTION_RESETS, labels, session.resets)
    for direction, pipe in pipes.items():
        yield Reading(c.FORWARDED, (direction,), pipe.carried)
        yield Reading(c.FORWARDED_BYTES, (direction,), pipe.bytes)
        yield Reading(c.FORWARDING, (direction,), len(pipe))
        yield Reading(c.GIVEN_UP, (direction,), pipe.given_up)


def intake(pull: Pull) -> Source:
    """Return a source of how the stores' common queue does, as this store sees it."""

    async def read() -> Iterator[Reading]:
        readings = [Reading(c.INTAKE_CONNECTED, (), int(pull.connected))]
        if (pending := pull.pending) is not None:
            readings.append(Reading(c.INTAKE_PENDING, (), pending))
        return iter(readings)

    return read


def nats(port: Callable[[], int | None], refused: Mapping[str, int]) -> Source:
    """Return a source of the embedded broker's figures, as it tells them on loopback.

    Args:
        port: returns where, once that is known.
        refused: how often it refused what.
    """

    async def read() -> Iterator[Reading]:
        where = port()
        try:
            general = await told(where, "/varz") if where else {}
            kept = await told(where, "/jsz") if where else {}
        except (OSError, ValueError, TimeoutError):
            general = kept = {}
        return _broker(general, kept, refused)

    return read


def _broker(
    told: Mapping[str, Any], kept: Mapping[str, Any], refused: Mapping[str, int]
) -> Iterator[Reading]:
    yield Reading(c.BROKER_UP, (), int(bool(told)))
    for what, count in refused.items():
        yield Reading(c.BROKER_REFUSED, (what,), count)
    if not told:
        return
    yield Reading(c.BROKER_CLIENTS, (), told["connections"])
    yield Reading(c.BROKER_MESSAGES, (), told["in_msgs"])
    yield Reading(c.BROKER_BYTES, (), told["in_bytes"])
    yield Reading(c.BROKER_SLOW, (), told["slow_consumers"])
    yield Reading(c.BROKER_MEMORY, (), told["mem"])
    yield Reading(c.BROKER_STORED, (), kept.get("storage", 0))
