"""A line that is connected but stuck: pings are answered, and what is published goes nowhere."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from faults.proxy import Proxy

_PUBLISH: Final = range(3, 4)
_PUBLISHING: Final = range(3, 8)
"""PUBLISH, PUBACK, PUBREC, PUBREL and PUBCOMP."""


class DeafProxy(Proxy):
    """Carries MQTT to a port of this machine, packet by packet.

    `stick` makes it swallow all that is published or acknowledged on the connections of that moment, or only
    what the broker publishes; on those that are made later everything goes through.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._wires: list[_Wire] = []

    async def swallows(self, payload: bytes) -> None:
        """Wait until a packet that ends with this payload was swallowed."""
        while not any(packet.endswith(payload) for wire in self._wires for packet in wire.eaten):
            await asyncio.sleep(0.01)

    @property
    def made(self) -> int:
        """Connections so far."""
        return len(self._wires)

    def stick(self, *, mute: bool = False) -> None:
        """Swallow what is published on the connections that stand; only the broker's messages if `mute`."""
        for wire in self._wires:
            wire.swallowed = (range(0), _PUBLISH) if mute else (_PUBLISHING, _PUBLISHING)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire()
        self._wires.append(wire)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(wire.carry(reader, far, way=0))
                ways.create_task(wire.carry(far_reader, writer, way=1))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # one of the two ends is gone, and so is the other
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()


class _Wire:
    """One connection through the proxy; which kinds of packets it swallows on the way up, and down."""

    def __init__(self) -> None:
        self.swallowed = range(0), range(0)
        self.eaten: list[bytes] = []

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, way: int) -> None:
        while True:
            head = await source.readexactly(1)
            size, shift = 0, 0
            while True:
                head += await source.readexactly(1)
                size |= (head[-1] & 0x7F) << shift
                shift += 7
                if head[-1] < 0x80:
                    break
            packet = head + await source.readexactly(size)
            if head[0] >> 4 in self.swallowed[way]:
                self.eaten.append(packet)
                continue
            sink.write(packet)
            with suppress(ConnectionResetError):
                await sink.drain()
