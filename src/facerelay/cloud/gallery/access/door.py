"""Where one logs in: what is proved by a token, counted, written down, and turned into a session."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
from collections import Counter

from facerelay.cloud.gallery.access.attempts import Attempts
from facerelay.cloud.gallery.access.log import AccessLog
from facerelay.cloud.gallery.access.sessions import Sessions
from facerelay.sections import Gallery
from facerelay.sections.base import read_secret
from facerelay.sections.gallery import LEAST_TOKEN
from facerelay.seldom import Seldom
from facerelay.settings import ConfigError

log = logging.getLogger(__name__)


class Door:
    """Tells who may come in.

    Args:
        settings: of the gallery.
        access_log: is told of each login.
        logins: counts how many tries came to what.

    Attributes:
        sessions: of those who are in.
        has_token: whether a token opens it.

    Raises:
        ConfigError: the token cannot be read, or is short.
    """

    def __init__(self, settings: Gallery, access_log: AccessLog, logins: Counter[str]) -> None:
        self.sessions = Sessions(hours=settings.session_hours)
        self._logins = logins
        self._log = access_log
        self._attempts = Attempts()
        self._seldom = Seldom(log)
        token = _token(settings)
        self.has_token = token is not None
        self._digest = _digest(token) if token is not None else None

    def held_s(self, address: str) -> int:
        """Return the seconds for which an address is not listened to; 0: it is."""
        wait = self._attempts.wait_s(address)
        if wait <= 0:
            return 0
        self._logins["held"] += 1
        self._seldom.say(logging.WARNING, "held", "a login from %s has to wait for %.0f s", address, wait)
        return math.ceil(wait)

    def opens(self, token: str) -> bool:
        """Whether a token is the right one; it takes as long for any other."""
        return hmac.compare_digest(_digest(token), self._digest or b"")

    def begin(self, address: str) -> None:
        """Take note of a try that takes its time: it counts as a failure, unless it ends in a session."""
        self._attempts.failed(address)

    def failed(self, address: str, why: str, *, begun: bool = False) -> None:
        """Take note of a failure; `why` is for the log, and holds nothing that was sent as a token."""
        if not begun:
            self._attempts.failed(address)
        self._logins["failed"] += 1
        log.warning("a login failed from %s: %s", address, why)
        self._log.note("login-failed", who="", address=address)

    def proved(self, address: str) -> None:
        """Forget the failures of an address that has shown to be right."""
        self._attempts.succeeded(address)

    def enter(self, name: str, address: str, *, may_erase: bool) -> str:
        """Begin a session, and return its cookie."""
        self._log.note("login", who=name, address=address)
        self.proved(address)
        self._logins["in"] += 1
        log.info("%s has logged in from %s", name, address)
        return self.sessions.start(name, may_erase=may_erase)

    def leave(self, cookie: str, name: str, address: str) -> None:
        """End a session."""
        self.sessions.end(cookie)
        self._log.note("logout", who=name, address=address)


def _token(settings: Gallery) -> str | None:
    try:
        token = read_secret(settings.token, settings.token_file)
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"gallery.token_file: {words}: {settings.token_file}") from None
    if token is not None and len(token.strip()) < LEAST_TOKEN:
        raise ConfigError(
            f"gallery.token_file: the token has fewer than {LEAST_TOKEN} characters:"
            " `openssl rand -hex 32` makes a good one"
        )
    return token.strip() if token is not None else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.strip().encode(errors="replace")).digest()
