"""A page: its own files, and the guards that each page here needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
_PAGE_CSP: Final = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PLAIN_CSP: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PLAIN: Final = ALWAYS | {
    "Content-Security-Policy": _PLAIN_CSP,
    "Cache-Control": "no-store",
}
"""Headers of answers that say nothing else: errors, above all."""

_TLS_ONLY: Final = "max-age=31536000"

Endpoint = Callable[[Request], Awaitable[Response]]
"""Answers a request."""


def make_app(
    package: str,
    files: Mapping[str, tuple[str, str]],
    routes: Sequence[Route],
    *,
    names: Sequence[str] = (),
    guards: Sequence[Callable[[ASGIApp], ASGIApp]] = (),
) -> Starlette:
    """Return an app of a page's own files and its other routes; it answers only to its names.

    Args:
        package: the package in whose folder `page` the files lie.
        files: name and media type of the file at each path.
        routes: the rest.
        names: hosts that it answers to, beside loopback's.
        guards: what stands before it, the outermost first.
    """
    pages = [Route(path, _file(package, *file)) for path, file in files.items()]
    # A name that resolves to loopback lets any page in the browser read this one (DNS rebinding).
    allowed = [*_HOSTS, *(f"[{name}]" if ":" in name else name for name in names)]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    return Starlette(routes=[*pages, *routes], middleware=[hosts, *map(Middleware, guards)])


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
    schemes = {"https"} if request.url.scheme == "https" else {"http", "https"}
    return not is_foreign(request) and origin in {f"{scheme}://{host}" for scheme in schemes}


def asks_loopback(request: Request) -> bool:
    """Whether a request names loopback as its host, which is another machine for each who asks."""
    host = request.headers.get("host", "").lower()
    return host in _HOSTS or host.rpartition(":")[0] in _HOSTS


def hardened(app: ASGIApp) -> ASGIApp:
    """Return an app no answer of which lacks a policy, be it a 404 or a fault of ours."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in PLAIN.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https" and not asks_loopback(Request(scope)):
                    headers.setdefault("Strict-Transport-Security", _TLS_ONLY)
            await send(message)

        await app(scope, receive, sending)

    return answering


def _file(package: str, name: str, media: str) -> Endpoint:
    body = resources.files(package).joinpath("page", name).read_bytes()

    async def endpoint(_: Request) -> Response:
        headers = ALWAYS | {"Content-Security-Policy": _PAGE_CSP, "Cache-Control": "no-cache"}
        return Response(body, media_type=media, headers=headers)

    return endpoint
