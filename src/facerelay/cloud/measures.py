"""What a store measures: what became of messages, how the bucket does, and the books that it hears."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay import alarms
from facerelay.cloud.counters import Counters
from facerelay.messages import Account, Ledger, LinkHealth
from facerelay.metrics import Metric, Reading, books
from facerelay.metrics import catalogue as c
from facerelay.metrics.lately import Lately
from facerelay.mqtt import Session

_MOST_OUTBOXES: Final = 2_000
_MOST_CAMERAS: Final = 10_000
_SHARE: Final = 2
"""Of that room one site takes no more than a half."""

_OURS: Final = frozenset({
    "bad-seal", "bucket", "conflict", "exif-too-large", "fault", "ledger", "malformed", "no-pixels",
    "not-a-picture", "pickle", "too-large", "too-many-pixels", "truncated", "wrong-topic",
})  # fmt: skip
"""Reasons that this store gives; each is told at 0 as well."""


@dataclass(slots=True)
class _Outbox:
    """What an outbox has told last, and when it was heard."""

    heard: datetime
    lately: Lately
    link: LinkHealth | None = None
    lost: int | None = None
    cameras: dict[str, Account] = field(default_factory=dict)


_Heard = Mapping[tuple[str, str], _Outbox]
"""By site and outbox."""


def _now() -> datetime:
    return datetime.now(UTC)


class Measures:
    """A source of a store's figures.

    Args:
        counters: what became of messages.
        limit: messages at once, at most.
        keep: so long an edge that is not heard is told of, as its books are kept.
        owns: whether the books of an outbox are still this store's to tell of.
        now: the time in UTC.

    Attributes:
        session: with this side's broker, once there is one.
        in_hand: messages that are being dealt with.
        held: returns how many faces are in open shards.
        hellos: how often the store has announced itself.
    """

    def __init__(
        self,
        counters: Counters,
        *,
        limit: int,
        keep: timedelta | None = None,
        owns: Callable[[str, str], bool] = lambda *_: True,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._counters = counters
        self._limit = limit
        self._keep = keep
        self._owns = owns
        self.session: Session | None = None
        self._now = now
        self._told = books.Books()
        self._outboxes: dict[tuple[str, str], _Outbox] = {}
        self._cameras = Counter[str]()
        self.in_hand = self.hellos = 0
        self.held: Callable[[], int] = lambda: 0

    def hear(self, site: str, ledger: Ledger) -> None:
        """Take a ledger, or a part of one; what a broker had kept from before is as old as it says itself."""
        known = self._outboxes.get((site, ledger.outbox))
        now = self._now()
        if known is None:
            there = sum(where == site for where, _ in self._outboxes)
            if len(self._outboxes) >= _MOST_OUTBOXES or there >= _MOST_OUTBOXES // _SHARE:
                return
            heard = min(now, ledger.link.time) if ledger.link else now
            lately = Lately(clock=time.monotonic, whole=ledger.parts == 1)
            known = self._outboxes[site, ledger.outbox] = _Outbox(heard, lately)
        elif ledger.link and (known.link is None or known.link.time != ledger.link.time):
            known.heard = now
        known.link = ledger.link or known.link
        known.lost = ledger.lost
        new = ledger.cameras.keys() - known.cameras.keys()
        room = min(_MOST_CAMERAS - self._cameras.total(), _MOST_CAMERAS // _SHARE - self._cameras[site])
        dropped = set(sorted(new)[max(0, room) :])
        self._cameras[site] += len(new) - len(dropped)
        known.cameras |= {name: a for name, a in ledger.cameras.items() if name not in dropped}

    def begin(self, site: str, before: Ledger) -> None:
        """Take the books of an outbox as they were before this store heard it."""
        if known := self._outboxes.get((site, before.outbox)):
            known.lately.begin(before.cameras)

    async def read(self) -> Iterator[Reading]:
        """Return the figures as they are now."""
        now = self._now()
        for place in [place for place in self._outboxes if not self._owns(*place)]:
            self._cameras[place[0]] -= len(self._outboxes.pop(place).cameras)
        heard = {
            name: replace(one, cameras=dict(one.cameras))
            for name, one in self._outboxes.items()
            if self._keep is None or now - one.heard <= self._keep
        }
        return self._readings(heard, now)

    def _readings(self, heard: _Heard, now: datetime) -> Iterator[Reading]:
        yield from self._store()
        yield from self._told.read(_by_camera(heard))
        sites: dict[str, list[alarms.Report]] = {}
        reports = _reports(heard)
        for report in reports:
            sites.setdefault(report.site, []).append(report)
        for site in sorted(sites)[: c.MOST_CAMERAS]:
            there = sites[site]
            active = [report for report in there if not alarms.replaced(report, there, now)]
            yield from books.link(site, [one.books.link for one in active if one.books.link])
            yield from books.lost(site, [one.books.lost for one in there])
            expected = [one.heard for one in active if one.heard and not alarms.rests(one)]
            if expected:
                yield Reading(c.BOOKS_AGE, (site,), max(0.0, (now - min(expected)).total_seconds()))
        yield from books.alarms(alarms.find(reports, now=now))

    def _store(self) -> Iterator[Reading]:
        counted = self._counters
        outcomes = {
            "stored": counted.stored, "duplicate": counted.duplicates, "erased": counted.erased,
            "foreign": counted.foreign,
        }  # fmt: skip
        for outcome, n in outcomes.items():
            yield Reading(c.KEPT, (outcome,), n)
        yield Reading(c.KEPT_BYTES, (), counted.bytes)
        yield Reading(c.HELD, (), self.held())
        yield Reading(c.SHARDS, (), counted.shards)
        yield Reading(c.SHARD_BYTES, (), counted.shard_bytes)
        yield from _by_reason(c.STORE_REFUSED, counted.refused)
        yield from _by_reason(c.QUARANTINED, counted.quarantined)
        yield from _by_reason(c.DISCARDED, counted.discarded)
        yield Reading(c.PUT, (), counted.puts)
        yield Reading(c.PUT_FAILURES, (), counted.failures)
        yield Reading(c.IN_HAND, (), self.in_hand)
        yield Reading(c.IN_HAND_MOST, (), self._limit)
        yield Reading(c.HELLOS, (), self.hellos)
        if self.session is not None:
            yield Reading(c.CONNECTED, ("cloud", "store"), int(self.session.connected))
            yield Reading(c.CONNECTION_RESETS, ("cloud", "store"), self.session.resets)


def _by_camera(heard: _Heard) -> dict[books.Camera, list[Account]]:
    """Return the books of each camera; whether it is dark now is what its last outbox says."""
    found: dict[books.Camera, list[Account]] = {}
    for one in sorted(heard.values(), key=lambda one: one.heard, reverse=True):
        for name, account in one.cameras.items():
            there = found.setdefault(books.camera_of(name), [])
            there.append(account.model_copy(update={"dark_since": None}) if there else account)
    return found


def _reports(heard: _Heard) -> list[alarms.Report]:
    found = []
    for (site, outbox), one in heard.items():
        ledger = Ledger.model_construct(outbox=outbox, cameras=one.cameras, link=one.link, lost=one.lost)
        found.append(alarms.Report(site, ledger, heard=one.heard, lately=one.lately.since(one.cameras)))
    return found


def _by_reason(metric: Metric, counted: Mapping[str, int]) -> Iterator[Reading]:
    """Yield a count by reason; what this version does not know of is `other`."""
    found = Counter(dict.fromkeys((*_OURS, c.OTHER), 0))
    for reason, n in dict(counted).items():
        found[reason if reason in _OURS else c.OTHER] += n
    for reason, n in sorted(found.items()):
        yield Reading(metric, (reason,), n)
