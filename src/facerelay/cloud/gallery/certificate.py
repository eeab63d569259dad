"""The gallery's certificate for TLS, taken up anew when it was renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_FOLLOW_S: Final = 30.0
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all sound."""

_seldom = Seldom(log)


class Certificate:
    """A page's certificate: TLS 1.2 and 1.3 with forward secrecy; one that is renewed is taken up.

    Args:
        cert: PEM file with the certificate and its chain.
        key: PEM file with its key.

    Attributes:
        context: for the server.

    Raises:
        OSError: they cannot be read, or do not belong together; it names them.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = cert, key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_ciphers(_CIPHERS)
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._state()
        self._load(self.context)

    async def follow(self) -> None:
        """Look for a renewed one until cancelled; one that cannot be read leaves the last one in force."""
        while True:
            await asyncio.sleep(_FOLLOW_S)
            try:
                self.look()
            except OSError as error:
                _seldom.say(logging.ERROR, "certificate", "the last certificate stays in force: %s", error)

    def look(self) -> bool:
        """Take up a renewed certificate; return whether there was one.

        Raises:
            OSError: it cannot be read.
        """
        now = self._state()
        if now == self._seen:
            return False
        self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))  # half of it must not be taken up
        self._load(self.context)
        self._seen = now
        log.info("the page has a renewed certificate")
        return True

    def _state(self) -> list[tuple[int, int, int]]:
        try:
            stats = [path.stat() for path in self._files]
        except OSError as error:
            raise OSError(f"gallery.cert and gallery.key: {error.strerror}: {error.filename}") from error
        return [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats]

    def _load(self, context: ssl.SSLContext) -> None:
        cert, key = self._files

        def ask() -> str:
            raise OSError(f"{key}: it has a password; the page needs a key without one")

        try:
            context.load_cert_chain(cert, key, password=ask)
        except ssl.SSLError as error:
            raise OSError(
                f"{cert} and {key}: no certificate with its key, in PEM ({error.reason})"
            ) from error
