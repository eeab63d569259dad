"""Ledgers: heard by every store, dealt with by one, remembered for a while by the others."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from facerelay.messages import Ledger, WireError

_MOST_BYTES: Final = 16_000_000
_SHARE: Final = 2
"""Of what is remembered one site takes no more than a half."""

_KEEP_S: Final = 60.0
"""An owner that is gone is missed after ten seconds; what it hears it writes within three."""

_EACH: Final = 300
"""Bytes that remembering a ledger takes, besides its own."""

_LEVELS: Final = 3
_STRANGE: Final = b'"strange":true'


class Take(Protocol):
    """Deals with a ledger."""

    def __call__(self, topic: str, payload: bytes, *, retained: bool = False) -> object:
        """Take it."""


class _Kept(NamedTuple):
    """A ledger that is another store's to deal with."""

    payload: bytes
    retained: bool
    at: float


class Heard:
    """Hands on the ledgers that are this store's own, and keeps the last of each other for a minute.

    When stores come or go, and an outbox is this store's from now on, `look` hands on what was kept of it:
    what its owner heard last and had no time to write. Beyond `max_bytes` the oldest goes; then the edge's
    next ledger has to do, ten seconds later.

    Args:
        owns: whether this store deals with something.
        take: deals with a ledger.
        strange: called where an edge waits for the hello of a store, for it may be ours.
        max_bytes: of what is kept.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        owns: Callable[[str], bool],
        take: Take,
        strange: Callable[[], None],
        max_bytes: int = _MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owns = owns
        self._take = take
        self._strange = strange
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._of_site: Counter[str] = Counter()
        self._bytes = 0

    def hear(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        """Take a ledger."""
        self._forget(topic)
        if self._owns(outbox_of(topic)):
            self._take(topic, payload, retained=retained)
            return
        if _STRANGE in payload:
            with suppress(WireError):
                link = Ledger.from_bytes(payload).link
                if link is not None and link.strange:
                    self._strange()
        self._keep(topic, _Kept(payload, retained, self._clock()))

    def look(self) -> None:
        """Hand on what is this store's by now, and forget what is old."""
        late = self._clock() - _KEEP_S
        for topic, kept in list(self._kept.items()):
            if kept.at < late:
                self._forget(topic)
            elif self._owns(outbox_of(topic)):
                self._forget(topic)
                self._take(topic, kept.payload, retained=kept.retained)

    def _keep(self, topic: str, kept: _Kept) -> None:
        site, size = _site(topic), _size(topic, kept)
        if self._of_site[site] + size > self._max_bytes // _SHARE:
            return
        self._kept[topic] = kept
        self._of_site[site] += size
        self._bytes += size
        late = self._clock() - _KEEP_S
        while self._bytes > self._max_bytes or self._kept[next(iter(self._kept))].at < late:
            self._forget(next(iter(self._kept)))

    def _forget(self, topic: str) -> None:
        kept = self._kept.pop(topic, None)
        if kept is not None:
            site, size = _site(topic), _size(topic, kept)
            self._bytes -= size
            self._of_site[site] -= size
            if not self._of_site[site]:
                del self._of_site[site]


def outbox_of(topic: str) -> str:
    """Return what all parts of an outbox's ledger have in common."""
    return "/".join(topic.split("/", _LEVELS)[:_LEVELS])


def _site(topic: str) -> str:
    return topic.split("/", 2)[1] if "/" in topic else ""


def _size(topic: str, kept: _Kept) -> int:
    return len(topic) + len(kept.payload) + _EACH
