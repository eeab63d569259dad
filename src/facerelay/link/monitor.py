"""Ask our own child, a NATS server, for its figures."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

_ANSWER_S: Final = 3.0
_MOST_BYTES: Final = 1_000_000


async def told(port: int, path: str) -> dict[str, Any]:
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
