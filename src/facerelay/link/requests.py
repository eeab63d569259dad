"""What was asked of a queue and has not come yet: so much at a time as there is room for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

EXPIRES_S: Final = 20.0
HEARTBEAT_S: Final = 1.0
_SILENT_S: Final = 3.0
_NS: Final = 1_000_000_000


@dataclass(slots=True)
class _Asked:
    left: int
    heard: float


class Requests:
    """The requests that are open, by a number of ours.

    The server says every second that it still knows one. One of which nothing is heard for three is taken
    for lost, as it is when the node dies that had it; what comes of it all the same does no harm.

    Args:
        window: messages in hand and asked for, at most.
        max_bytes: of what comes for one request.
        clock: monotonic seconds.
    """

    def __init__(self, *, window: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._window = window
        self._max_bytes = max_bytes
        self._clock = clock
        self._open: dict[str, _Asked] = {}
        self._last = 0

    def __len__(self) -> int:
        """Count the messages that were asked for and have not come."""
        return sum(one.left for one in self._open.values())

    def ask(self, in_hand: int) -> tuple[str, bytes] | None:
        """Return a new request and its number, if it is time for one.

        Args:
            in_hand: messages that came and were not taken.
        """
        now = self._clock()
        for number in [each for each, one in self._open.items() if now - one.heard > _SILENT_S]:
            del self._open[number]
        room = self._window - in_hand - len(self)
        # Not for each message that was taken: half a window at a time, while the other half comes.
        if room < max(1, self._window // 2):
            return None
        self._last += 1
        number = f"{self._last}"
        self._open[number] = _Asked(room, now)
        wanted = {
            "batch": room,
            "expires": round(EXPIRES_S * _NS),
            "idle_heartbeat": round(HEARTBEAT_S * _NS),
            "max_bytes": self._max_bytes,
        }
        return number, json.dumps(wanted).encode()

    def came(self, number: str) -> None:
        """Take note of a message that came for a request."""
        one = self._open.get(number)
        if one is None:
            return
        one.heard = self._clock()
        one.left -= 1
        if one.left <= 0:
            del self._open[number]

    def alive(self, number: str) -> None:
        """Take note that the server still knows a request."""
        if (one := self._open.get(number)) is not None:
            one.heard = self._clock()

    def ended(self, number: str) -> None:
        """Take note that nothing more comes for a request."""
        self._open.pop(number, None)

    def forget(self) -> None:
        """Forget all of them: the connection is gone."""
        self._open.clear()
