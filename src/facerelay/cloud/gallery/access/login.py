"""The routes of a login: by token, by an identity provider, and out again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from facerelay import web
from facerelay.cloud.gallery.access import cookies, ticket
from facerelay.cloud.gallery.access.door import Door
from facerelay.cloud.gallery.access.identity import Identity, OidcError
from facerelay.cloud.gallery.access.log import AccessLogError
from facerelay.cloud.gallery.access.pages import LoginPage, safe_target
from facerelay.cloud.gallery.access.visitor import address_of, visitor_of
from facerelay.cloud.gallery.answers import answer, error
from facerelay.sections import Gallery
from facerelay.sections.base import read_secret
from facerelay.seldom import Seldom

if TYPE_CHECKING:
    from facerelay.cloud.gallery.access.oidc import Provider

log = logging.getLogger(__name__)
_seldom = Seldom(log)

BACK: Final = "/login/oidc/callback"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FORM: Final = 8_192
_CLEAR: Final = '"cache", "storage"'
_FAILED: Final = "The login did not succeed. Try again; the gallery's log says more."


class Login:
    """Answers the login's pages.

    Args:
        settings: of the gallery.
        door: tells who may come in.
    """

    def __init__(self, settings: Gallery, door: Door) -> None:
        self._door = door
        self._page = LoginPage(token=door.has_token, issuer=settings.oidc_issuer)
        self._provider = _provider(settings)
        self._tickets = ticket.Tickets()
        self._allowed: Collection[str] = settings.oidc_allowed
        self._may_erase = settings.oidc_may_erase

    def routes(self) -> list[Route]:
        """Return the routes."""
        routes = [
            Route("/login", _told(self.show)),
            Route("/login", _told(self.by_token), methods=["POST"]),
            Route("/logout", _told(self.out), methods=["POST"]),
        ]
        if self._provider is not None:
            routes += [Route("/login/oidc", _told(self.set_out)), Route(BACK, _told(self.come_back))]
        return routes

    async def show(self, request: Request) -> Response:
        """Answer the page."""
        return self._page.answer(safe_target(request.query_params.get("next", "/")))

    async def by_token(self, request: Request) -> Response:
        """Let in who has the token."""
        if not web.is_same_origin(request):  # else a stranger's page could log a browser in
            return self._page.answer("/", "Another page has sent this. Log in here.", status=403)
        form = await _form(request)
        if form is None:
            return self._page.answer("/", "This is not the form of this page.", status=400)
        target, address = safe_target(form.get("next", "/")), address_of(request.scope)
        if held := self._held(address, target):
            return held
        if not self._door.opens(form.get("token", "")):
            self._door.failed(address, "this is not the token")
            return self._page.answer(target, "This is not the token.", status=401)
        return self._enter(request, "token", target, may_erase=True)

    async def set_out(self, request: Request) -> Response:
        """Send a browser to the identity provider."""
        target = safe_target(request.query_params.get("next", "/"))
        if held := self._held(address_of(request.scope), target):
            return held
        assert self._provider is not None  # noqa: S101 - else there is no such route
        way, cookie = self._tickets.issue(target)
        try:
            url = await self._provider.way(way, back=_back(request))
        except OidcError as fault:
            _seldom.say(logging.WARNING, "provider", "nobody can log in by the provider: %s", fault)
            return self._page.answer(
                target, "The identity provider does not answer as it should.", status=503
            )
        response = RedirectResponse(url, 303, web.PLAIN)
        cookies.give(request, response, cookies.TICKET, cookie, seconds=ticket.LIFE_S)
        return response

    async def come_back(self, request: Request) -> Response:
        """Let in whom the identity provider names."""
        way = self._tickets.read(cookies.read(request, cookies.TICKET))
        if way is None:
            words = "This login was begun in another browser, or long ago. Begin again."
            return self._page.answer("/", words, status=400)
        address = address_of(request.scope)
        if held := self._held(address, way.target):
            return held
        self._door.begin(address)
        try:
            one = await self._identified(request, way)
        except OidcError as fault:
            self._door.failed(address, str(fault), begun=True)
            response = self._page.answer(way.target, _FAILED, status=401)
        else:
            may_erase = self._may_erase is None or one.is_among(self._may_erase)
            response = self._enter(request, one.email or one.subject, way.target, may_erase=may_erase)
        cookies.take(request, response, cookies.TICKET)
        return response

    async def out(self, request: Request) -> Response:
        """End a session, and have the browser forget what it has kept."""
        if request.headers.get("x-facerelay") != "1" or not web.is_same_origin(request):
            return error(403, "another page has asked for this")
        visitor = visitor_of(request)
        self._door.leave(cookies.read(request, cookies.SESSION), visitor.name, visitor.address)
        response = answer({"ok": True}, **{"Clear-Site-Data": _CLEAR})
        cookies.take(request, response, cookies.SESSION)
        return response

    async def _identified(self, request: Request, way: ticket.Ticket) -> Identity:
        """Return who has come back, if that one may see."""
        assert self._provider is not None  # noqa: S101 - else there is no such route
        one = await self._provider.identify(request.query_params, way, back=_back(request))
        if not one.is_among(self._allowed):
            raise OidcError(f"{one.email or one.subject!a} is not among gallery.oidc_allowed")
        return one

    def _enter(self, request: Request, name: str, target: str, *, may_erase: bool) -> Response:
        self._door.sessions.end(cookies.read(request, cookies.SESSION))
        cookie = self._door.enter(name, address_of(request.scope), may_erase=may_erase)
        response = RedirectResponse(target, 303, web.PLAIN)
        cookies.give(request, response, cookies.SESSION, cookie, seconds=self._door.sessions.seconds)
        return response

    def _held(self, address: str, target: str) -> Response | None:
        seconds = self._door.held_s(address)
        if not seconds:
            return None
        words = f"Too many logins have failed. Try again in {seconds} s."
        return self._page.answer(target, words, status=429, headers={"Retry-After": str(seconds)})


def _provider(settings: Gallery) -> Provider | None:
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    from facerelay.cloud.gallery.access.oidc import Provider  # noqa: PLC0415 - where there is one

    path = settings.oidc_client_secret_file
    return Provider(
        issuer=settings.oidc_issuer, client_id=settings.oidc_client_id, scope=settings.oidc_scope,
        secret=lambda: read_secret(None, path),
    )  # fmt: skip


def _told(work: Callable[[Request], Awaitable[Response]]) -> web.Endpoint:
    """Return an endpoint that lets nobody in of whom the access log cannot tell."""

    async def endpoint(request: Request) -> Response:
        try:
            return await work(request)
        except AccessLogError as fault:
            _seldom.say(logging.ERROR, "access-log", "nobody can log in: %s", fault)
            return error(503, "the access log cannot be written: see the gallery's log")

    return endpoint


def _back(request: Request) -> str:
    """Return the address to which the provider sends the browser back; the host was looked at before."""
    return f"{request.url.scheme}://{request.headers['host']}{BACK}"


async def _form(request: Request) -> dict[str, str] | None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return None
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MAX_FORM:
            return None
    try:
        return {name: values[0] for name, values in parse_qs(data.decode(), max_num_fields=8).items()}
    except ValueError:
        return None
