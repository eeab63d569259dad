"""Create-only PUTs to an S3 server, on the event loop: the one request that a store makes for each face.

A library that works in threads of its own waits for the interpreter's lock at each request, and wakes the
loop for each: that costs more CPU than the request. Only two plain answers are taken here, 200 and 412.
At any other the caller asks the library, which knows the rest: what may pass, what to say, when to retry.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import quote, urlsplit

from facerelay.cloud.signature import Signer

_MOST_BYTES: Final = 1_000_000
_BUFFER: Final = 16_384
_CONNECT_S: Final = 5.0
_REQUEST_S: Final = 20.0
_LATE_S: Final = 1.0
_REST_S: Final = 10.0
_LOOK_S: Final = 1.0
_CREATED, _EXISTS = 200, 412


class QuickError(Exception):
    """No plain answer.

    Attributes:
        late: so much time went by that the caller must begin anew, its own checks included.
    """

    def __init__(self, message: str, *, late: bool) -> None:
        super().__init__(message)
        self.late = late


class Quick:
    """Create-only PUTs over connections that are kept, one request at a time on each.

    Args:
        endpoint: `http://` or `https://`, host and port.
        path: of the bucket and of the prefix in it, with slashes between.
        signer: signs requests.
    """

    def __init__(self, *, endpoint: str, path: str, signer: Signer) -> None:
        parts = urlsplit(endpoint)
        self._address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.netloc
        self._path = f"/{quote(path.strip('/'), safe='/-_.~')}/"
        self._signer = signer
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rest_until = 0.0

    def takes(self, data: bytes) -> bool:
        """Whether to try here: not with a large object, nor soon after a failure."""
        return len(data) <= _MOST_BYTES and time.monotonic() >= self._rest_until

    async def put_new(
        self, key: str, data: bytes, sha256: str, *, content_type: str, metadata: Mapping[str, str] | None
    ) -> bool:
        """Create an object; False where one exists. Keys and metadata are those that facerelay makes.

        Raises:
            QuickError: the server gave another answer, or none.
        """
        begin = time.monotonic()
        headers = {"content-type": content_type, "if-none-match": "*"}
        for name, value in (metadata or {}).items():
            headers[f"x-amz-meta-{name}"] = value
        path = self._path + key.replace("=", "%3D")
        head = self._signer.put(self._host, path, len(data), sha256, headers)
        kept = self._idle.pop() if self._idle else None
        try:
            status = await self._ask(kept or await self._dial(), head + data)
        except (OSError, TimeoutError) as error:  # a kept one may end at any time, and that says nothing
            raise self._failure(begin, str(error) or "no answer in time", ill=kept is None) from error
        if status not in {_CREATED, _EXISTS}:
            raise self._failure(begin, f"the bucket answers with HTTP status {status}", ill=True)
        return status == _CREATED

    async def close(self) -> None:
        """Drop all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in [*self._idle, *self._busy]:
            connection.abort("closed")
        await asyncio.sleep(0)

    async def _dial(self) -> _Connection:
        async with asyncio.timeout(_CONNECT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._forget), *self._address, ssl=self._tls
            )
        return connection

    async def _ask(self, connection: _Connection, request: bytes) -> int:
        self._busy.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        try:
            status = await connection.ask(request)
        except asyncio.CancelledError:
            connection.abort("cancelled")
            raise
        finally:
            self._busy.discard(connection)
        if not connection.lost:
            self._idle.append(connection)
        return status

    def _forget(self, connection: _Connection) -> None:
        with suppress(ValueError):
            self._idle.remove(connection)

    def _look(self) -> None:
        """Give up what takes too long; one timer for all, since each would cost a part of its request."""
        self._timer = None
        before = time.monotonic() - _REQUEST_S
        for connection in [one for one in self._busy if one.began < before]:
            connection.abort("no answer in time")
        if self._busy:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _failure(self, begin: float, why: str, *, ill: bool) -> QuickError:
        now = time.monotonic()
        late = now - begin > _LATE_S
        if ill or late:
            self._rest_until = now + _REST_S
        return QuickError(why, late=late)


class _Connection(asyncio.BufferedProtocol):
    """One connection; what comes unasked, or is more than a small answer, ends it.

    Attributes:
        lost: whether nothing more can be asked.
        began: when it was last asked, on the monotonic clock.
    """

    def __init__(self, forget: Callable[[_Connection], None]) -> None:
        self._forget = forget
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._answer: asyncio.Future[int] | None = None
        self._why = "the bucket closed the connection"
        self.lost = False
        self.began = 0.0

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future has the answer's HTTP status, or an OSError."""
        self.began = time.monotonic()
        self._answer = asyncio.get_running_loop().create_future()
        if self.lost or self._transport is None:
            self._answer.set_exception(ConnectionError(self._why))
        else:
            self._transport.write(request)
        return self._answer

    def abort(self, why: str) -> None:
        """Drop it at once."""
        self._why, self.lost = why, True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - create_connection makes no other
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.lost = True
        self._forget(self)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(str(exc or self._why)))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's interface
        """Where the next bytes go."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take an answer, once its head and its small body are whole."""
        self._filled += nbytes
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if self._answer is None or self._answer.done() or (end < 0 and self._filled == _BUFFER):
            self.abort("the bucket's answer is not one")
        elif end >= 0:
            self._take(bytes(self._buffer[:end]).lower(), end + 4)

    def _take(self, head: bytes, body: int) -> None:
        whole = body + _length(head)
        if body <= whole < _BUFFER and self._filled < whole:
            return
        status = head[9:12]
        # Reading on is for answers of a known, small size; after any other the next one could not be found.
        if not head.startswith(b"http/1.1 ") or self._filled != whole or b"\r\nconnection: close" in head:
            self.abort("the bucket's answer cannot be read on")
        self._filled = 0
        if self._answer is not None:
            self._answer.set_result(int(status) if status.isdigit() else 0)


def _length(head: bytes) -> int:
    """Return a body's length as the head has it; -1 where it has none that is plain."""
    _, found, rest = head.partition(b"\r\ncontent-length:")
    value = rest.partition(b"\r\n")[0].strip()
    return int(value) if found and value.isdigit() and len(value) < 10 else -1  # noqa: PLR2004 - no answer of ours has 1 GB
