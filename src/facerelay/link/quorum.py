"""Whether a node of a cluster stands with most of the others, which it needs to answer anybody."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from facerelay.link.monitor import told

_log = logging.getLogger(__name__)
_EVERY_S: Final = 1.0


class Quorum:
    """Asks our own server, on loopback, how it stands.

    Attributes:
        port: where it tells, once that is known; None of a server that stands alone.
    """

    def __init__(self) -> None:
        self.port: int | None = None

    async def look(self) -> str:
        """Return what is wrong; nothing where all is well, or where there are no others."""
        if self.port is None:
            return ""
        try:
            found = await told(self.port, "/healthz?js-meta-only=true")
        except (OSError, ValueError):  # a TimeoutError is an OSError
            return "the server does not say how it stands"
        if found.get("status") == "ok":
            return ""
        return f"waits for the other nodes, most of which have to be up: {found.get('error') or 'no word'}"

    async def watch(self) -> None:
        """Say when it stands with the others, and when not any more."""
        before: str | None = None
        while True:
            now = await self.look()
            if now != before:
                _log.log(
                    logging.WARNING if now else logging.INFO, "%s", now or "most nodes are up: it serves"
                )
            before = now
            await asyncio.sleep(_EVERY_S)
