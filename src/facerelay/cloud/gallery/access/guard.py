"""Lets requests through to the gallery, or asks who is there."""

from __future__ import annotations

import hmac
from collections import Counter
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from facerelay import web
from facerelay.cloud.gallery.access import cookies
from facerelay.cloud.gallery.access.log import AccessLog, AccessLogError
from facerelay.cloud.gallery.access.pages import PAGES, safe_target
from facerelay.cloud.gallery.access.visitor import LOCAL, Visitor, address_of, introduce
from facerelay.cloud.gallery.answers import error
from facerelay.sections import Gallery

OUTCOMES: Final = ("in", "failed", "held")
"""What becomes of a try to log in."""

_OPEN: Final = frozenset(
    {"/login", "/login/oidc", "/login/oidc/callback", "/page/base.css", "/page/login.css", "/page/mark.svg"}
)
"""What is answered before a login."""

READY: Final = "/api/ready"


class Access:
    """Who may see, as the settings say.

    Args:
        settings: of the gallery.
        probe: a secret of this process, by which its health check asks whether the page is ready.

    Attributes:
        log: is told of each view of a face.
        logins: how many tries to log in came to what.

    Raises:
        ConfigError: the token cannot be read, or is short.
        AccessLogError: the access log cannot be written.
    """

    def __init__(self, settings: Gallery, *, probe: str = "") -> None:
        self.log = AccessLog(settings.access_log)
        self.logins = Counter(dict.fromkeys(OUTCOMES, 0))
        self._probe = probe
        self._door = None
        self._routes: list[Route] = []
        if settings.has_login:
            from facerelay.cloud.gallery.access.door import Door  # noqa: PLC0415 - where there is a login
            from facerelay.cloud.gallery.access.login import Login  # noqa: PLC0415 - as above

            self._door = Door(settings, self.log, self.logins)
            self._routes = Login(settings, self._door).routes()

    @property
    def has_login(self) -> bool:
        """Whether one has to log in."""
        return self._door is not None

    def routes(self) -> list[Route]:
        """Return the routes of the login."""
        return self._routes

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return an app that is asked only by those who may see."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or self._door is None:
                await app(scope, receive, send)
                return
            request = Request(scope)
            found = self._refused(request) or self._looked_at(request)
            if isinstance(found, Visitor):
                introduce(scope, found)
            inside = isinstance(found, Visitor) or (found is None and scope["path"] in _OPEN)
            refusal = found if isinstance(found, Response) else _log_in(request)
            await (app if inside else refusal)(scope, receive, send)

        return guarded

    def close(self) -> None:
        """Close the access log."""
        self.log.close()

    def _refused(self, request: Request) -> Response | None:
        """Return the answer to a request that must not come as it does."""
        if request.url.scheme == "https" or web.asks_loopback(request):
            return None
        return error(400, "only over https: a proxy before this page has to send X-Forwarded-Proto: https")

    def _looked_at(self, request: Request) -> Visitor | Response | None:
        """Return who asks, or what is wrong with the proof of it; None where there is none."""
        assert self._door is not None  # noqa: S101 - by the caller
        address = address_of(request.scope)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._by_header(request, token.strip(), address)
        session = self._door.sessions.find(cookies.read(request, cookies.SESSION))
        if session is None:
            return None
        return Visitor(session.name, address, may_erase=session.may_erase, session=session)

    def _by_header(self, request: Request, token: str, address: str) -> Visitor | Response:
        assert self._door is not None  # noqa: S101 - by the caller
        probe = hmac.compare_digest(token.encode(errors="replace"), self._probe.encode())
        if probe and self._probe and request.scope["path"] == READY:
            return Visitor(LOCAL, address, may_erase=False)
        if seconds := self._door.held_s(address):
            return _with(
                error(429, f"too many tries have failed: again in {seconds} s"), {"Retry-After": str(seconds)}
            )
        if not self._door.has_token or not self._door.opens(token):
            try:
                self._door.failed(address, "this is not the token")
            except AccessLogError:
                return error(503, "the access log cannot be written: see the gallery's log")
            return _with(error(401, "this is not the token"), {"WWW-Authenticate": "Bearer"})
        self._door.proved(address)
        return Visitor("token", address, by_header=True)


def _log_in(request: Request) -> Response:
    """Return the answer to who has not logged in: a page leads to the login."""
    path = request.url.path
    if path not in PAGES or request.method not in {"GET", "HEAD"}:
        return _with(error(401, "log in first"), {"WWW-Authenticate": "Bearer"})
    query = request.url.query
    target = safe_target(f"{path}?{query}" if query else path)
    return RedirectResponse(f"/login?next={quote(target, safe='')}", 303, web.PLAIN)


def _with(response: Response, headers: dict[str, str]) -> Response:
    response.headers.update(headers)
    return response
