"""The line between edge and cloud: a TCP proxy on loopback that stalls, resets, delays, and lets die."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from contextlib import suppress
from typing import Final, Literal

from faults.proxy import Proxy

_CHUNK: Final = 65_536
_QUEUE: Final = 16
_DELAY_S: Final = 0.3
_NO_LINGER: Final = struct.pack("ii", 1, 0)

State = Literal["up", "stall", "reset", "dead", "delay"]
Piece = tuple[float, bytes]


class LinkProxy(Proxy):
    """Carries bytes both ways to a port of this machine.

    `stall` carries nothing and says nothing, and goes on where it stood when healed. `dead` is the same,
    but connections of that time stay dead for ever, without a FIN, as behind a NAT that forgot them.
    `reset` ends all connections, and new ones at once. `delay` carries everything 0.3 s later.

    Attributes:
        bitten: connections and pieces of data that were held up, lost or ended, by state.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._state: State = "up"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._alive: set[_Wire] = set()
        self.bitten: Counter[State] = Counter()

    def set(self, state: State) -> None:
        """Break the line, or heal it with `up`."""
        if self._state == "dead":
            for wire in self._alive:
                wire.dead = True
        self._state = state
        (self._flowing.clear if state in {"stall", "dead"} else self._flowing.set)()
        if state == "reset":
            self.bitten["reset"] += sum(not wire.dead for wire in self._alive)
            for wire in list(self._alive):
                wire.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire(writer)
        self._alive.add(wire)
        try:
            if self._state == "reset":
                self.bitten["reset"] += 1
                return
            self._see()
            await self._flowing.wait()
            if wire.dead:
                await asyncio.get_running_loop().create_future()
            far_reader, wire.far = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as ways:
                for source, sink in ((reader, wire.far), (far_reader, writer)):
                    queue: asyncio.Queue[Piece] = asyncio.Queue(_QUEUE)
                    ways.create_task(self._read(source, queue))
                    ways.create_task(self._write(queue, sink, wire))
        except* OSError:
            pass  # one of the two ends is gone, and so is the other
        finally:
            wire.reset()
            self._alive.discard(wire)

    def _see(self) -> None:
        if not self._flowing.is_set():
            self.bitten[self._state] += 1

    async def _read(self, source: asyncio.StreamReader, queue: asyncio.Queue[Piece]) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            data = await source.read(_CHUNK)
            await queue.put((clock() + (_DELAY_S if self._state == "delay" else 0), data))
            if not data:
                return

    async def _write(self, queue: asyncio.Queue[Piece], sink: asyncio.StreamWriter, wire: _Wire) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await queue.get()
            if due > clock():
                self.bitten["delay"] += 1
                await asyncio.sleep(due - clock())
            self._see()
            await self._flowing.wait()
            if wire.dead:
                await asyncio.get_running_loop().create_future()
            if not data:
                raise ConnectionResetError("one end closed")
            sink.write(data)
            await sink.drain()


class _Wire:
    """One connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None
        self.dead = False

    def reset(self) -> None:
        """End both sides with a RST."""
        for writer in (self.near, self.far):
            if writer is not None and not writer.transport.is_closing():
                with suppress(OSError):
                    known = writer.get_extra_info("socket")
                    known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                writer.transport.abort()
