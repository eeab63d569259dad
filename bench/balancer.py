"""A TCP balancer as a cluster's users have one before it: `python -m bench.balancer LISTEN PORT…`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress


class Balancer:
    """Passes on what comes, to the nodes in turn; one that does not answer is passed over.

    Args:
        port: where it listens, on loopback.
        nodes: their ports.
    """

    def __init__(self, port: int, nodes: Sequence[int]) -> None:
        self.port = port
        self._nodes = list(nodes)
        self._next = 0

    async def start(self) -> asyncio.Server:
        """Listen."""
        return await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._nodes:
            self._next = (self._next + 1) % len(self._nodes)
            try:
                theirs, ours = await asyncio.open_connection("127.0.0.1", self._nodes[self._next])
            except OSError:
                continue
            ways = [asyncio.create_task(_copy(reader, ours)), asyncio.create_task(_copy(theirs, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                ours.close()
            break
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(262_144):
            writer.write(data)
            await writer.drain()


async def main(listen: int, *ports: int) -> None:
    """Balance until ended; says `ready` on a line of its own once it listens."""
    from bench.faces import say  # noqa: PLC0415 - it loads OpenCV

    async with await Balancer(listen, ports).start() as server:
        say("ready")
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
