"""What is done in a bucket now and then, whoever does it: what is too old goes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from facerelay.cloud import retention
from facerelay.cloud.contract import Bucket
from facerelay.cloud.every import every
from facerelay.cloud.peers import Peers
from facerelay.cloud.quarantine import Quarantine

if TYPE_CHECKING:  # it loads pyarrow, which a store of objects does without
    from facerelay.cloud.shards.orphans import Orphans

log = logging.getLogger(__name__)

WORD: Final = "housekeeping"
_EVERY_S: Final = 3600.0
_LOOK_S: Final = 60.0
_FIRST_S: Final = 10.0


class Housekeeping:
    """Deletes what is too old: quarantine always, faces where a retention is set.

    A sweep lists the whole bucket, so of several stores one does it; whoever comes into its place begins
    with a sweep. A store that cannot hear the others does it as well, which costs a listing and no more.

    Args:
        bucket: where.
        quarantine: its part.
        peers: the other stores.
        orphans: looks for tars that a store left when it fell, and gives them their catalogue.
        keep: how long faces are kept; None: for ever.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        bucket: Bucket,
        quarantine: Quarantine,
        peers: Peers,
        *,
        keep: timedelta | None,
        orphans: Orphans | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._quarantine = quarantine
        self._peers = peers
        self._keep = keep
        self._orphans = orphans
        self._clock = clock
        self._due = clock()
        self._recount = clock() + _EVERY_S

    async def run(self) -> None:
        """Keep house until cancelled."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self._peers.settled()
        await every(_LOOK_S, self.look)

    async def look(self) -> None:
        """Do what is due, if it is this store's to do.

        Raises:
            BucketError: the bucket failed; asking again is safe, and takes up what was not done. An orphan
                that cannot be read waits for the next turn.
        """
        if self._peers.connected and not self._peers.owns(WORD):
            self._heed_others()
            return
        if self._clock() < self._due:
            return
        swept = await self._quarantine.sweep()
        expired = await retention.expire(self._bucket, keep=self._keep) if self._keep else 0
        self._due = self._recount = self._clock() + _EVERY_S
        if swept or expired:
            log.info("deleted by age: %d faces, pictures and books, %d objects in quarantine", expired, swept)
        if self._orphans is not None:  # last: one that cannot be read keeps nothing else from being done
            await self._orphans.look()

    def _heed_others(self) -> None:
        """Have what another store swept out of the quarantine count for nothing here either."""
        if self._clock() >= self._recount:
            self._quarantine.recount()
            self._recount = self._clock() + _EVERY_S
