"""A TCP balancer before a cluster: `python -m bench.balancer LISTEN PORT…`, in turn."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from bench.faces import say


async def main(listen: int, *ports: int) -> None:
    turn = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        for _ in ports:
            turn = (turn + 1) % len(ports)
            try:
                theirs, ours = await asyncio.open_connection("127.0.0.1", ports[turn])
            except OSError:
                continue
            ways = [asyncio.create_task(_copy(reader, ours)), asyncio.create_task(_copy(theirs, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            ours.close()
            break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", listen) as server:
        say("ready")
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(262_144):
            writer.write(data)
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
