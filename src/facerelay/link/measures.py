"""What the forwarder and the embedded broker measure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from facerelay.link.pipe import Pipe
from facerelay.metrics import Reading, Source
from facerelay.metrics import catalogue as c
from facerelay.mqtt import Session

_ANSWER_S: Final = 3.0
_MOST_BYTES: Final = 1_000_000


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


def nats(port: Callable[[], int | None], refused: Mapping[str, int]) -> Source:
    """Return a source of the embedded broker's figures, as it tells them on loopback.

    Args:
        port: returns where, once that is known.
        refused: how often it refused what.
    """

    async def read() -> Iterator[Reading]:
        where = port()
        try:
            told = await _told(where, "/varz") if where else {}
            kept = await _told(where, "/jsz") if where else {}
        except (OSError, ValueError, TimeoutError):
            told = kept = {}
        return _broker(told, kept, refused)

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


async def _told(port: int, path: str) -> dict[str, Any]:
    """Ask our own child on loopback for one of its pages, in JSON.

    Raises:
        OSError: it does not answer.
        ValueError: with something else.
    """
    async with asyncio.timeout(_ANSWER_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
            answer = b""
            while chunk := await reader.read(65_536):
                answer += chunk
                if len(answer) > _MOST_BYTES:
                    raise ValueError("too long")
        finally:
            writer.close()
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found
