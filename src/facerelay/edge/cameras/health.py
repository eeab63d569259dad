"""How a live camera fares: how long it may be silent, whether it stands still, what the log says of it."""

from __future__ import annotations

import logging
import math
import re
import time
from typing import Final

import av

from facerelay.edge.cameras.opening import redact
from facerelay.edge.cameras.video import fingerprint
from facerelay.seldom import Seldom

STALL_S: Final = 5.0
"""After so long without a picture a source has failed, unless it has been slower before."""

FIRST_S: Final = 12.0
"""As `STALL_S`, while less than two pictures came: some cameras send a key frame only each ten seconds."""

_SLACK: Final = 3.0
_AT_ONCE_S: Final = 3.0
_LONGEST_S: Final = 60.0
_LATELY_S: Final = 120.0
_MOST_SILENCES: Final = 20
_LOOKS: Final = 8
_MOST_FROZEN_S: Final = 3600.0
_QUIET_S: Final = 60.0
_MOST_QUIET_S: Final = 3600.0
_MOST_REASONS: Final = 10

_NUMBER: Final = re.compile(r"[0-9.]+")

_log = logging.getLogger(__name__)


class Patience:
    """How long a source may be silent: 5 s, or three times what it was at least twice of late.

    A silence that was not waited for counts as well, if the source, opened again, gives a picture at once:
    it had been slow, not gone.
    """

    def __init__(self) -> None:
        self._silences: tuple[tuple[float, float], ...] = ()
        self._doubt, self._doubted_at = 0.0, -math.inf

    def note(self, silence: float, now: float) -> None:
        """Note a silence of so many seconds between two pictures."""
        if silence * _SLACK > STALL_S:
            recent = [each for each in self._silences if each[1] > now - _LATELY_S]
            self._silences = (*recent[-_MOST_SILENCES:], (silence, now))

    def doubt(self, silence: float, now: float) -> None:
        """Note a silence that was too long; 0 if it was a failure and no silence."""
        self._doubt, self._doubted_at = silence, now

    def opened(self, now: float) -> None:
        """Note the first picture of a newly opened source."""
        if now - self._doubted_at < _AT_ONCE_S:
            self.note(self._doubt, now)
        self._doubt = 0.0

    def seconds(self, pictures: int, now: float) -> float:
        """Return how long a silence may be after so many pictures."""
        least = STALL_S if pictures > 1 else FIRST_S
        recent = sorted(silence for silence, at in self._silences if at > now - _LATELY_S)
        return min(_LONGEST_S, max(least, _SLACK * recent[-2])) if len(recent) > 1 else least


class Freeze:
    """Tells when a camera gives the same picture for too long: bit for bit, which no sensor does.

    A source that does so even when it is opened again may be right: then it may twice as long, up to an hour.

    Args:
        after_s: how long it may; 0: for ever.
    """

    def __init__(self, after_s: float) -> None:
        self._after = self.limit = after_s
        self._mark: int | None = None
        self._since = self._opened = self._next = 0.0

    def open(self, now: float) -> None:
        """Begin with a newly opened stream, at `now`."""
        self._since, self._opened, self._next = math.inf, now, now

    def seconds(self, frame: av.VideoFrame, now: float) -> float:
        """Return how long the stream has been frozen, 0 if it is not; a frame now and then is looked at."""
        if not self._after or now < self._next:
            return 0.0
        self._next = now + min(1.0, self.limit / _LOOKS)
        mark = fingerprint(frame)
        if mark != self._mark or self._since == math.inf:
            if mark != self._mark and now - self._opened > self.limit:
                self.limit = self._after
            self._mark, self._since = mark, now
        frozen = now - self._since
        if frozen < self.limit:
            return 0.0
        self.limit = max(self._after, min(2 * self.limit, _MOST_FROZEN_S))
        return frozen


class Journal:
    """What the log says of a camera: that it is gone, why, and that it is back, not each attempt.

    The same is said again at growing intervals, also of a camera that comes and goes.
    """

    def __init__(self, source: str) -> None:
        self._source = redact(source)
        self._gone_at: float | None = None
        self._back_at = -math.inf
        self._reasons: set[str] = set()
        self._quiet, self._next = _QUIET_S, -math.inf
        self._said = self._known = False
        self._size = (0, 0)
        self._seldom = Seldom(_log)

    @property
    def gone(self) -> bool:
        """Whether the camera is taken to be gone."""
        return self._gone_at is not None

    def lost(self, reason: str) -> None:
        """An attempt to open or read the camera ended."""
        now = time.monotonic()
        if self._gone_at is None:
            self._gone_at, self._said = now, False
            if now - self._back_at > self._quiet:
                self._quiet, self._next = _QUIET_S, -math.inf
                self._reasons.clear()
        kind = _NUMBER.sub("", reason)
        if now < self._next and (kind in self._reasons or len(self._reasons) >= _MOST_REASONS):
            return
        if now >= self._next:
            self._next, self._quiet = now + self._quiet, min(2 * self._quiet, _MOST_QUIET_S)
        self._reasons.add(kind)
        gone = f", gone for {now - self._gone_at:.0f} s" if self._said else ""
        self._said = True
        _log.warning("camera %s: %s%s; trying again", self._source, reason, gone)

    def flows(self, what: str, size: tuple[int, int]) -> None:
        """A picture came, of a source that was opened as `what`."""
        now, gone_at = time.monotonic(), self._gone_at
        if self._known and gone_at is None and size != self._size:
            self._seldom.say(logging.INFO, "size", "camera %s: the picture is now %dx%d", self._source, *size)
        self._size = size
        if gone_at is None and self._known:
            return
        self._gone_at, self._back_at = None, now
        if gone_at is not None and self._said:
            _log.info("camera %s: back after %.0f s: %s", self._source, now - gone_at, what)
        elif not self._known:
            _log.info("camera %s: %s", self._source, what)
        self._known = True
