"""An S3 server that keeps nothing: it answers each PUT at once, so that what is before it can be measured.

An object that comes again with the same bytes is taken again: who would compare them could not read them.

`python -m bench.nulls3 PORT [DELAY_MS]`. Signatures are not checked, bodies are counted and thrown away.
Of each face it remembers the time and the hash that the client signed: `GET /?log` and `/?count` tell.
`GET /?requests` tells how many requests there were of each kind, such as `PUT ledger`, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Final

from bench.faces import say

_BUFFER: Final = 1_048_576
_BACKLOG: Final = 1024
_OK: Final = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n'
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_THERE: Final = b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n"
_GONE: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
_MISSING: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_EMPTY: Final = (
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    b"<Prefix></Prefix><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
    b"</ListBucketResult>"
)


class Objects:
    """What was put: by path, the time and the hash; without bytes."""

    def __init__(self) -> None:
        self.seen: dict[bytes, tuple[float, bytes]] = {}
        self.requests: Counter[str] = Counter()

    def answer(self, head: bytes) -> bytes:
        """Return the response to a request, by its head."""
        method, path = head.split(b" ", 2)[:2]
        self.requests[_kind(method, path)] += path[:2] != b"/?"
        if method == b"PUT":
            digest = _value(head, b"x-amz-content-sha256")
            known = self.seen.setdefault(path, (time.time(), digest))[1]
            if known != digest and b"\r\nif-none-match:" in head:
                return _THERE
            return _OK
        if method == b"DELETE":
            self.seen.pop(path, None)
            return _GONE
        return self._tell(path)

    def _tell(self, path: bytes) -> bytes:
        """Return what a GET asks for: of objects it has none, of itself it tells."""
        if path == b"/?requests":
            return _found(json.dumps(self.requests).encode())
        faces = (found for where, found in self.seen.items() if b"/faces/" in where)
        if path == b"/?count":
            return _found(b"%d" % sum(1 for _ in faces))
        if path == b"/?log":
            return _found(b"".join(b"%.6f %s\n" % found for found in faces))
        return _found(_EMPTY) if b"list-type=2" in path else _MISSING


def _kind(method: bytes, path: bytes) -> str:
    """Return a request's method, and the folder of the bucket that it is about."""
    if b"list-type=2" in path:
        method, _, path = b"LIST", *path.partition(b"prefix=")[1:]
        folder = path.partition(b"&")[0].replace(b"%2F", b"/").partition(b"/")[0]
    else:
        folder = path.split(b"/")[2] if path.count(b"/") > 1 else b""
    return f"{method.decode()} {folder.decode()}"


def _found(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _value(head: bytes, name: bytes) -> bytes:
    """Return a header's value; empty where there is none."""
    _, found, rest = head.partition(b"\r\n%s:" % name)
    return rest.partition(b"\r\n")[0].strip() if found else b""


class Connection(asyncio.BufferedProtocol):
    """One keep-alive connection, which must send a Content-Length with each body."""

    def __init__(self, objects: Objects, delay_s: float) -> None:
        self._objects = objects
        self._delay_s = delay_s
        self._buffer = bytearray(_BUFFER)
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's interface
        """Return where the next bytes go."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Answer whole requests."""
        self._filled += nbytes
        while (end := self._buffer.find(b"\r\n\r\n", 0, self._filled)) >= 0:
            line, _, headers = bytes(self._buffer[:end]).partition(b"\r\n")
            head = line + b"\r\n" + headers.lower()
            size = end + 4 + int(_value(head, b"content-length") or b"0")
            if size > self._filled:
                if b"\r\nexpect:" in head and self._filled == end + 4:  # as boto3 asks
                    self._transport.write(_CONTINUE)
                return
            self._filled -= size
            self._buffer[: self._filled] = self._buffer[size : size + self._filled]
            answer = self._objects.answer(head)
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def main(port: str, delay_ms: str = "0") -> None:
    """Serve until killed."""
    objects = Objects()
    delay_s = float(delay_ms) / 1000
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(objects, delay_s), "127.0.0.1", int(port), backlog=_BACKLOG
    )
    say("ready")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
