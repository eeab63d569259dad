"""One HTTP/1.1 connection on the event loop, for small answers of which the head alone is wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

_BUFFER: Final = 16_384
_NO_CONTENT: Final = 204


class Answer(NamedTuple):
    """What came back: the HTTP status (0 where there is none), and the head in lower case."""

    status: int
    head: bytes

    def header(self, name: bytes) -> bytes:
        """Return a header's value; empty where there is none."""
        _, found, rest = self.head.partition(b"\r\n" + name + b":")
        return rest.partition(b"\r\n")[0].strip() if found else b""


class Connection(asyncio.BufferedProtocol):
    """One connection; what comes unasked, or is more than a small answer, ends it.

    Args:
        forget: is told when it is lost.
        whose: the other side, for messages.

    Attributes:
        lost: whether nothing more can be asked.
        began: when it was last asked, on the monotonic clock.
    """

    def __init__(self, forget: Callable[[Connection], None], *, whose: str) -> None:
        self._forget = forget
        self._whose = whose
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._answer: asyncio.Future[Answer] | None = None
        self._why = f"{whose} closed the connection"
        self.lost = False
        self.began = 0.0

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future has the answer, or an OSError."""
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
            self.abort(f"{self._whose}: its answer is not one")
        elif end >= 0:
            self._take(bytes(self._buffer[:end]).lower(), end + 4)

    def _take(self, head: bytes, body: int) -> None:
        answer = Answer(int(head[9:12]) if head[9:12].isdigit() else 0, head)
        whole = body + _length(answer)
        if body <= whole < _BUFFER and self._filled < whole:
            return
        # Reading on is for answers of a known, small size; after any other the next one could not be found.
        if not head.startswith(b"http/1.1 ") or self._filled != whole or b"\r\nconnection: close" in head:
            self.abort(f"{self._whose}: its answer cannot be read on")
        self._filled = 0
        if self._answer is not None:
            self._answer.set_result(answer)


def _length(answer: Answer) -> int:
    """Return a body's length as the head has it; -1 where it has none that is plain."""
    value = b"0" if answer.status == _NO_CONTENT else answer.header(b"content-length")
    return int(value) if value.isdigit() and len(value) < 10 else -1  # noqa: PLR2004 - no answer of ours has 1 GB
