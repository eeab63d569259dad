"""A live stream's pictures, placed in time as they come; what comes too late is left out undecoded."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Final, cast

import av
import av.format

from facerelay.edge.cameras.lull import Lull
from facerelay.edge.cameras.opening import Container
from facerelay.edge.cameras.video import Packet, decode

LATE_S: Final = 1.0
"""A packet that comes so much later than the quickest is one of a queue."""

_LEAP_S: Final = 1.0
_CAUGHT_UP_S: Final = 0.3
_GAIN_S: Final = 0.25
_NO_GAIN_S: Final = 2.0
_SIGN_S: Final = 0.5
_KEY_S: Final = 10.0
_TRIES: Final = 3
_WINDOW_S: Final = 30.0


class Stream:
    """The pictures of an open live container, each with its time on our monotonic clock, in seconds.

    The time is the stream's own where it has one, put on our clock by the least delay seen of late, else that
    of arrival. Where pictures are decoded later than they come, packets are left out until that is over.

    Attributes:
        passed: frames so far, with those left out.
    """

    def __init__(self, container: Container, source: str, lull: Lull | None = None) -> None:
        self._container, self._source, self._lull = container, source, lull or Lull()
        # FFmpeg makes up a rate of 25 for formats without time stamps.
        self._stamped = not container.format.flags & cast("int", av.format.Flags.no_timestamps.value)
        self._clock, self._haste = StreamClock(), Haste()
        self.passed = 0

    def __iter__(self) -> Iterator[tuple[av.VideoFrame, float]]:
        left_out = self._lull.left_out
        for frame in decode(self._container, self._source, self._wants, self._lull):
            self.passed += 1 + self._lull.left_out - left_out
            left_out = self._lull.left_out
            yield frame, self._clock.at(frame.time if self._stamped else None, time.monotonic())

    def _wants(self, packet: Packet) -> bool:
        stamp = packet.dts if packet.dts is not None else packet.pts
        if not self._stamped or stamp is None or packet.time_base is None:
            return True
        now = time.monotonic()
        lag = self._clock.lag(float(stamp * packet.time_base), now)
        wanted = self._haste.wants(lag, now, key=packet.is_keyframe)
        if self._haste.vain:
            self._clock.forget()
            self._stamped = self._haste.vain < _TRIES
        self.passed += not wanted
        return wanted


class StreamClock:
    """Puts a stream's time stamps on our clock: the quickest packets of the last minute came at once."""

    def __init__(self) -> None:
        self._last = -math.inf
        self.forget()

    def forget(self) -> None:
        """Begin anew: the stream's clock is another one now."""
        self._least = self._before = math.inf
        self._until = -math.inf
        self._stamp = -math.inf

    def lag(self, stamp: float, now: float) -> float:
        """Return by how many seconds a packet comes later than the quickest."""
        if not math.isfinite(stamp):
            return 0.0
        if stamp < self._stamp - _LEAP_S:
            self.forget()
        if now >= self._until:
            self._before, self._least = self._least, math.inf
            self._until = now + _WINDOW_S
        self._stamp = stamp
        self._least = min(self._least, now - stamp)
        return now - stamp - min(self._least, self._before)

    def at(self, stamp: float | None, now: float) -> float:
        """Return a frame's time: never one to come, never before the last."""
        least = min(self._least, self._before)
        known = stamp is not None and math.isfinite(stamp) and math.isfinite(least)
        self._last = max(self._last, min(now, stamp + least) if known and stamp is not None else now)
        return self._last


class Haste:
    """Decides which packets are left out, so that a stream that fell behind catches up.

    Between two key frames none can be left out alone: once one is, nothing is wanted until the next key frame
    that comes in time. In between, a key frame now and then shows that the camera lives.

    Attributes:
        vain: how often in a row leaving out has not helped, where the last packet has shown it again: it is
            not we who are slow, or the time stamps are no measure; else 0.
    """

    def __init__(self) -> None:
        self.vain = self._vain = 0
        self._behind = self._broken = False
        self._mark = 0.0
        self._gain_by = self._key_by = self._next_sign = 0.0

    def wants(self, lag: float, now: float, *, key: bool) -> bool:
        """Return whether a packet that comes `lag` seconds late, at `now`, is to be decoded."""
        self.vain = 0
        if self._behind:
            self._judge(lag, now)
        elif lag > LATE_S:
            self._behind, self._mark, self._gain_by, self._next_sign = True, lag, now + _NO_GAIN_S, now
            self._broken, self._key_by = True, now + _KEY_S
        if self._behind:
            if not key or now < self._next_sign:
                return False
            self._next_sign = now + _SIGN_S
            return True
        if self._broken and (key or now > self._key_by):
            self._broken = False
        return not self._broken

    def _judge(self, lag: float, now: float) -> None:
        """See whether the stream has caught up, or never will."""
        if lag < self._mark - _GAIN_S:
            self._mark, self._gain_by = lag, now + _NO_GAIN_S
        if lag <= _CAUGHT_UP_S:
            self._behind, self._vain = False, 0
        elif now > self._gain_by:
            self._behind, self._vain = False, self._vain + 1
            self.vain = self._vain
