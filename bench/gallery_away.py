"""A line with a delay, for the gallery's bench: `python -m bench.gallery_away PORT ENDPOINT SECONDS`.

What comes in is given on half of SECONDS later, each way, in its order; nothing is lost or held back.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from urllib.parse import urlsplit

_CHUNK = 65_536


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


async def _main(port: int, endpoint: str, delay: float) -> None:
    there = urlsplit(endpoint)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(there.hostname, there.port)
        await asyncio.gather(_carry(reader, far_writer, delay / 2), _carry(far_reader, writer, delay / 2))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
