"""The gallery for tests: its parts over a bucket, or the whole role on a free port, asked over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from facerelay import config, sections
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.gallery import serve_gallery
from facerelay.cloud.gallery.parts import Parts, assembled
from facerelay.cloud.unseal import Unsealer
from facerelay.face import Frozen, Limits
from facerelay.mqtt import Connect

Answer = tuple[int, dict[str, str], bytes]


def folder(path: Path) -> Bucket:
    return open_bucket(config.Bucket(url=f"file://{path}"))


async def fill(bucket: Bucket, faces: Iterable[Frozen]) -> None:
    for one in faces:
        await bucket.put_new(one.key, one.data)


@asynccontextmanager
async def parts_of(
    bucket: Bucket, cache: Path, *, unsealer: Unsealer | None = None, **settings: Any,  # noqa: ANN401 - any setting
) -> AsyncIterator[Parts]:  # fmt: skip
    gallery = sections.Gallery(cache=cache / "cache", **settings)
    async with assembled(bucket, gallery, Limits(), unsealer=unsealer) as parts:
        yield parts


def ask(
    port: int,
    path: str,
    headers: Mapping[str, str],
    method: str = "GET",
    body: bytes | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=tls)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        if cookies := answer.headers.get_all("set-cookie"):
            found["set-cookie"] = "\n".join(cookies)
        return answer.status, found, answer.read()
    finally:
        connection.close()


class Served:
    """The role on a free port."""

    def __init__(self, port: int, task: asyncio.Task[None]) -> None:
        self.port = port
        self.task = task

    async def get(self, path: str, **headers: str) -> Answer:
        return await asyncio.to_thread(ask, self.port, path, headers)

    async def json(self, path: str, status: int = 200) -> Any:  # noqa: ANN401 - whatever JSON can hold
        got, headers, body = await self.get(path)
        assert got == status, body
        assert headers["cache-control"] == "no-store"
        return json.loads(body)

    async def erase(self, keys: Any, **headers: str) -> Answer:  # noqa: ANN401 - as above
        body = json.dumps({"keys": keys}).encode()
        chosen = {"X_Facerelay": "1", "Origin": f"http://127.0.0.1:{self.port}"} | headers
        return await asyncio.to_thread(ask, self.port, "/api/erase", chosen, "POST", body)

    @asynccontextmanager
    async def listening(self, query: str = "") -> AsyncIterator[Events]:
        """Open the stream of events."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET /api/live{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        events = Events(reader)
        assert (await events.next())[0] == "hello"
        try:
            yield events
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class Events:
    """Server-sent events, as they come."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def next(self) -> tuple[str, Any]:
        """Return name and data of the next event; comments are passed over."""
        name = ""
        async with asyncio.timeout(20):
            while True:
                line = (await self._reader.readline()).decode()
                assert line, "the stream has ended"
                if line.startswith("event: "):
                    name = line.removeprefix("event: ").strip()
                if line.startswith("data: "):
                    return name, json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def serving(
    url: str | config.Bucket,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    connect: Connect | None = None,
    **settings: Any,  # noqa: ANN401 - any setting
) -> AsyncIterator[Served]:
    """Run the role on a free port, which its log names."""
    caplog.set_level("INFO")
    caplog.clear()
    gallery = sections.Gallery(port=0, cache=cache / "cache", **settings)
    bucket = config.Bucket(url=url) if isinstance(url, str) else url
    task = asyncio.create_task(serve_gallery(config.Config(bucket=bucket, gallery=gallery), connect))
    while not (found := re.search(r"https?://127\.0\.0\.1:(\d+)/", caplog.text)):
        await asyncio.sleep(0.02)
        assert not task.done(), task.exception()
    try:
        yield Served(int(found[1]), task)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
