"""Tars without a catalogue: a store fell between the two. They are read, and get theirs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.cloud.shards import catalogue, unpack
from facerelay.cloud.shards.names import PARQUET
from facerelay.cloud.shards.reading import read_tar
from facerelay.cloud.shards.rewrite import obey
from facerelay.cloud.shards.sweep import Listed, dates, of_date
from facerelay.cloud.tombstones import Tombstones, now

log = logging.getLogger(__name__)

_LATE: Final = timedelta(minutes=10)
"""A store that lives has written its catalogue by then, or is about to write the same faces."""

_LATELY: Final = timedelta(days=8)


@dataclass(slots=True)
class Found:
    """What a look came to.

    Attributes:
        adopted: shards that have a catalogue now.
        foreign: tars that are no shards of ours; they are left as they are.
    """

    adopted: int = 0
    foreign: int = 0


class Orphans:
    """Looks for tars without a catalogue: at first among all, then among those of the last days.

    Days where one was too young, or could not be read, are looked at again, however old.

    Args:
        bucket: where.
        tombstones: of that bucket.
        clock: the time in UTC.
    """

    def __init__(
        self, bucket: Bucket, tombstones: Tombstones, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._bucket = bucket
        self._tombstones = tombstones
        self._clock = clock
        self._since = ""
        self._left: set[str] = set()
        self._foreign: set[str] = set()

    async def look(self) -> Found:
        """Give each its catalogue, without what was erased.

        Raises:
            BucketError: the bucket failed, be it with one of them alone; asking again is safe.
        """
        found, at, left, fault = Found(), self._clock(), set[str](), None
        for date in await dates(self._bucket, lambda date: date >= self._since or date in self._left):
            for listed in await self._alone(date):
                if max(listed.shard.closed, listed.modified) > at - _LATE:
                    left.add(date)
                    continue
                try:
                    await self._take(listed, found)
                except BucketError as error:
                    left.add(date)
                    fault = error
        self._since, self._left = (at.astimezone(UTC) - _LATELY).date().isoformat(), left
        if fault is not None:
            raise fault
        return found

    async def _alone(self, date: str) -> list[Listed]:
        """Return the tars of a date that have no catalogue, but for those that are none of ours."""
        there = await of_date(self._bucket, date)
        return [one for one in there if one.tar and not one.catalogue and one.tar.key not in self._foreign]

    async def _take(self, listed: Listed, found: Found) -> None:
        if await self._adopt(listed):
            found.adopted += 1
        else:
            self._foreign.add(listed.shard.tar)
            found.foreign += 1

    async def _adopt(self, listed: Listed) -> bool:
        """Give a tar its catalogue; False where it is no shard of ours."""
        shard = listed.shard
        try:
            tar = await self._bucket.get(shard.tar, max_bytes=unpack.MOST_BYTES)
        except MissingError:
            return True  # rewritten, or past its time, since it was listed
        except BucketError as error:
            if error.passing:
                raise
            log.error("%s: no shard of facerelay's, and left as it is", error)  # noqa: TRY400 - no traceback needed
            return False
        rows = [row for row in await read_tar(tar, shard) if row.time.date().isoformat() == shard.date]
        if not rows:
            return False
        await self._tombstones.refresh(age_s=0)
        if not any(row.erased_by(self._tombstones) for row in rows):
            lines = await asyncio.to_thread(catalogue.write, rows, tar=shard.tar)
            await self._bucket.put_new(shard.catalogue, lines, content_type=PARQUET)
            await self._tombstones.refresh(age_s=0)
        await obey(self._bucket, shard, self._tombstones, modified=listed.modified)
        log.warning(
            "%s had no catalogue, since a store fell: it has one now, with %d faces", shard.tar, len(rows)
        )
        return True
