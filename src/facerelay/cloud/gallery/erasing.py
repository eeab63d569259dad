"""Faces erased by their keys: a tombstone first, then the objects, then once more after the longest PUT."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from facerelay.cloud import keys, proofs, quarantine
from facerelay.cloud.contract import LONGEST_PUT_S, Bucket, BucketError
from facerelay.cloud.erase import delete_all
from facerelay.cloud.shards.sweep import Sweep
from facerelay.cloud.tombstones import AGE_S, Tombstone, Tombstones, bury, now

log = logging.getLogger(__name__)

MOST: Final = 500
"""Faces that can be erased at once."""

_AT_ONCE: Final = 32
_DATE: Final = re.compile(r"/date=(?P<date>[0-9-]+)")
_AGAIN_S: Final = 30.0
_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Done:
    """What was erased: how many objects and tars, and a line of proof as `facerelay erase` prints it."""

    deleted: int
    proof: str


class Eraser:
    """Erases faces, and answers when they are gone; the second sweep goes on behind the answer.

    What a store is writing at that moment, knowing nothing of the tombstone yet, goes with the second
    sweep. If this process ends before it, whoever finds the face goes by the tombstone: the store when the
    face is sent again, a gallery when it would show it.

    Args:
        bucket: where.
        wait_s: until the second sweep.
        on_gone: is told the keys.
        sign: signs the proofs.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        on_gone: Callable[[Sequence[str]], Awaitable[None]],
        wait_s: float = LONGEST_PUT_S + AGE_S,
        sign: proofs.Sign | None = None,
    ) -> None:
        self._bucket = bucket
        self._on_gone = on_gone
        self._wait_s = wait_s
        self._sign = sign
        self._behind: set[asyncio.Task[None]] = set()
        self._deleting: set[str] = set()
        self._tombstones = Tombstones(bucket)

    async def erase(self, chosen: Sequence[str]) -> Done:
        """Erase faces by their keys.

        Raises:
            BucketError: the bucket failed; asking again is safe.
        """
        facts = {key: found for key in chosen if (found := keys.parse(key))}
        ids = tuple(sorted({one.id for one in facts.values()}))
        tombstones = await self._bury(facts.values())
        log.info("%s is written; deleting", ", ".join(tombstones))
        hours = sorted({key.rpartition("/")[0] for key in facts})
        shards = Sweep(self._bucket, tombstones=self._tombstones)
        gone = await self._sweep(hours, frozenset(ids), shards)
        await self._on_gone([*facts, *gone])
        self._later(self._finish(hours, frozenset(ids), tombstones, shards))
        return Done(len(gone), await self._prove(ids, tombstones, gone, swept=0))

    def obey(self, covered: Sequence[str]) -> None:
        """Delete faces that lie in the bucket though a tombstone covers them, behind whoever found them."""
        fresh = [key for key in covered if key not in self._deleting]
        if fresh:
            self._deleting.update(fresh)
            self._later(self._delete_all(fresh))

    async def close(self) -> None:
        """End what goes on behind; the tombstones stay."""
        if self._behind:
            log.info(
                "ending before the second sweep: what lands meanwhile goes by its tombstone when it is found"
            )
        for task in self._behind:
            task.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _bury(self, chosen: Iterable[keys.Facts]) -> list[str]:
        """Write a tombstone for each site: an id tells a time, and its own outboxes alone are told of it."""
        by_site: dict[str, set[str]] = {}
        for face in chosen:
            by_site.setdefault(face.site, set()).add(face.id)
        return [
            await bury(self._bucket, Tombstone(made=now(), site=site, ids=tuple(sorted(ids))))
            for site, ids in sorted(by_site.items())
        ]

    async def _prove(
        self, ids: Iterable[str], tombstones: Sequence[str], gone: Sequence[str], *, swept: int
    ) -> str:
        asked = proofs.asked(ids=ids)
        return await proofs.write(
            self._bucket, asked=asked, tombstones=tombstones, deleted=gone, swept=swept, sign=self._sign
        )

    async def _finish(
        self, hours: Sequence[str], ids: frozenset[str], tombstones: Sequence[str], shards: Sweep
    ) -> None:
        """Sweep quarantine, then all of it once more when no PUT can be under way that began before."""
        found = await self._stubbornly(lambda: self._sweep_quarantine(ids))
        await asyncio.sleep(self._wait_s)
        found += await self._stubbornly(lambda: self._sweep(hours, ids, shards))
        found += await self._stubbornly(lambda: self._sweep_quarantine(ids))
        await self._on_gone(found)
        if found:
            late = found

            async def prove() -> list[str]:
                await self._prove(ids, tombstones, late, swept=len(late))
                return []

            await self._stubbornly(prove)
        log.info("the second sweep is done: %d more objects deleted", len(found))

    async def _delete_all(self, gone: Sequence[str]) -> None:
        log.info("%d faces lay in the bucket that were erased: deleting them", len(gone))

        facts = {key: found for key in gone if (found := keys.parse(key))}

        async def work() -> list[str]:
            await delete_all(self._bucket, gone)
            shards = Sweep(self._bucket, tombstones=self._tombstones)
            return await _from_shards(shards, facts, frozenset(face.id for face in facts.values()))

        try:
            await self._stubbornly(work)
        finally:
            self._deleting.difference_update(gone)

    async def _stubbornly(self, work: Callable[[], Awaitable[list[str]]]) -> list[str]:
        for _ in range(_TRIES):
            try:
                return await work()
            except BucketError as error:
                log.warning("erased faces are not all deleted yet, trying again: %s", error)
                await asyncio.sleep(_AGAIN_S)
        log.error("erased faces may still lie in the bucket: run `facerelay erase` for them")
        return []

    async def _sweep(self, hours: Sequence[str], ids: frozenset[str], shards: Sweep) -> list[str]:
        """Delete all of these faces in the partitions where they lie, and in shards; return their keys."""
        found: list[str] = []
        for at in range(0, len(hours), _AT_ONCE):
            levels = await asyncio.gather(
                *(self._bucket.children(each) for each in hours[at : at + _AT_ONCE])
            )
            entries = (entry.key for level in levels for entry in level.entries)
            found += [key for key in entries if (facts := keys.parse(key)) and facts.id in ids]
        await delete_all(self._bucket, found)
        return found + await _from_shards(shards, hours, ids)

    async def _sweep_quarantine(self, ids: frozenset[str]) -> list[str]:
        found: list[str] = []
        async for note in quarantine.notes(self._bucket):
            if note.face and note.face.id in ids:
                found += note.keys
        await delete_all(self._bucket, found)
        return found


async def _from_shards(shards: Sweep, where: Iterable[str], ids: frozenset[str]) -> list[str]:
    """Erase faces from the shards of the days that keys name; return what went."""
    days = {found["date"] for key in where if (found := _DATE.search(key))}
    there = shards.find(days.__contains__, lambda row: True if row.id in ids else None)
    return await shards.obey([listed async for listed, _ in there])
