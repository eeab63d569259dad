"""A TCP balancer as a cluster's users have one before it: each connection goes to a node that answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from servers import free_port


class Balancer:
    """Passes on what comes, to the nodes in turn; one that does not answer is passed over."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = free_port()
        self._ports = list(ports)
        self._next = 0
        self.stop = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop

    async def serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        async with await asyncio.start_server(self._pass, "127.0.0.1", self.port):
            await self.stop.wait()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._ports:
            self._next = (self._next + 1) % len(self._ports)
            try:
                theirs, ours = await asyncio.open_connection("127.0.0.1", self._ports[self._next])
            except OSError:
                continue
            tasks = [asyncio.create_task(_copy(reader, ours)), asyncio.create_task(_copy(theirs, writer))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ours.close()
                writer.close()
            return
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@contextmanager
def balancer(ports: Sequence[int]) -> Iterator[int]:
    """Run one in a thread of its own; yields its port."""
    one = Balancer(ports)
    thread = threading.Thread(target=lambda: asyncio.run(one.serve()))
    thread.start()
    try:
        yield one.port
    finally:
        one.loop.call_soon_threadsafe(one.stop.set)
        thread.join()
