"""What a store hears of the edges, kept by the hour: marks that are merged into those in the bucket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

from facerelay.alarms import LATE_S, SILENT_S
from facerelay.cloud import history
from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.history import marks
from facerelay.cloud.history.marks import DayMarks, Mark
from facerelay.cloud.history.page import Page, minute_of, since
from facerelay.cloud.read_books import read_outbox
from facerelay.messages import Ledger, LinkHealth
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
_MOST_OUTBOXES: Final = 2_000
_MOST_CAMERAS: Final = 10_000
_SHARE: Final = 2
"""Of that room one site takes no more than a half: who may write its books must not keep out all others'."""

_MOST_DAYS: Final = 2
_AT_ONCE: Final = 16
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Outbox:
    """What is known of an outbox.

    Attributes:
        last: the mark of each camera as it was told last.
        link: as it was told last.
        at: when that was.
        met: whether it is known how its books stood before we heard of it.
        pages: by day.
        due: when they are to be written next.
    """

    last: dict[str, Mark] = field(default_factory=dict)
    link: LinkHealth | None = None
    at: datetime | None = None
    met: bool = False
    pages: dict[date, Page] = field(default_factory=dict)
    due: datetime = _LONG_AGO


class Diary:
    """Takes the ledgers that a store hears, and merges what they come to into the bucket now and then.

    Stores of one name or of many may keep the same outbox: what each has heard adds up.

    Args:
        bucket: where it lies; see `history` for how to read it.
        store: this store's name.
        met: is told of the books of an outbox as they were before we heard of it, and of its site.
        owns: whether an outbox is still this store's to keep; of one that is not the rest is written, and it
            is forgotten.
        now: the time in UTC.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        store: str,
        met: Callable[[str, Ledger], None] = lambda *_: None,
        owns: Callable[[str, str], bool] = lambda *_: True,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._bucket = bucket
        self._store = store
        self._met = met
        self._owns = owns
        self._now = now
        self._outboxes: dict[tuple[str, str], _Outbox] = {}
        self._beats: dict[date, int] = {}
        self._beats_due = _LONG_AGO
        self._seldom = Seldom(log)

    def beat(self) -> None:
        """Note that this store is at work, and connected to its broker."""
        now = self._now()
        self._beats[now.date()] = self._beats.get(now.date(), 0) | 1 << minute_of(now)

    def take(self, site: str, ledger: Ledger) -> None:
        """Take a ledger, or a part of one, that was found to be the site's own."""
        now = self._now()
        known = self._known(site, ledger)
        if known is None:
            return
        page = known.pages.get(now.date())
        if page is None:
            page = known.pages[now.date()] = Page(bases=dict(known.last))
            for day in sorted(known.pages)[:-_MOST_DAYS]:
                del known.pages[day]
        cameras = marks.of(ledger.cameras)
        if known.met:
            page.bases |= {name: Mark() for name in cameras.keys() - page.bases.keys()}
        known.last |= cameras
        page.take(minute_of(now), cameras)
        for name, account in ledger.cameras.items():
            if account.dark_since is not None:
                page.dark[name] = page.dark.get(name, 0) | since(account.dark_since, now)
        if ledger.part == 0 and not (known.link and ledger.link and known.link.time == ledger.link.time):
            _hear(known, page, ledger.link, now)

    async def meet(self) -> bool:
        """Find out how the books of outboxes stood that were heard of for the first time.

        It is to be called before the bucket's books are written over; returns whether they may be.
        """
        new = [(place, known) for place, known in self._outboxes.items() if not known.met]
        for at in range(0, len(new), _AT_ONCE):
            some = new[at : at + _AT_ONCE]
            if not all(await asyncio.gather(*(self._meet(*place, known) for place, known in some))):
                return False
        return True

    async def _meet(self, site: str, outbox: str, known: _Outbox) -> bool:
        try:
            before = await read_outbox(self._bucket, site, outbox)
        except BucketError as error:
            self._seldom.say(logging.WARNING, "read", "the books cannot be read yet: %s", error)
            return False
        _begin(known, before)
        if before is not None:
            self._met(site, before)
        return True

    async def flush(self, *, everything: bool = False) -> None:
        """Merge into the bucket what is due; what it does not take now is tried again."""
        now = self._now()
        due = [
            (place, known)
            for place, known in self._outboxes.items()
            if known.met and (everything or _is_due(known.due, now) or not self._owns(*place))
        ]
        for at in range(0, len(due), _AT_ONCE):
            await asyncio.gather(
                *(self._write(*place, known, now) for place, known in due[at : at + _AT_ONCE])
            )
        if everything or _is_due(self._beats_due, now):
            self._beats_due = now + timedelta(seconds=EVERY_S)
            for day, beats in list(self._beats.items()):
                key = history.store_key(day, self._store)
                if await self._merge(key, DayMarks(heard=marks.bits(beats))) and day != now.date():
                    del self._beats[day]

    async def _write(self, site: str, outbox: str, known: _Outbox, now: datetime) -> None:
        known.due = now + timedelta(seconds=EVERY_S)
        whole = True
        for day, page in list(known.pages.items()):
            written = await self._merge(history.outbox_key(day, site, outbox), page.marks())
            whole = whole and written
            if written:
                page.trim(day, now)
                if not page.hours and day != now.date():
                    known.pages.pop(day, None)
        if whole and not self._owns(site, outbox):
            self._outboxes.pop((site, outbox), None)

    async def _merge(self, key: str, more: DayMarks) -> bool:
        """Add to an object of the bucket; returns whether that was done."""
        try:
            there = await history.read_marks(self._bucket, key)
            data = await asyncio.to_thread(_merged, there, more)
            if len(data) > DayMarks.most_bytes:
                self._seldom.say(
                    logging.WARNING, "size", "%s: %d bytes of history: not written", key, len(data)
                )
                return True
            await self._bucket.put(key, data)
        except BucketError as error:
            self._seldom.say(logging.WARNING, "write", "history is not written yet: %s", error)
            return False
        return True

    def _known(self, site: str, ledger: Ledger) -> _Outbox | None:
        """Return what is known of an outbox; None where there is no room for another, or for its cameras."""
        place = site, ledger.outbox
        known = self._outboxes.get(place)
        new = len(ledger.cameras.keys() - (known.last.keys() if known else set()))
        if not self._has_room(site, new, another=known is None):
            self._seldom.say(logging.WARNING, "room", "too many outboxes or cameras for a history")
            return None
        if known is None:
            known = self._outboxes[place] = _Outbox()
        return known

    def _has_room(self, site: str, new: int, *, another: bool) -> bool:
        """Return whether so many cameras more, and another outbox perhaps, may be remembered of a site."""
        if not (new or another):
            return True
        everywhere = [len(each.last) for each in self._outboxes.values()]
        here = [len(each.last) for (where, _), each in self._outboxes.items() if where == site]
        return all(
            (not new or sum(held) + new <= _MOST_CAMERAS // share)
            and (not another or len(held) < _MOST_OUTBOXES // share)
            for held, share in ((everywhere, 1), (here, _SHARE))
        )


def _begin(known: _Outbox, before: Ledger | None) -> None:
    """Begin with the books as they were in the bucket."""
    bases = marks.of(before.cameras) if before else {}
    told_anew = before and before.link and known.link and before.link.time == known.link.time
    for page in known.pages.values():
        page.bases = {name: bases.get(name, Mark()) for name in known.last}
        if told_anew:  # by a broker that keeps what it was told: no sign of life
            page.heard = page.unanswered = page.late = 0
    known.met = True


def _hear(known: _Outbox, page: Page, link: LinkHealth | None, now: datetime) -> None:
    """Note a word of an outbox, and what it tells of a silence before it; of a brief one none is expected."""
    if link and link.brief:
        return
    bit = 1 << minute_of(now)
    page.heard |= bit
    if link and link.silent_s is not None:
        page.unanswered |= bit
    if link and link.oldest_s is not None and link.oldest_s > LATE_S:
        page.late |= bit
    if known.at and known.link and link and (now - known.at).total_seconds() > SILENT_S:
        if link.cuts > known.link.cuts:
            page.back[minute_of(now)] = "link"
        elif link.cuts < known.link.cuts:
            page.back[minute_of(now)] = "capture"
    known.at, known.link = now, link


def _is_due(due: datetime, now: datetime) -> bool:
    """Whether the time has come, or was set so far back that it would come too late."""
    return not timedelta() < due - now <= timedelta(seconds=EVERY_S)


def _merged(there: DayMarks | None, more: DayMarks) -> bytes:
    return (there.merge(more) if there else more).to_bytes()
