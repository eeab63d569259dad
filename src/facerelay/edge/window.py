"""How much may be in flight: what keeps the line full, and no more.

BBR's model of a path (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14-5, 2016),
with faces in place of packets and receipts in place of acknowledgements: the most that was delivered in a
second, times the least round trip, fills the line; twice that leaves room for its unevenness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

_START: Final = 512_000
_GAIN: Final = 2.0
_ROUNDS: Final = 10
"""The best rate of so many least round trips counts."""

_LEAST_HORIZON_S: Final = 2.0
_TRIP_LASTS_S: Final = 60.0
"""A least round trip that is older is measured again, with a queue as short as can be."""

_SHORT_S: Final = 0.25
"""A queue so short makes nobody wait, and lets stores and disks work in batches."""

_FACES: Final = 3
_FORGET: Final = 64
"""The size of a large face is forgotten over about so many smaller ones."""


class _Mark(NamedTuple):
    """What was known when a face was sent, as in "Delivery Rate Estimation" (Cheng et al., 2017)."""

    at: float
    burst_at: float
    answered: int
    answered_at: float


class Window:
    """Bytes that may be in flight: some at first, and as many more as are answered.

    Up to `most`, until answers tell of a line on which so many would queue.

    Args:
        most: bytes, at most.
        clock: monotonic seconds.
    """

    def __init__(self, *, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._marks: dict[str, _Mark | None] = {}
        self._answered = 0
        self._answered_at = self._burst_at = clock()
        self._rates: deque[tuple[float, float]] = deque()
        self._trip = float("inf")
        self._trip_at = 0.0
        self._fresh_trip = float("inf")
        self._drained_at: float | None = None
        self._largest = 0

    def sent(self, face_id: str, size: int) -> None:
        """Take note of a face that is sent. One sent twice tells no round trip (Karn's rule)."""
        now = self._clock()
        if not self._marks:
            self._answered_at = self._burst_at = now
        again = face_id in self._marks
        mark = _Mark(now, self._burst_at, self._answered, self._answered_at)
        self._marks[face_id] = None if again else mark
        self._largest = max(size, self._largest - self._largest // _FORGET)

    def gone(self, face_id: str) -> None:
        """Forget a face that is in flight no more."""
        self._marks.pop(face_id, None)

    def answered(self, faces: Iterable[tuple[str, int]]) -> None:
        """Take note of answers that came together, as ids and bytes; the face sent last tells of the line."""
        now = self._clock()
        last: _Mark | None = None
        for face_id, size in faces:
            if face_id not in self._marks:
                continue  # answered already, by another store
            self._answered += size
            mark = self._marks.pop(face_id)
            if mark is not None and (last is None or mark.at >= last.at):
                last = mark
        self._answered_at = now
        if last is None or now <= last.at:
            return
        self._burst_at = max(self._burst_at, last.at)
        trip = now - last.at
        self._see_trip(trip, now)
        elapsed = max(now - last.answered_at, last.at - last.burst_at)
        self._see_rate((self._answered - last.answered) / elapsed, trip, now)

    @property
    def rate(self) -> float | None:
        """Bytes per second that the line delivers; None until it was seen to be the limit."""
        return self._rates[0][1] if self._rates else None

    @property
    def bytes(self) -> int:
        """Bytes that may be in flight now."""
        if self.rate is None:
            return min(self._most, _START + self._answered)
        draining = self._drained_at is not None
        span = self._trip if draining else max(_GAIN * self._trip, _SHORT_S)
        floor = self._largest * (1 if draining else _FACES)
        return min(self._most, max(round(self.rate * span), floor))

    def _see_trip(self, trip: float, now: float) -> None:
        self._fresh_trip = min(self._fresh_trip, trip)
        if trip <= self._trip or (self._drained_at is not None and now >= self._drained_at):
            self._trip, self._trip_at, self._drained_at = self._fresh_trip, now, None
            self._fresh_trip = float("inf")
        elif self._drained_at is None and now - self._trip_at > _TRIP_LASTS_S:
            self._drained_at, self._fresh_trip = now + 2 * trip, trip

    def _see_rate(self, rate: float, trip: float, now: float) -> None:
        """Keep a rate that the line has set; one that a lack of faces has set counts only if it is better."""
        queued = trip > _GAIN * self._trip + _SHORT_S
        if not queued and (self.rate is None or rate < self.rate):
            return
        horizon = max(_ROUNDS * self._trip, _LEAST_HORIZON_S)
        while self._rates and self._rates[0][0] < now - horizon:
            self._rates.popleft()
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((now, rate))
