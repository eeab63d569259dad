"""A night as a store hears it: ledgers minute by minute, told to a diary whose clock runs as one likes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from facerelay import messages, topics
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import Bucket
from facerelay.cloud.counters import Counters
from facerelay.cloud.history.diary import Diary
from facerelay.cloud.measures import Measures
from facerelay.messages import Account, Ledger, LinkHealth

OUTBOX = "a" * 32


@dataclass
class Edge:
    """An outbox and its books; a camera's counts are changed by `count`."""

    site: str = "home"
    outbox: str = OUTBOX
    cameras: dict[str, Account] = field(default_factory=dict)
    link: dict[str, Any] = field(default_factory=dict)

    def count(self, camera: str, *, reasons: Mapping[str, int] | None = None, **more: int) -> None:
        """Add to a camera's counts; what is captured and not answered waits."""
        name = f"{self.site}/{camera}"
        before = self.cameras.get(name, Account())
        counts = {each: getattr(before, each) + n for each, n in more.items()}
        why = {code: before.reasons.get(code, 0) + n for code, n in (reasons or {}).items()}
        changed = before.model_copy(update={**counts, "reasons": {**before.reasons, **why}})
        answered = changed.stored + changed.sent + changed.dropped + changed.refused + changed.erased
        self.cameras[name] = changed.model_copy(update={"waiting": changed.captured - answered})

    def dark(self, camera: str, since: datetime | None) -> None:
        """Let a camera be gone, or come back."""
        name = f"{self.site}/{camera}"
        self.cameras[name] = self.cameras.get(name, Account()).model_copy(update={"dark_since": since})

    def slow(self, p50: float, p99: float) -> None:
        """Let answers take so many milliseconds."""
        latency = messages.Latency(p50=p50, p99=p99)
        self.cameras = {
            name: one.model_copy(update={"latency_ms": latency}) for name, one in self.cameras.items()
        }

    def ledger(self, at: datetime) -> Ledger:
        """Return its books as told at a time."""
        link = LinkHealth(time=at, **self.link)
        return Ledger(outbox=self.outbox, cameras=self.cameras, link=link)


class Store:
    """A store's books and diary, without a broker: `now` is its clock."""

    def __init__(
        self, bucket: Bucket, now: datetime, *, name: str = "store", measures: Measures | None = None
    ) -> None:
        self.now = now
        self._measures = measures or Measures(Counters(), limit=1)
        self.diary = Diary(bucket, store=name, met=self._measures.begin, now=lambda: self.now)
        self.books = Books(bucket, heed=self._heed)

    def _heed(self, site: str, ledger: Ledger) -> None:
        self.diary.take(site, ledger)
        self._measures.hear(site, ledger)

    def hear(self, edge: Edge, *, told: datetime | None = None) -> None:
        """Hear an edge's books; `told` when they are not of now."""
        payload = edge.ledger(told or self.now).to_bytes()
        assert self.books.take(topics.ledger(edge.site, edge.outbox), payload)

    async def write(self, *, everything: bool = False) -> None:
        """Write what the store role writes each few seconds."""
        self.diary.beat()
        assert await self.diary.meet()
        await self.books.flush()
        await self.diary.flush(everything=everything)

    async def pass_time(self, until: datetime, *edges: Edge, write_every: int = 1) -> None:
        """Let time pass, minute by minute, in which some edges are heard; write each so many minutes."""
        minute = 0
        while self.now < until:
            for edge in edges:
                self.hear(edge)
            self.diary.beat()
            if minute % write_every == 0:
                await self.write()
            minute += 1
            self.now = min(until, self.now + timedelta(minutes=1))
            await asyncio.sleep(0)


FACES = (2, 1, 0, 0, 0, 0, 4, 9, 14, 11, 9, 12, 13, 10, 8, 9, 12, 17, 15, 9, 6, 4, 3, 2)
"""Visitors by the hour of a day."""


async def eventful(bucket: Bucket, now: datetime, midnight: datetime) -> None:
    """Fill a bucket with a day until now, in whose night a link was cut and an outbox ran full.

    At `home` the link is down from 22:15 to 02:40, and seven faces give way; `hall` is dark for a while
    in the morning. At `shop` all is well. Times are by a clock whose last midnight is given.
    """
    home, shop = Edge(), Edge(site="shop", outbox="b" * 32)
    store = Store(bucket, midnight - timedelta(hours=12))
    for edge, camera in ((home, "door"), (home, "hall"), (shop, "till")):
        edge.count(camera, frames=3_000_000, inspected=800_000, detections=40_000, captured=900, stored=900)
        edge.link |= {"round_trip_s": 0.031, "up_bytes_s": 9_400, "window": 512_000}
    store.hear(home)
    store.hear(shop)
    await store.books.flush()  # what was counted before is not of this day
    cut, healed = midnight - timedelta(hours=1, minutes=45), midnight + timedelta(hours=2, minutes=40)
    while store.now < now:
        down = cut <= store.now < healed
        if store.now == healed:
            home.link["cuts"] = 1
            home.count("door", dropped=7, reasons={"evicted": 7})
            home.count("door", stored=home.cameras["home/door"].waiting)
            home.count("hall", stored=home.cameras["home/hall"].waiting)
        end = min(now, store.now + timedelta(minutes=5))
        n = FACES[int((store.now - midnight) / timedelta(hours=1)) % 24] if store.now.minute == 5 else 0
        for edge, camera, share in ((home, "door", 1.0), (home, "hall", 0.5), (shop, "till", 2.0)):
            came = round(n * share)
            edge.count(
                camera, frames=9_000, inspected=2_000, detections=came * 40, captured=came, bytes=6_000 * came
            )
            if not (down and edge is home):
                edge.count(camera, stored=came)
        dark = midnight + timedelta(hours=6) <= store.now < midnight + timedelta(hours=6, minutes=35)
        home.dark("hall", midnight + timedelta(hours=6) if dark else None)
        await store.pass_time(end, *([shop] if down else [home, shop]), write_every=60)
    for edge in (home, shop):
        edge.slow(31.0, 88.0)
        store.hear(edge)
    await store.write(everything=True)
