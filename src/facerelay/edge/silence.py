"""No receipt at all though the link is up: say so, and make the connections anew, more and more seldom."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from facerelay.edge.flights import Flights

log = logging.getLogger(__name__)

FIRST_S: Final = 60.0
"""Silence that lasts so long, counted from the alarm, has the connections made anew."""

MOST_S: Final = 1800.0


class Silence:
    """Sounds the alarm when no receipts come, and asks for a reset where that lasts.

    A link can be up and carry nothing: a subscription that a broker forgot, a bridge that stands still
    (mosquitto#2176, #2256). A store that is down looks the same from here and is far more frequent, so a
    reset is rare: after one minute, then after two more, four, and so on up to thirty, until a receipt comes.

    Args:
        flights: know what is on its way, and since when nothing was answered.
        reset: makes the connections anew; None where there is nothing to make anew.
        clock: monotonic seconds.
    """

    def __init__(
        self, flights: Flights, *, reset: Callable[[], Awaitable[None]] | None, clock: Callable[[], float]
    ) -> None:
        self._flights = flights
        self._reset = reset
        self._clock = clock
        self._wait = FIRST_S
        self._since: float | None = None
        self._said = False

    async def look(self, *, link_up: bool) -> None:
        """Do what is due.

        Args:
            link_up: whether the link is known to be up; while it is not, silence is no wonder.
        """
        silent = self._flights.unheard
        if silent and not self._said:
            self._sound()
        elif self._said and not self._flights.probing:
            log.info("receipts come again")
        self._said = silent
        if not silent:
            self._wait = FIRST_S
        if not silent or not link_up:
            self._since = None
            return
        now = self._clock()
        self._since = now if self._since is None else self._since
        if self._reset is not None and now - self._since >= self._wait:
            self._since, self._wait = None, min(2 * self._wait, MOST_S)
            log.warning(
                "the link is up and still no receipt comes: the connection to the broker is made anew, and"
                " the forwarder is asked to do the same; where a broker's own bridge is the link, restart"
                " that broker"
            )
            await self._reset()

    def _sound(self) -> None:
        log.warning(
            "no receipt for %.0f s: is the store running, and do receipts/# come back down the link?"
            " Nothing is lost: %d faces wait, one is sent again now and then",
            self._flights.silence, len(self._flights),
        )  # fmt: skip
