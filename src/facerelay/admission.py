"""Who may be connected to a page: so many, and nobody is kept out by those who ask for nothing."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from typing import Final

MOST: Final = 200
"""Connections at once."""

MOST_EACH: Final = 64
"""From one address, beyond loopback."""

_V6_NETWORK: Final = 64


class Place:
    """One connection's place.

    Attributes:
        whose: the network that it counts for; None where nobody counts.
        since: when it began to wait, of the monotonic clock.
        waits: tells whether no request of it is being answered.
        abort: ends the connection.
    """

    def __init__(self, leave: Callable[[Place], None], whose: str | None) -> None:
        self._leave = leave
        self.whose = whose
        self.since = time.monotonic()
        self.waits: Callable[[], bool] = lambda: True
        self.abort: Callable[[], object] = lambda: None

    def leave(self) -> None:
        """Give the place back; once more is fine."""
        self._leave(self)


class Admission:
    """Gives places. Where none is left, whoever has waited longest without asking makes room.

    So requests that are sent by half, handshakes that never end and idle connections keep nobody out, for
    who asks at once is not among those who wait longest.

    Args:
        most: places in all.
        most_each: of one address, or one network of IPv6, but loopback. None: as many as there are.
        welcome: whether an address may be connected at all; None: any may.
    """

    def __init__(
        self,
        *,
        most: int = MOST,
        most_each: int | None = MOST_EACH,
        welcome: Callable[[str], bool] | None = None,
    ) -> None:
        self._most = most
        self._most_each = most_each
        self._welcome = welcome
        self._places: set[Place] = set()

    def enter(self, address: str) -> Place | None:
        """Return a place; None for who is not welcome, or where no place is left and nobody waits."""
        if self._welcome is not None and not self._welcome(address):
            return None
        whose = network(address) if self._most_each is not None else None
        if whose is not None:
            crowd = [place for place in self._places if place.whose == whose]
            if len(crowd) >= (self._most_each or 0) and not self._make_room(crowd):
                return None
        if len(self._places) >= self._most and not self._make_room(self._places):
            return None
        place = Place(self._places.discard, whose)
        self._places.add(place)
        return place

    def _make_room(self, places: Iterable[Place]) -> bool:
        longest = min((each for each in places if each.waits()), key=lambda each: each.since, default=None)
        if longest is None:
            return False
        longest.leave()
        longest.abort()
        return True


def network(address: str, *, wide: int = _V6_NETWORK) -> str | None:
    """Return what an address counts for: itself, or its /64 (or so wide) of IPv6; None for loopback."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            around = ipaddress.ip_network((found, wide), strict=False)
            return None if found.is_loopback else str(around)
        found = found.ipv4_mapped
    return None if found.is_loopback else str(found)
