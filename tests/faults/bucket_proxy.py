"""The way to the bucket: an HTTP proxy on loopback that answers 500, 503, slowly, or not at all.

500 and 503 are said to writers alone, for who can read nothing does not come to write. At 500 and at silence
every second request is carried out all the same: a store must not believe that what failed did not happen,
nor that it did.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Final, Literal

from faults.proxy import Proxy

_CHUNK: Final = 65_536
_SLOW_S: Final = 1.5
_END: Final = b"\r\n\r\n"
_FORM: Final = "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {size}\r\n\r\n"

State = Literal["up", "500", "503", "slow", "silent"]
_SAID: Final = {
    "500": ("500 Internal Server Error", b"<Error><Code>InternalError</Code></Error>"),
    "503": ("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>"),
}


class BucketProxy(Proxy):
    """Passes requests on to a port of this machine, one after another on each connection.

    Attributes:
        bitten: requests that were delayed, or falsely answered, by state.
        methods: of all requests that came.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._state: State = "up"
        self._healed = asyncio.Event()
        self._turn = False
        self.bitten: Counter[State] = Counter()
        self.methods: Counter[bytes] = Counter()

    def set(self, state: State) -> None:
        """Break the bucket, or heal it with `up`."""
        self._state = state
        self._healed.set()
        self._healed = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        answers: asyncio.Task[None] | None = None
        try:
            while request := await _request(reader):
                self.methods[request.partition(b" ")[0]] += 1
                if self._state == "slow":
                    self.bitten["slow"] += 1
                    await asyncio.sleep(_SLOW_S)
                elif self._state == "silent" or (self._state != "up" and request.startswith(b"PUT")):
                    if not await self._break(request, writer):
                        return
                    continue
                if far is None:
                    far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
                    answers = asyncio.create_task(_copy(far_reader, writer))
                far.write(request)
                await far.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two ends is gone, and so is the other
        finally:
            if answers is not None:
                answers.cancel()
            for one in (far, writer):
                if one is not None:
                    one.transport.abort()

    async def _break(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer falsely; returns whether the connection goes on."""
        state, healed = self._state, self._healed
        self.bitten[state] += 1
        self._turn = not self._turn
        if self._turn and state != "503":
            await self._carry_out(request)
        if state == "silent":
            await healed.wait()
            return False
        status, body = _SAID[state]
        writer.write(_FORM.format(status=status, size=len(body)).encode() + body)
        await writer.drain()
        return True

    async def _carry_out(self, request: bytes) -> None:
        """Have it done, and keep the answer from who asked."""
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                line, _, rest = request.partition(b"\r\n")
                writer.write(line + b"\r\nConnection: close\r\n" + rest)
                while await reader.read(_CHUNK):
                    pass
            finally:
                writer.transport.abort()


async def _request(reader: asyncio.StreamReader) -> bytes:
    """Return one request with its body; nothing where the connection ended between two."""
    try:
        head = await reader.readuntil(_END)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""
    sizes = [
        int(value)
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
        if name.lower() == b"content-length"
    ]
    return head + (await reader.readexactly(sizes[0]) if sizes else b"")


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    sink.transport.abort()
