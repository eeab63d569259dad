"""The gallery role: one plain page of the latest faces, on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from facerelay.cloud import keys
from facerelay.cloud.bucket import Bucket, BucketError, MissingError, content_type, open_bucket
from facerelay.cloud.newest import Newest
from facerelay.config import Config

log = logging.getLogger(__name__)

_MAX_FACE: Final = 60_000_000
_MAX_HEADER: Final = 16_384
_IDLE_S: Final = 45.0
"""Longer than any request to a bucket."""

_HOSTS: Final = ["127.0.0.1", "localhost", "[::1]"]
_PAGE_CSP: Final = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FACE_CSP: Final = "default-src 'none'; sandbox"
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(bucket: Bucket) -> Starlette:
    """Return the page over a bucket. Requests that name another host than loopback are refused."""
    newest = Newest(bucket)

    async def latest(request: Request) -> Response:
        return await _latest(newest, request)

    async def face(request: Request) -> Response:
        return await _face(bucket, request.path_params["key"])

    routes = [Route(path, _file(*file)) for path, file in _FILES.items()]
    routes += [Route("/latest", latest), Route("/face/{key:path}", face)]
    # A name that resolves to loopback lets any page in the browser read this one (DNS rebinding).
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts])


async def serve_gallery(config: Config) -> None:
    """Serve the page until cancelled.

    Raises:
        BucketError: the bucket's settings cannot be right.
        OSError: the port is taken.
    """
    app = make_app(open_bucket(config.bucket))
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=_Connection,
        h11_max_incomplete_event_size=_MAX_HEADER,
        limit_concurrency=200,
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    server = _Server(settings)
    host = "127.0.0.1" if config.gallery.host == "localhost" else config.gallery.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, config.gallery.port), family=family) as listening:
        log.info("the gallery is at http://%s:%d/", config.gallery.host, listening.getsockname()[1])
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            await asyncio.wait([serving])


class _Connection(H11Protocol):
    """A connection that is closed when no new request has begun on it for a while.

    A server without a limit for this waits for ever on requests that were sent by half, until there are
    as many as it takes, and then answers nobody.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._ends_after: object = None
        self._timer = self.loop.call_later(_IDLE_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to look."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.cycle is self._ends_after:  # the same request as at the last look, or still none
            self.transport.abort()
            return
        self._ends_after = self.cycle
        self._timer = self.loop.call_later(_IDLE_S, self._look)


class _Server(uvicorn.Server):
    """A server that leaves the process's signals to the role's runner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _file(name: str, media: str) -> Endpoint:
    body = resources.files("facerelay.cloud").joinpath("page", name).read_bytes()

    async def endpoint(_: Request) -> Response:
        headers = _ALWAYS | {"Content-Security-Policy": _PAGE_CSP, "Cache-Control": "no-cache"}
        return Response(body, media_type=media, headers=headers)

    return endpoint


async def _latest(newest: Newest, request: Request) -> Response:
    headers = _ALWAYS | {"Cache-Control": "no-store"}
    try:
        faces = await newest.look()
    except BucketError as error:
        log.warning("the gallery cannot read the bucket: %s", error)
        return JSONResponse({"error": "The bucket cannot be read: see the log."}, 503, headers)
    body = json.dumps({"faces": [asdict(face) for face in faces]}).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers["ETag"] = tag
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


async def _face(bucket: Bucket, key: str) -> Response:
    if keys.parse(key) is None:
        return JSONResponse({"error": "not the key of a face"}, 404, _ALWAYS)
    try:
        data = await bucket.get(key, max_bytes=_MAX_FACE)
    except MissingError:
        return JSONResponse({"error": "there is no such face (any more)"}, 404, _ALWAYS)
    except BucketError as error:
        log.warning("the gallery cannot read a face: %s", error)
        return JSONResponse({"error": "the bucket cannot be read: see the log"}, 503, _ALWAYS)
    headers = _ALWAYS | {"Content-Security-Policy": _FACE_CSP, "Cache-Control": "private, max-age=300"}
    return Response(data, media_type=content_type(key.rpartition(".")[2]), headers=headers)
