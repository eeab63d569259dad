"""Faces that a store holds for a while: open shards with all that belongs to them, or nothing of the kind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from facerelay.cloud.contract import Bucket
from facerelay.cloud.counters import Counters
from facerelay.cloud.keep import Answer, Keeper
from facerelay.cloud.shards.pack import Pack
from facerelay.cloud.shards.row import Row
from facerelay.cloud.tombstones import Tombstones
from facerelay.sections import Store

if TYPE_CHECKING:  # they load pyarrow, which a store of objects does without
    from facerelay.cloud.shards.open import OpenShards
    from facerelay.cloud.shards.orphans import Orphans

log = logging.getLogger(__name__)

LOOK_S: Final = 300.0
"""Tombstones may be so old where faces are held: closing looks before and after. Each look is a request."""

_CLOSING_S: Final = 20.0
_AT_ONCE: Final = 5_000


class Holding:
    """Where faces are put that are not to be an object each; without such a layout nothing is held.

    Args:
        settings: of the store.
        bucket: where shards go.
        tombstones: of that bucket.
        counters: of the store.

    Attributes:
        shelf: takes faces; None where each is an object.
        orphans: looks for shards that were left half written; None as well.
    """

    def __init__(
        self, settings: Store, bucket: Bucket, *, tombstones: Tombstones, counters: Counters
    ) -> None:
        self.shelf: OpenShards | None = None
        self.orphans: Orphans | None = None
        if settings.layout != "shards":
            return
        from facerelay.cloud.shards import open as shards  # noqa: PLC0415 - they load pyarrow
        from facerelay.cloud.shards import orphans  # noqa: PLC0415

        self.orphans = orphans.Orphans(bucket, tombstones)
        self.shelf = shards.open_shards(
            settings, bucket, tombstones=tombstones, counters=counters, settle=self._settle
        )

    def __len__(self) -> int:
        """Count the faces that are held."""
        return 0 if self.shelf is None else len(self.shelf)

    async def run(self, keeper: Keeper, answer: Callable[[Sequence[Answer]], Awaitable[None]]) -> None:
        """Close shards until cancelled.

        Args:
            keeper: counts what became of faces.
            answer: tells whose faces they were.
        """
        self._keeper, self._answer = keeper, answer
        if self.shelf is not None:
            await self.shelf.run()

    async def finish(self) -> bool:
        """Close what is open, once `run` has ended; returns whether nothing is held any more."""
        if self.shelf is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING_S):
                    await self.shelf.finish()
        if len(self):
            form = "%d faces were held, and not stored in %.0f s: they are sent again"
            log.warning(form, len(self), _CLOSING_S)
        return not len(self)

    async def _settle(self, pack: Pack, outcome: str, rows: Sequence[Row]) -> None:
        for at in range(0, len(rows), _AT_ONCE):
            await self._answer(await self._keeper.settle(pack, outcome, rows[at : at + _AT_ONCE]))
