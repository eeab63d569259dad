"""Cookies: bound to one host, over TLS, unseen by scripts; plain names on loopback alone."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

SESSION: Final = "facerelay"
TICKET: Final = "facerelay-login"


def read(request: Request, name: str) -> str:
    """Return a cookie; empty where there is none."""
    return request.cookies.get(_full(request, name), "")


def give(request: Request, response: Response, name: str, value: str, *, seconds: float) -> None:
    """Set a cookie."""
    response.set_cookie(
        _full(request, name), value, max_age=int(seconds), path="/", secure=_is_secure(request),
        httponly=True, samesite="lax",
    )  # fmt: skip


def take(request: Request, response: Response, name: str) -> None:
    """Delete a cookie."""
    give(request, response, name, "", seconds=0)


def _full(request: Request, name: str) -> str:
    return f"__Host-{name}" if _is_secure(request) else name


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"
