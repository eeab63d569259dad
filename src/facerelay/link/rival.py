"""Two programs with one client id take the connection from each other, and MQTT 3.1.1 says nothing of it."""

from __future__ import annotations

from typing import Final

_SHORT_S: Final = 5.0
_ENOUGH: Final = 3


class Rival:
    """Tells from how connections end that somebody else connects with our client id.

    The broker ends the older one of two connections with one id, by a plain close (MQTT 3.1.1, 3.1.4-2).
    Two programs that both come back at once would go on so for ever, each a fraction of a second at a time.
    """

    def __init__(self) -> None:
        self._row = 0

    def ended(self, *, by_broker: bool, held_s: float, delay: float) -> bool:
        """Take in the end of a connection that stood; returns whether a rival is the likely cause.

        Args:
            by_broker: it was closed in order, from the other side.
            held_s: seconds for which it stood.
            delay: seconds, at most, that we waited before it; a rival waits as long before it takes ours.
        """
        self._row = self._row + 1 if by_broker and held_s < max(_SHORT_S, 2 * delay) else 0
        return self._row >= _ENOUGH
