"""Erasures on their way down: an outbox is told what was erased, until its books say that it was done."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple

from pydantic import ValidationError

from facerelay.cloud.contract import BucketError
from facerelay.cloud.tombstones import Tombstone, Tombstones
from facerelay.erasures import MOST_IDS, MOST_RULES, Erasure, Erasures
from facerelay.messages import Ledger
from facerelay.mqtt import NotConnectedError
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_AGE_S: Final = 60.0
"""Where no faces come, tombstones are looked for so often, at most: each look is a request."""

_FIRST_S: Final = 15.0
_LONGEST_S: Final = 3600.0
_MOST: Final = 10_000
"""Outboxes that are remembered, or wait to be told."""

_MOST_OF_SITE: Final = 64
"""Outboxes of one site that wait to be told: one that makes them up keeps no other's waiting."""

_MARK_BYTES: Final = 8

Place = tuple[str, str]
"""A site and an outbox."""


class _Step(NamedTuple):
    """One rule to tell, and the mark of who was told it and all before it."""

    rule: Erasure
    mark: str


class _Told(NamedTuple):
    """What an outbox said when it was told last, when it may be told again, and after how long that was."""

    mark: str
    due: float
    delay: float


class Notices:
    """Compares what outboxes say they know of erasures with the tombstones, and tells them the rest.

    What a broker loses, and what was told while an edge was away, is told again: the edge's next books say
    the old mark. An outbox that never answers is told more and more seldom.

    Args:
        tombstones: what was erased.
        publish: tells some of it to an outbox.
        age_s: how old their last look may be; if not given, a minute, or what they allow for themselves.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tombstones: Tombstones,
        publish: Callable[[str, str, Erasures], Awaitable[None]],
        *,
        age_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tombstones = tombstones
        self._publish = publish
        self._age_s = max(_AGE_S, tombstones.age_s) if age_s is None else age_s
        self._clock = clock
        self._waiting: dict[Place, str] = {}
        self._of_site: Counter[str] = Counter()
        self._some = asyncio.Event()
        self._told: dict[Place, _Told] = {}
        self._marks: dict[str, str] = {}
        self._marks_of = -1
        self._seldom = Seldom(log)

    def hear(self, site: str, ledger: Ledger) -> None:
        """Take an outbox's word of what it knows; one that does not know of erasures is told nothing."""
        if ledger.link is None or ledger.link.erasures is None or ledger.part:
            return
        place = site, ledger.outbox
        if place not in self._waiting:
            if len(self._waiting) >= _MOST or self._of_site[site] >= _MOST_OF_SITE:
                return
            self._of_site[site] += 1
        self._waiting[place] = ledger.link.erasures
        self._some.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self.tell()

    async def tell(self) -> None:
        """Tell those that were heard since the last time, and do not know it all."""
        waiting, self._waiting = self._waiting, {}
        self._of_site.clear()
        try:
            await self._tombstones.refresh(age_s=self._age_s)
            for place, mark in waiting.items():
                await self._look(place, mark)
        except BucketError as error:
            form = "what was erased cannot be read, edges are told later: %s"
            self._seldom.say(logging.WARNING, "read", form, error)
        except NotConnectedError:
            log.info("edges are told of erasures later: no connection")

    async def _look(self, place: Place, mark: str) -> None:
        """Tell an outbox what it does not know, if it is time."""
        if mark == self._last_mark(place[0]):
            self._told.pop(place, None)
            return
        before, now = self._told.get(place), self._clock()
        if before is not None and before.mark == mark and now < before.due:
            return
        delay = min(2 * before.delay, _LONGEST_S) if before and before.mark == mark else _FIRST_S
        self._told.pop(place, None)
        self._told[place] = _Told(mark, now + delay, delay)
        if len(self._told) > _MOST:
            del self._told[next(iter(self._told))]
        for erasures in _messages(list(_steps(self._tombstones, place[0])), mark):
            await self._publish(*place, erasures)

    def _last_mark(self, site: str) -> str:
        """Return the mark of who knows all that can concern a site; empty where nothing does."""
        if self._marks_of != self._tombstones.known:
            self._marks, self._marks_of = {}, self._tombstones.known
        if site not in self._marks:
            last = ""
            for step in _steps(self._tombstones, site):
                last = step.mark
            self._marks[site] = last
            if len(self._marks) > _MOST:
                del self._marks[next(iter(self._marks))]
        return self._marks[site]


def _steps(tombstones: Tombstones, site: str) -> Iterator[_Step]:
    """Yield what can concern a site, in the order of the tombstones' names, which is that of time.

    A mark follows from all that comes before it. So two stores say the same, and where one tombstone more
    turns up in between, marks behind it are no longer known, and all is told anew.
    """
    mark = ""
    for key, tombstone in tombstones.read:
        if tombstone.site not in {None, site}:
            continue
        for number, rule in enumerate(_rules(key, tombstone)):
            name = f"{mark} {key} {number}".encode()
            mark = hashlib.blake2b(name, digest_size=_MARK_BYTES).hexdigest()
            yield _Step(rule, mark)


def _rules(key: str, tombstone: Tombstone) -> Iterator[Erasure]:
    """Yield a tombstone as rules, of so many ids each."""
    given = tombstone.model_dump(exclude={"v", "made", "ids"}, exclude_none=True)
    try:
        if not tombstone.ids:
            yield Erasure(**given)
        for at in range(0, len(tombstone.ids), MOST_IDS):
            yield Erasure(ids=tombstone.ids[at : at + MOST_IDS], **given)
    except ValidationError:
        log.exception("a fault of ours: %s cannot be told to edges", key)


def _messages(steps: list[_Step], since: str) -> Iterator[Erasures]:
    """Yield what comes behind a mark; all of it where the mark is not known."""
    marks = [step.mark for step in steps]
    begin = marks.index(since) + 1 if since in marks else 0
    since = since if begin else ""
    batch: list[_Step] = []
    ids = 0
    for step in steps[begin:]:
        if len(batch) == MOST_RULES or ids + len(step.rule.ids) > MOST_IDS:
            yield _message(batch, since)
            since, batch, ids = batch[-1].mark, [], 0
        batch.append(step)
        ids += len(step.rule.ids)
    if batch or not begin:
        yield _message(batch, since)


def _message(batch: list[_Step], since: str) -> Erasures:
    until = batch[-1].mark if batch else ""
    return Erasures(since=since, until=until, rules=tuple(step.rule for step in batch))
