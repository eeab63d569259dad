"""One run: a chain of one combination, fed, broken by its schedule, healed, drained and audited."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from obstore.store import ObjectStore

from buckets import ACCESS_KEY, SECRET_KEY
from facerelay.commands.supervise import free_ports
from faults.audit import Findings, answered_after, audit
from faults.breaking import BACK_S, Breaker
from faults.bucket_proxy import BucketProxy
from faults.chain import COMBINATIONS, Places, parts_of
from faults.clock import Clock
from faults.disk import Disk
from faults.feeder import MOST_UNCOMMITTED
from faults.link_proxy import LinkProxy
from faults.numbered import Journal, read_journal
from faults.parts import Part
from faults.schedule import KINDS, Kind, schedule
from faults.usage import Usage, growth
from faults.weed import BucketServer, folder_bucket, s3, there_is_weed

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
_SAMPLE_S: Final = 1.0
_AGAIN_S: Final = 0.5
_DRAIN_S: Final = 120.0
_BUCKET: Final = "faces"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; `disk` is the outbox's own, if there is one, and `budget` what it may hold, in bytes."""

    seed: int
    seconds: float
    rate: float
    combination: str
    disk: Disk | None
    budget: int
    kinds: Sequence[Kind] = KINDS

    @property
    def count(self) -> int:
        """How many faces the feeder has."""
        return round(self.seconds * self.rate)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        findings: of the audit.
        faults: that were played, by kind.
        bitten: what they did, by kind: requests, connections, pieces of data, processes, faces.
        left_out: kinds that cannot be played here.
        usage: by process.
        falls: of processes that nobody had killed.
        drained: every face had its answer in time.
        rate: faces captured a second.
        resumed_s: seconds from the end of the last fault to the first answer.
        drain_s: seconds from there to the last answer.
        wrong: why it is not clean, in words.
    """

    findings: Findings
    faults: dict[str, int]
    bitten: dict[str, int]
    left_out: set[str]
    usage: dict[str, dict[str, float]]
    falls: dict[str, int]
    drained: bool
    rate: float
    resumed_s: float
    drain_s: float
    wrong: tuple[str, ...] = ()


async def run(plan: Plan, folder: Path) -> Outcome:
    """Run it, in an empty folder; everything that it starts has ended when it returns."""
    async with _bucket(folder) as (bucket, proxy, settings):
        cloud = free_ports(1)[0]
        link = LinkProxy(cloud)
        await link.start()
        places = _places(plan, folder, settings, cloud=cloud, link=link.port)
        clock = Clock(places.clock)
        begin, today = time.monotonic(), time.time()
        feeding = [str(plan.seed), str(plan.rate), str(begin), str(plan.count)]
        parts = parts_of(COMBINATIONS[plan.combination], places, feeding)
        breaker = Breaker(parts=parts, link=link, bucket=proxy, disk=plan.disk, clock=clock)
        usage = {name: Usage() for name in parts}
        try:
            drained = await _live(plan, parts, breaker, usage)
        finally:
            for part in reversed(parts.values()):
                await asyncio.to_thread(part.end)  # the proxies go on meanwhile
            await link.close()
            if plan.disk:
                plan.disk.free()
        journal = read_journal(places.journal)
        findings = await audit(bucket, places.outbox, journal, plan.seed, breaker.full)
        resumed, last = answered_after(places.outbox, breaker.healed)
        if plan.disk:  # it has room for one run
            for left in places.outbox.parent.iterdir():
                shutil.move(left, folder)
    found = Outcome(
        findings=findings, faults=dict(breaker.done), left_out=breaker.left_out, drained=drained,
        bitten=breaker.bitten + _bitten(journal, today), resumed_s=resumed, drain_s=last,
        usage={name: one.report() for name, one in usage.items()},
        falls={part.name: part.falls for part in parts.values() if part.falls},
        rate=round(findings.captured / plan.seconds, 1),
    )  # fmt: skip
    return replace(found, wrong=tuple(wrong(plan, found)))


def _places(plan: Plan, folder: Path, bucket: dict[str, Any], *, cloud: int, link: int) -> Places:
    outbox = (plan.disk.folder / plan.combination if plan.disk else folder) / "outbox.db"
    outbox.parent.mkdir(exist_ok=True)
    return Places(
        folder=folder, outbox=outbox, clock=folder / "clock", journal=folder / "journal",
        bucket=bucket, cloud=cloud, link=link, budget=plan.budget,
    )  # fmt: skip


def _bitten(journal: Journal, today: float) -> Counter[str]:
    """Return how many faces met a full disk, and a wrong clock."""
    early = sum(one.micros / 1e6 < today + BACK_S / 2 for one in journal.offered.values())
    return Counter({"disk-full": len(journal.turned_away), "clock-back": early})


def wrong(plan: Plan, found: Outcome) -> Iterator[str]:
    """Yield what is wrong with a run."""
    one, faults = found.findings, found.faults
    if not one.clean:
        yield "the audit is not clean"
    if not found.drained:
        yield "not every face had its answer in time"
    if one.offered != plan.count:
        yield f"the feeder offered {one.offered} faces of {plan.count}"
    if one.unsaid > MOST_UNCOMMITTED * (faults.get("kill-feeder", 0) + found.falls.get("feeder", 0)):
        yield f"of {one.unsaid} faces nothing was heard, more than its kills explain"
    for name, n in found.falls.items():
        yield f"{name}: fell {n} times, though nobody had killed it"
    yield from growth(found.usage, plan.seconds)


async def _live(plan: Plan, parts: dict[str, Part], breaker: Breaker, usage: dict[str, Usage]) -> bool:
    """Play the schedule, then wait until all faces have their answer; returns whether they had in time."""
    for part in parts.values():
        part.start()
    watchers = [asyncio.create_task(_supervise(parts)), asyncio.create_task(_sample(parts, usage))]
    try:
        await breaker.play(schedule(plan.seed, plan.combination, plan.seconds, plan.kinds))
        feeder = parts["feeder"]
        until = time.monotonic() + _DRAIN_S + plan.seconds / 5
        while not (feeder.ended() == 0 and feeder.expected) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        return feeder.ended() == 0
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)


async def _supervise(parts: dict[str, Part]) -> None:
    """Start again what fell though nobody had killed it, as any supervisor would."""
    while True:
        await asyncio.sleep(_LOOK_S)
        for part in parts.values():
            if part.expected and part.ended() not in ({None, 0} if part.name == "feeder" else {None}):
                part.falls += 1
                log.warning("%s ended with code %s: %s", part.name, part.ended(), part.last_words(300))
                await asyncio.sleep(_AGAIN_S)
                if part.expected and part.ended() is not None:
                    part.start()


async def _sample(parts: dict[str, Part], usage: dict[str, Usage]) -> None:
    while True:
        for name, part in parts.items():
            usage[name].sample(part)
        await asyncio.sleep(_SAMPLE_S)


@asynccontextmanager
async def _bucket(folder: Path) -> AsyncIterator[tuple[ObjectStore, BucketProxy | None, dict[str, Any]]]:
    """Run SeaweedFS behind a proxy, or make a folder where it is not installed."""
    if not there_is_weed():
        path = folder / "bucket"
        yield folder_bucket(path), None, {"url": f"file://{path}"}
        return
    os.environ["TMPDIR"] = str(folder)
    server = BucketServer(folder)
    proxy = BucketProxy(server.port)
    try:
        await server.start()
        await proxy.start()
        endpoint = f"http://127.0.0.1:{proxy.port}"
        keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        yield s3(server.port, _BUCKET), proxy, {"url": f"s3://{_BUCKET}", "endpoint": endpoint, **keys}
    finally:
        await proxy.close()
        server.end()
