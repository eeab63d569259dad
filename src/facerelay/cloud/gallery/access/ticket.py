"""The way to an identity provider and back: what one browser set out with, in a signed cookie of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Final

LIFE_S: Final = 600
_SEED_BYTES: Final = 32
_MAX_COOKIE: Final = 4096


@dataclass(frozen=True, slots=True)
class Ticket:
    """One way there and back.

    Attributes:
        state: comes back with the answer.
        nonce: comes back in the token.
        verifier: proves that who brings the code is who set out (PKCE).
        target: the page to go to in the end.
    """

    state: str
    nonce: str
    verifier: str
    target: str

    @property
    def challenge(self) -> str:
        """What is shown of the verifier on the way there."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())


class Tickets:
    """Makes and reads tickets. Nothing is kept here, so nobody can fill it; a restart voids them all."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_SEED_BYTES)

    def issue(self, target: str) -> tuple[Ticket, str]:
        """Return a new ticket, and its cookie."""
        seed = secrets.token_urlsafe(_SEED_BYTES)
        said = f"{seed}.{time.time() + LIFE_S:.0f}.{_text(target.encode())}"
        return self._ticket(seed, target), f"{said}.{self._derived('cookie', said)}"

    def read(self, cookie: str) -> Ticket | None:
        """Return the ticket of a cookie; None where it is not ours, or too old."""
        said, _, signature = cookie.rpartition(".")
        if len(cookie) > _MAX_COOKIE or not _same(signature, self._derived("cookie", said)):
            return None
        seed, until, target = said.split(".")
        if int(until) < time.time():
            return None
        return self._ticket(seed, base64.urlsafe_b64decode(target + "=" * (-len(target) % 4)).decode())

    def _ticket(self, seed: str, target: str) -> Ticket:
        state, nonce, verifier = (self._derived(part, seed) for part in ("state", "nonce", "verifier"))
        return Ticket(state=state, nonce=nonce, verifier=verifier, target=target)

    def _derived(self, what: str, said: str) -> str:
        return _text(hmac.digest(self._key, f"{what} {said}".encode(errors="replace"), "sha256"))


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), right.encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
