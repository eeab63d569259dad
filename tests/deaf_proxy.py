"""A line that is connected but stuck: pings are answered, and what is published goes nowhere."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

_PUBLISH: Final = range(3, 4)
_PUBLISHING: Final = range(3, 8)
"""PUBLISH, PUBACK, PUBREC, PUBREL and PUBCOMP."""


class DeafProxy:
    """Carries MQTT to a port of this machine, packet by packet.

    `stick` makes it swallow all that is published or acknowledged on the connections of that moment, or only
    what the broker publishes; on those that are made later everything goes through.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._wires: list[_Wire] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def made(self) -> int:
        """Connections so far."""
        return len(self._wires)

    def stick(self, *, mute: bool = False) -> None:
        """Swallow what is published on the connections that stand; only the broker's messages if `mute`."""
        for wire in self._wires:
            wire.swallowed = (range(0), _PUBLISH) if mute else (_PUBLISHING, _PUBLISHING)

    async def close(self) -> None:
        """End all connections, and listen no more."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire()
        self._wires.append(wire)
        task = asyncio.create_task(self._serve(wire, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            if head[0] >> 4 not in self.swallowed[way]:
                sink.write(packet)
                with suppress(ConnectionResetError):
                    await sink.drain()
