"""Who somebody is, by the word of an identity provider."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


class OidcError(Exception):
    """A login that cannot be believed; the message is for the log."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is.

    Attributes:
        subject: the issuer's own name of this one.
        email: verified; None where there is none.
        groups: names.
    """

    subject: str
    email: str | None
    groups: frozenset[str]

    def is_among(self, listed: Collection[str]) -> bool:
        """Whether a list of `ann@example.org`, `subject:ID` and `group:NAME` has this one."""
        own = {f"subject:{self.subject}", *(f"group:{name}" for name in self.groups)}
        mail = _plain(self.email) if self.email else None
        return any(each in own or ("@" in each and _plain(each) == mail) for each in listed)


def _plain(email: str) -> str:
    """Return an address without regard to case: of ASCII alone, for other letters may become these."""
    return email.lower() if email.isascii() else email
