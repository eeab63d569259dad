"""What is known of the way to the cloud: the connection to the broker, and the link beyond it."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Way:
    """The way that faces go.

    Attributes:
        cuts: how often the link was found to be down.
    """

    def __init__(self) -> None:
        self._connected = False
        self._link: bool | None = None
        self.cuts = 0

    def see_connection(self, *, up: bool) -> bool:
        """Take note of the session's state; returns whether that is news."""
        news = up != self._connected
        self._connected = up
        return news

    def see_link(self, *, up: bool | None) -> bool:
        """Take note of the state of the link, None if not known; returns whether that is news.

        It is repeated now and then, which is none.
        """
        if up == self._link:
            return False
        self.cuts += bool(self._link and not up)
        log.info("the link to the cloud is %s", {True: "up", False: "down", None: "of unknown state"}[up])
        self._link = up
        return True

    @property
    def link(self) -> bool | None:
        """Whether the way to the cloud is up; None where that is not known."""
        return self._link if self._connected else None

    @property
    def open(self) -> bool:
        """Whether first sends may go: not into a link that is known to be down."""
        return self._connected and self._link is not False
