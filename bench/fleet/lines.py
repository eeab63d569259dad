"""Lines between sites and their brokers that break for a while, are slow, or are looked at.

`python -m bench.fleet.lines PLAN COUNTED`: a line on stdin begins the play, from which the times of the plan
count. At its end it writes what each line that is counted had carried, second by second.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.faces import say
from bench.fleet.plan import Line
from facerelay.commands import running

_CHUNK: Final = 65_536
_SLOW_CHUNK: Final = 1_460
_BUFFER: Final = 16_384
_LOOK_S: Final = 1.0


class Wire:
    """One line: connections through it, carried, cut or slowed.

    A `dead` line carries nothing and says nothing, and connections of that time stay dead; a `reset` one
    ends all of them, and new ones at once.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.up = self.down = 0

    async def run(self, go: asyncio.Event) -> None:
        """Listen, and break and mend the line at its times, until cancelled."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self._line.listen)
        async with server:
            await go.wait()
            if self._line.end:
                await asyncio.sleep(self._line.begin)
                self._set(cut=True)
                await asyncio.sleep(self._line.end - self._line.begin)
                self._set(cut=False)
            await asyncio.get_running_loop().create_future()

    def _set(self, *, cut: bool) -> None:
        self._cut = cut
        if self._line.kind == "reset" or not cut:
            for writer in list(self._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError, ExceptionGroup):
                if self._cut and self._line.kind == "reset":
                    writer.transport.abort()
                    return
                await self._carry(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far = await asyncio.open_connection("127.0.0.1", self._line.target)
        far.transport.set_write_buffer_limits(_BUFFER)
        self._writers.add(far)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pump(reader, far, up=True))
                ways.create_task(self._pump(far_reader, writer, up=False))
        finally:
            self._writers.discard(far)
            far.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        slow = self._line.kind == "slow"
        while data := await source.read(_SLOW_CHUNK if slow else _CHUNK):
            if slow:
                await asyncio.sleep(len(data) / self._line.bytes_s)
            if self._cut:
                continue
            self.up += len(data) * up
            self.down += len(data) * (not up)
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError("one end closed")


class Count:
    """What the counted lines have carried together, second by second."""

    def __init__(self, wires: Sequence[Wire]) -> None:
        self._wires = wires
        self._seen: list[tuple[float, int, int]] = []

    async def run(self) -> None:
        """Look each second, until cancelled."""
        while True:
            up, down = (sum(getattr(wire, way) for wire in self._wires) for way in ("up", "down"))
            self._seen.append((time.time(), up, down))
            await asyncio.sleep(_LOOK_S)

    def write(self, path: Path) -> None:
        """Write down the Unix times, and the bytes up and down until then."""
        path.write_text(json.dumps(self._seen), encoding="utf-8")


async def main(lines: Sequence[Line], counted: Path) -> None:
    """Carry until stdin ends."""
    wires = [Wire(line) for line in lines]
    count = Count([wire for wire, line in zip(wires, lines, strict=True) if line.kind == "counted"])
    go = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wire.run(go)) for wire in wires]
        tasks.append(group.create_task(count.run()))
        await asyncio.sleep(0)
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        go.set()
        await asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            task.cancel()
    count.write(counted)


if __name__ == "__main__":
    running.follow(os.getppid())
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    asyncio.run(main([Line(**found) for found in plan], Path(sys.argv[2])))
