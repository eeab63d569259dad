"""A port that answers GET with a few texts: metrics, and whether a role lives and is ready.

Small on purpose: the images of the edge have no web server, and an answer from the role's own event loop is
the proof that it turns.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, NamedTuple

from facerelay.sections.base import is_loopback
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_MOST_HEAD: Final = 8_192
_MOST_AT_ONCE: Final = 32
_REQUEST_S: Final = 10.0
_AGAIN_S: Final = 30.0


class Answer(NamedTuple):
    """What is answered."""

    status: HTTPStatus
    body: bytes
    media: str = "text/plain; charset=utf-8"


Page = Callable[[Mapping[str, str]], Awaitable[Answer]]
"""Answers a request, of which it is given the headers, named in lower case."""


@asynccontextmanager
async def serving(host: str, port: int, pages: Mapping[str, Page], *, called: str) -> AsyncIterator[None]:
    """Serve for as long as the block runs; a port that is taken is logged, and tried again.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        pages: by their path.
        called: the setting to name where the port is taken.
    """
    server = _Server(pages, loopback=is_loopback(host))
    listening = asyncio.ensure_future(_listen(server, host, port, called))
    try:
        yield
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


async def _listen(server: _Server, host: str, port: int, called: str) -> None:
    seldom = Seldom(log, every_s=600.0)
    while True:
        try:
            listener = await asyncio.start_server(server.serve, host, port, limit=_MOST_HEAD)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else f"{error}"
            words = "no metrics: cannot listen on %s:%d: %s; the port of another role? Set %s (tried again)"
            seldom.say(logging.ERROR, "port", words, host, port, why, called)
            await asyncio.sleep(_AGAIN_S)
            continue
        at = listener.sockets[0].getsockname()
        log.info("metrics on http://%s:%d/metrics", f"[{at[0]}]" if ":" in at[0] else at[0], at[1])
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            listener.close()
            server.close()


class _Server:
    """One request a connection: the next one comes in fifteen seconds."""

    def __init__(self, pages: Mapping[str, Page], *, loopback: bool) -> None:
        self._pages = pages
        self._loopback = loopback
        self._open: set[asyncio.StreamWriter] = set()
        self._asking: dict[asyncio.StreamWriter, None] = {}

    def close(self) -> None:
        """End what is open."""
        for writer in list(self._open):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, if it comes in time; where there are too many, the slowest to ask goes."""
        if len(self._open) >= _MOST_AT_ONCE:
            slowest = next(iter(self._asking), writer)
            slowest.transport.abort()
            if slowest is writer:
                return
            self._asking.pop(slowest)
        self._open.add(writer)
        self._asking[writer] = None
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                self._asking.pop(writer, None)
                method, answer = await self._answer(head)
                writer.write(_bytes(answer, bodiless=method == "HEAD"))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)
            self._asking.pop(writer, None)
            writer.close()

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        first, _, rest = head.decode("latin-1").partition("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
            return "", _plain(HTTPStatus.BAD_REQUEST)
        method, path = words[0], words[1].partition("?")[0]
        lines = (line.partition(":") for line in rest.split("\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        if self._loopback and not is_loopback(_name(headers.get("host", ""))):
            return method, _plain(HTTPStatus.MISDIRECTED_REQUEST)  # a name that was made to lead here
        if method not in {"GET", "HEAD"}:
            return method, _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        page = self._pages.get(path)
        return method, await page(headers) if page else _plain(HTTPStatus.NOT_FOUND)


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status, f"{status.phrase}\n".encode())


def _name(host: str) -> str:
    """Return a Host header's name without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _bytes(answer: Answer, *, bodiless: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.media}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if bodiless else answer.body)
