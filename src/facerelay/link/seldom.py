"""For log lines that whoever sends messages can cause: said seldom, each with a count."""

import time


class Seldom:
    """True at most once in so many seconds.

    Args:
        every_s: Seconds between two lines.
    """

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._next = 0.0

    def __call__(self) -> bool:
        """Whether to say it now."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every_s
        return True
