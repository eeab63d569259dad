"""Create-only PUTs to an S3 server, on the event loop: the one request that a store makes for each face.

A library that works in threads of its own waits for the interpreter's lock at each request, and wakes the
loop for each: that costs more CPU than the request. Only two plain answers are taken here, 200 and 412.
At any other the caller asks the library, which knows the rest: what may pass, what to say, when to retry.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import quote, urlsplit

from facerelay.cloud.connection import Connection
from facerelay.cloud.signature import Signer

_MOST_BYTES: Final = 1_000_000
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
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
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

    async def _dial(self) -> Connection:
        async with asyncio.timeout(_CONNECT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._forget, whose="the bucket"), *self._address, ssl=self._tls
            )
        return connection

    async def _ask(self, connection: Connection, request: bytes) -> int:
        self._busy.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        try:
            status = (await connection.ask(request)).status
        except asyncio.CancelledError:
            connection.abort("cancelled")
            raise
        finally:
            self._busy.discard(connection)
        if not connection.lost:
            self._idle.append(connection)
        return status

    def _forget(self, connection: Connection) -> None:
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
