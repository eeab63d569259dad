"""A page on loopback: the guards that each page here needs, and the server behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer."""

PICTURE_CSP: Final = "default-src 'none'; sandbox"
"""The policy of a picture, should it be opened by itself."""

_MEDIA: Final = {
    "html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml",
    "png": "image/png", "webmanifest": "application/manifest+json",
}  # fmt: skip
_HOSTS: Final = ["127.0.0.1", "localhost", "[::1]"]
_PAGE_CSP: Final = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MAX_HEADER: Final = 16_384
_IDLE_S: Final = 45.0
"""Longer than any request takes to be answered."""

Endpoint = Callable[[Request], Awaitable[Response]]
"""Answers a request."""


def make_app(package: str, files: Mapping[str, tuple[str, str]], routes: Sequence[Route]) -> Starlette:
    """Return an app of a page's own files and its other routes; it answers only to loopback's names.

    Args:
        package: the package in whose folder `page` the files lie.
        files: name and media type of the file at each path.
        routes: the rest.
    """
    pages = [Route(path, _file(package, *file)) for path, file in files.items()]
    # A name that resolves to loopback lets any page in the browser read this one (DNS rebinding).
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)
    return Starlette(routes=[*pages, *routes], middleware=[hosts])


def page_files(package: str) -> dict[str, tuple[str, str]]:
    """Return the files of a package's folder `page` by path: `x.html` at `/x`, the rest at `/page/…`."""
    found = {}
    for file in resources.files(package).joinpath("page").iterdir():
        stem, _, ending = file.name.rpartition(".")
        if ending in _MEDIA:
            page = "" if stem == "index" else stem
            found[f"/{page}" if ending == "html" else f"/page/{file.name}"] = (file.name, _MEDIA[ending])
    return found


def is_foreign(request: Request) -> bool:
    """Whether another page asks, as browsers say: it could not read the answer, but cause work."""
    return request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}


def is_same_origin(request: Request) -> bool:
    """Whether a request that changes something comes from a page of ours, by what browsers say of it."""
    origin = request.headers.get("origin", "")
    host = request.headers.get("host", "")
    return not is_foreign(request) and origin in {f"http://{host}", f"https://{host}"}


def make_server(app: Starlette) -> Server:
    """Return a server of an app: `serve(sockets=[…])` serves until its `should_exit` is set."""
    return Server(
        uvicorn.Config(
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
    )


class Server(uvicorn.Server):
    """A server that leaves the process's signals to the role's runner, and has no answer wait."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set."""
        # What is accepted inherits it. asyncio sets it only where a socket names its protocol: without it the
        # second part of an answer waits 40 ms for a reader's delayed acknowledgement of the first.
        for each in sockets or ():
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().serve(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def cut_off(self) -> None:
        """Close all connections at once, so that no endless answer holds up the end."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Connection(H11Protocol):
    """A connection that is closed when no new request has begun on it for a while, or nobody reads.

    A server without a limit for this waits for ever on requests that were sent by half, until there are
    as many as it takes, and then answers nobody. An answer that goes on and on may do so, as long as
    something of it is taken.
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

    def resume_writing(self) -> None:
        """Note that something was taken."""
        self._ends_after = None
        super().resume_writing()

    def _look(self) -> None:
        flowing = self._answering() and not self.flow.write_paused
        if self.cycle is self._ends_after and not flowing:  # as at the last look, or still none
            self.transport.abort()
            return
        self._ends_after = self.cycle
        self._timer = self.loop.call_later(_IDLE_S, self._look)

    def _answering(self) -> bool:
        return bool(self.cycle and self.cycle.response_started and not self.cycle.response_complete)


def _file(package: str, name: str, media: str) -> Endpoint:
    body = resources.files(package).joinpath("page", name).read_bytes()

    async def endpoint(_: Request) -> Response:
        headers = ALWAYS | {"Content-Security-Policy": _PAGE_CSP, "Cache-Control": "no-cache"}
        return Response(body, media_type=media, headers=headers)

    return endpoint
