"""Names of machines and hosts, as people type them."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from typing import Final, cast

from facerelay.face import SLUG
from facerelay.settings import ConfigError
from facerelay.signing import Owner, Role

ROLES: Final = ("site", "store", "gallery", "broker")
_MOST: Final = 64
"""Characters of a common name, by X.520."""

_SLUG: Final = re.compile(SLUG, re.ASCII)
_LABEL: Final = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)

LOCAL: Final = ("localhost", "127.0.0.1", "::1")
"""Names under which the cloud's own roles reach its broker, whatever the network between does."""


class EnrolError(ConfigError):
    """An enrolment that cannot be; the message says what to do."""


def owner(role: Role, name: str) -> Owner:
    """Return whose certificate it will be.

    Raises:
        EnrolError: the name is no slug, or too long for a certificate.
    """
    if not _SLUG.fullmatch(name):
        near = as_slug(name)
        hint = f", such as {near!r}" if near else ""
        raise EnrolError(
            f"{name!r}: a {role}'s name is lower case letters, digits, - and _, and begins with a letter or"
            f" digit{hint}"
        )
    most = _MOST - len(role) - 1
    if len(name) > most:
        raise EnrolError(f"{name!r}: a certificate holds a {role}'s name of {most} characters at most")
    return Owner(role, name)


def parse(text: str) -> Owner:
    """Read `door`, `site.door`, `store.main`, `gallery.main` or `broker.faces`.

    Raises:
        EnrolError: it is none of these.
    """
    role, dot, name = text.rpartition(".")
    if dot and role not in ROLES:
        raise EnrolError(
            f"{text!r}: write a site as its name, others as store.NAME, gallery.NAME, broker.NAME"
        )
    return owner(cast("Role", role or "site"), name)


def common_name(who: Owner) -> str:
    """Return the name in the certificate: `<role>.<name>`."""
    return f"{who.role}.{who.name}"


def short(who: Owner) -> str:
    """Return what people type for it, and what its bundle is called."""
    return who.name if who.role == "site" else common_name(who)


def host(text: str) -> str:
    """Return the name or address of a host, as certificates hold it.

    Raises:
        EnrolError: it is neither; a URL, a port and an unspecified address are told apart.
    """
    bare = text.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if "://" in text or not _HOST.fullmatch(text) or text.rsplit(".", maxsplit=1)[-1].isdecimal():
            raise EnrolError(f"{text!r} is no host: {_near(text)}") from None
        return text.lower()
    if address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None):
        raise EnrolError(f"{text}: sites cannot reach this address: name the one under which they do")
    return str(address)


def _near(text: str) -> str:
    """Return how a host may have been meant."""
    with suppress(UnicodeError):
        near = text.rstrip(".").encode("idna").decode()
        if near not in ("", text) and _HOST.fullmatch(near):
            return f"write {near}"
    return "write its name or address alone, such as faces.example.org or 192.0.2.7; the port is --port"


def as_slug(text: str) -> str:
    """Return what of a text can be a slug; empty where nothing can."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")[: _MOST - len("gallery.")]


def is_address(name: str) -> bool:
    """Whether a host is given by its address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
