"""Faults: how each kind is done, and healed."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, cast

from faults import bucket_proxy, link_proxy
from faults.bucket_proxy import BucketProxy
from faults.clock import Clock
from faults.disk import Disk
from faults.link_proxy import LinkProxy
from faults.parts import Part
from faults.schedule import Fault

log = logging.getLogger(__name__)

BACK_S: Final = -3600.0


class Breaker:
    """Breaks a chain by a schedule, and heals it.

    Args:
        parts: its processes.
        link: the line between the sides.
        bucket: the way to the bucket; None where the bucket is a folder.
        disk: the outbox's own disk; None where there is none.
        clock: of feeder and store.

    Attributes:
        done: faults that were played, by kind.
        left_out: kinds that cannot be played here.
        healed: when all was healed, in Unix seconds.
        full: between which monotonic times the disk was full.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, Part],
        link: LinkProxy,
        bucket: BucketProxy | None,
        disk: Disk | None,
        clock: Clock,
    ) -> None:
        self._parts = parts
        self._link = link
        self._bucket = bucket
        self._disk = disk
        self._clock = clock
        self.done: Counter[str] = Counter()
        self.left_out: set[str] = set()
        self.healed = 0.0
        self.full: list[tuple[float, float]] = []
        self._hit: Counter[str] = Counter()

    def possible(self, target: str) -> bool:
        """Whether there is such a thing to break."""
        there = {"link": self._link, "bucket": self._bucket, "disk": self._disk, "clock": self._clock}
        return (there | dict(self._parts)).get(target) is not None

    @property
    def bitten(self) -> Counter[str]:
        """What each kind hit: requests, data, connections, processes; disk and clock are not in here."""
        link = {f"link-{state}": n for state, n in self._link.bitten.items()}
        bucket = {f"bucket-{state}": n for state, n in self._bucket.bitten.items()} if self._bucket else {}
        return self._hit + Counter(link | bucket)

    async def play(self, faults: Iterable[Fault]) -> None:
        """Play a schedule, from now on; returns when all is healed."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                if not self.possible(fault.target):
                    self.left_out.add(fault.kind)
                    continue
                await asyncio.sleep(max(0.0, begin + fault.at - loop.time()))
                group.create_task(self._play(fault))
        self.healed = time.time()

    async def _play(self, fault: Fault) -> None:
        log.info("%7.2f s: %s for %.1f s", fault.at, fault.kind, fault.seconds)
        self.done[fault.kind] += 1
        begin = time.monotonic()
        self._break(fault)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._heal(fault)
            if fault.target == "disk":
                self.full.append((begin, time.monotonic()))

    def _break(self, fault: Fault) -> None:
        how = fault.kind.partition("-")[0]
        if fault.target in self._parts:
            part = self._parts[fault.target]
            self._hit[fault.kind] += bool(part.family())
            if how == "stop":
                part.signal(signal.SIGSTOP)
            else:
                part.kill()
            if how == "wipe":
                part.wipe()
        elif fault.target == "link":
            self._link.set(cast(link_proxy.State, fault.kind.removeprefix("link-")))
        elif fault.target == "bucket" and self._bucket:
            self._bucket.set(cast(bucket_proxy.State, fault.kind.removeprefix("bucket-")))
        elif fault.target == "disk" and self._disk:
            self._disk.fill()
        else:
            self._clock.set(BACK_S)

    def _heal(self, fault: Fault) -> None:
        how = fault.kind.partition("-")[0]
        if fault.target in self._parts:
            part = self._parts[fault.target]
            if how == "stop":
                part.signal(signal.SIGCONT)
            else:
                part.start()
        elif fault.target == "link":
            self._link.set("up")
        elif fault.target == "bucket" and self._bucket:
            self._bucket.set("up")
        elif fault.target == "disk" and self._disk:
            self._disk.free()
        else:
            self._clock.set(0)
