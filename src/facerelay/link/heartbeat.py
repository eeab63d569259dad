"""Whether the broker is still there, and whether it does its work."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable

if sys.platform == "linux":
    import fcntl
    import termios

_SILENT_BEATS = 2
_UNANSWERED = 64


class Heartbeat:
    """Tells a broker that is gone, or stuck, from one behind a slow line.

    It beats twice in a keep-alive, and each beat sends a ping. A broker that says nothing for one and a half
    times the keep-alive is gone. One that answers pings is stuck when it acknowledges nothing: the answer to
    a ping proves that all which was published before it was read, however slow the line; from then on it
    has `stuck_s` for one acknowledgement. While we don't read ourselves it is blamed for nothing.

    Args:
        keepalive: Seconds.
        stuck_s: Seconds.
        clock: Monotonic seconds.
    """

    def __init__(self, *, keepalive: float, stuck_s: float, clock: Callable[[], float]) -> None:
        self._keepalive = keepalive
        self._stuck_s = stuck_s
        self._clock = clock
        self._silent_beats = 0
        self._progress = 0
        self._pings: deque[int | None] = deque(maxlen=_UNANSWERED)
        self._read_at: float | None = None
        self.stuck = False

    @property
    def every_s(self) -> float:
        """Seconds between two beats."""
        return self._keepalive / 2

    def heard(self) -> None:
        """Something came, whatever it is."""
        self._silent_beats = 0

    def acknowledged(self) -> None:
        """A message of ours was acknowledged, or we could not know: patience begins anew."""
        self._progress += 1
        self._read_at = None

    def answered(self) -> None:
        """A ping was answered."""
        asked = self._pings.popleft() if self._pings else None
        if asked == self._progress and self._read_at is None:
            self._read_at = self._clock()

    def beat(self, *, reading: bool, owed: bool) -> str | None:
        """Take note that a ping is sent; returns instead why the broker is to be given up, if it is.

        Args:
            reading: whether we read what it says.
            owed: whether messages of ours wait for their acknowledgement.
        """
        if not reading:
            self.acknowledged()
        elif self._silent_beats >= _SILENT_BEATS:
            return f"the broker was silent for {1.5 * self._keepalive:g} s"
        elif self._read_at is not None and self._clock() - self._read_at >= self._stuck_s:
            self.stuck = True
            return f"the broker answers, but has acknowledged nothing for {self._stuck_s:g} s: it is stuck"
        self._silent_beats += reading
        self._pings.append(self._progress if owed else None)
        return None


class Outflow:
    """Tells whether what was written still goes out, though it takes long.

    A message that takes longer than a keep-alive keeps pings and their answers waiting behind it: as long as
    it goes out, the other side lives.
    """

    def __init__(self) -> None:
        self._written = self._taken = 0

    def wrote(self, size: int) -> None:
        """Take note of bytes handed to the transport."""
        self._written += size

    def moves(self, transport: asyncio.Transport | None) -> bool:
        """Whether some wait, and more were taken since this was last asked."""
        waiting = _unconfirmed(transport)
        before, self._taken = self._taken, self._written - waiting
        return waiting > 0 and self._taken > before


def _unconfirmed(transport: asyncio.Transport | None) -> int:
    """Return how many bytes the other side's TCP has not confirmed; 0 where that cannot be asked."""
    if transport is None or sys.platform != "linux":
        return 0
    left = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(left, sys.byteorder) + transport.get_write_buffer_size()
