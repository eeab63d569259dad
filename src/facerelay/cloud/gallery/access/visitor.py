"""Who looks, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from facerelay.cloud.gallery.access.sessions import Session

_WHERE: Final = "facerelay.visitor"
LOCAL: Final = "local"
"""Who looks where nobody has to log in."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who a request comes from.

    Attributes:
        name: as the access log has it.
        address: of the network; empty where it is not known.
        may_erase: whether this one may.
        session: by which a browser is known; None where there is none.
        by_header: whether the request carries the token itself, as no browser does unasked.
    """

    name: str
    address: str
    may_erase: bool = True
    session: Session | None = None
    by_header: bool = False


def visitor_of(request: Request) -> Visitor:
    """Return who a request comes from."""
    found = request.scope.get(_WHERE)
    return found if isinstance(found, Visitor) else Visitor(LOCAL, address_of(request.scope))


def introduce(scope: Scope, visitor: Visitor) -> None:
    """Say who a request comes from."""
    scope[_WHERE] = visitor


def address_of(scope: Scope) -> str:
    """Return the address that a request comes from: the browser's, where a trusted proxy says it."""
    client = scope.get("client")
    return str(client[0]) if client else ""
