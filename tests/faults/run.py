"""One run: a chain of one combination, fed, broken by its schedule, healed, drained and audited."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from obstore.store import ObjectStore

from buckets import ACCESS_KEY, SECRET_KEY
from facerelay.commands.supervise import free_ports
from faults.audit import Findings, audit
from faults.breaking import Breaker
from faults.bucket_proxy import BucketProxy
from faults.chain import COMBINATIONS, Places, parts_of
from faults.clock import Clock
from faults.disk import Disk
from faults.link_proxy import LinkProxy
from faults.numbered import read_journal
from faults.parts import Part, Usage
from faults.schedule import schedule
from faults.weed import BucketServer, folder_bucket, s3, there_is_weed

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
_SAMPLE_S: Final = 1.0
_AGAIN_S: Final = 0.5
_DRAIN_S: Final = 120.0
_BUCKET: Final = "faces"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; `disk` is the outbox's own, if there is one."""

    seed: int
    seconds: float
    rate: float
    combination: str
    disk: Disk | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run; `usage` by process, `falls` of processes that nobody had killed."""

    findings: Findings
    faults: dict[str, int]
    left_out: set[str]
    usage: dict[str, dict[str, float]]
    falls: dict[str, int]
    drained: bool
    rate: float


async def run(plan: Plan, folder: Path) -> Outcome:
    """Run it, in an empty folder; everything that it starts has ended when it returns."""
    async with _bucket(folder) as (bucket, proxy, settings):
        cloud = free_ports(1)[0]
        link = LinkProxy(cloud)
        await link.start()
        outbox = (plan.disk.folder / plan.combination if plan.disk else folder) / "outbox.db"
        outbox.parent.mkdir(exist_ok=True)
        places = Places(
            folder=folder, outbox=outbox, clock=folder / "clock", journal=folder / "journal",
            bucket=settings, cloud=cloud, link=link.port,
        )  # fmt: skip
        clock = Clock(places.clock)
        begin = time.monotonic()
        feeding = [str(plan.seed), str(plan.rate), str(begin), str(begin + plan.seconds)]
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
        findings = await audit(bucket, outbox, read_journal(places.journal), plan.seed)
        if plan.disk:  # it has room for one run
            for left in outbox.parent.iterdir():
                shutil.move(left, folder)
    return Outcome(
        findings=findings, faults=dict(breaker.done), left_out=breaker.left_out, drained=drained,
        usage={name: one.report() for name, one in usage.items()},
        falls={part.name: part.falls for part in parts.values() if part.falls},
        rate=round(findings.captured / plan.seconds, 1),
    )  # fmt: skip


async def _live(plan: Plan, parts: dict[str, Part], breaker: Breaker, usage: dict[str, Usage]) -> bool:
    """Play the schedule, then wait until all faces have their answer; returns whether they had in time."""
    for part in parts.values():
        part.start()
    watchers = [asyncio.create_task(_supervise(parts)), asyncio.create_task(_sample(parts, usage))]
    try:
        await breaker.play(schedule(plan.seed, plan.combination, plan.seconds))
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
            if part.expected and part.ended() not in {None, 0}:
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
