"""A server of a test's own making, for what no real one would do; nothing of it outlives its block."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


@asynccontextmanager
async def fake_server(handle: Handle, *, sock: socket.socket | None = None) -> AsyncIterator[int]:
    """Give each connection to a function, on loopback; yields the port.

    A connection is closed when the function returns, and cut where the block ends before.
    """
    handling: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError):
                await handle(reader, writer)
            writer.close()
        except BaseException:
            writer.transport.abort()
            raise

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        handling.add(task)
        task.add_done_callback(handling.discard)

    where = {"sock": sock} if sock else {"host": "127.0.0.1", "port": 0}
    async with await asyncio.start_server(accept, **where) as server:
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in handling:
                task.cancel()
            await asyncio.gather(*handling, return_exceptions=True)
