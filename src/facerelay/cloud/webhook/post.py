"""POSTs to one address, on connections that are kept: what an answer says is its status, no more."""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

from facerelay.cloud.connection import Connection
from facerelay.sections import Webhook as Settings


class Reply(NamedTuple):
    """What became of a try: the HTTP status, or 0, and the seconds for which it wants to be left alone."""

    status: int
    words: str
    after_s: float = 0.0

    @property
    def taken(self) -> bool:
        """Whether it was a success."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own


class Post:
    """Posts, one request at a time on each connection; no redirect is followed.

    Args:
        settings: where, whom to trust, and for how long to wait.

    Raises:
        OSError: the certificate cannot be read.

    Attributes:
        host: its name, without the path, which may hold what nobody else should know.
    """

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.url or "")
        tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self._address = self.host, parts.port or (443 if tls else 80)
        self._tls = ssl.create_default_context(cafile=settings.ca) if tls else None
        self._begin = f"POST {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1\r\n"
        self._begin += f"host: {parts.netloc}\r\n"
        self._timeout_s = settings.timeout_s
        self._idle: list[Connection] = []

    async def send(self, body: bytes, headers: dict[str, str]) -> Reply:
        """Return the answer's status; 0 with the reason where none came in time."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"{self._begin}{lines}content-length: {len(body)}\r\n\r\n".encode() + body
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(request)
        except TimeoutError:
            return Reply(0, f"no answer in {self._timeout_s:g} s")
        except (OSError, ValueError) as error:
            return Reply(0, str(error) or type(error).__name__)

    async def _send(self, request: bytes) -> Reply:
        connection = self._idle.pop() if self._idle else await self._dial()
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.abort("given up")
            raise
        if not connection.lost:
            self._idle.append(connection)
        after = answer.header(b"retry-after")
        words = f"HTTP status {answer.status}" if answer.status else "its answer is not HTTP"
        seconds = float(after) if after.isdigit() and len(after) < 7 else 0.0  # noqa: PLR2004 - eleven days
        return Reply(answer.status, words, seconds)

    async def reach(self) -> None:
        """Connect, and post nothing.

        Raises:
            OSError: the address does not answer, or its certificate is not good.
        """
        async with asyncio.timeout(self._timeout_s):
            (await self._dial()).abort("only looked at")

    async def _dial(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._forget, whose=self.host), *self._address, ssl=self._tls
        )
        return connection

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        """Drop all connections."""
        for connection in list(self._idle):
            connection.abort("closed")
        await asyncio.sleep(0)
