"""A shard written anew without the faces that were erased.

The new tar comes first, then its catalogue, then the old catalogue goes, then the old tar. So every face that
stays is in a shard that is whole at every moment, and whoever is cut off leaves something that the next one
takes up. Whoever does the same work beside us comes to the same names: these follow from the faces.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.cloud.shards import catalogue, unpack
from facerelay.cloud.shards.carry import Carried, carry
from facerelay.cloud.shards.names import PARQUET, TAR, Shard
from facerelay.cloud.shards.reading import listed, read_tar
from facerelay.cloud.shards.row import Row
from facerelay.cloud.tombstones import AGE_S, Tombstones

log = logging.getLogger(__name__)

_TRIES: Final = 4
_LATE: Final = timedelta(hours=1)
"""A shard comes to the bucket so long after its closing at most, or its store's clock was wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What became of a shard.

    Attributes:
        gone: the lines of the faces that are not there any more.
        tar: the key of the tar that went; None where all is as it was.
        unsound: how many faces have other bytes than their line says; they stay as they were.
        astray: how many lines led to no bytes of theirs; they went.
    """

    gone: Sequence[Row] = ()
    tar: str | None = None
    unsound: int = 0
    astray: int = 0

    @property
    def deleted(self) -> list[str]:
        """The keys that these faces have whatever the layout, and that of the tar which held them."""
        return [*(row.key for row in self.gone), *([self.tar] if self.tar else ())]


_AS_IT_WAS: Final = Rewritten()


async def obey(
    bucket: Bucket, shard: Shard, tombstones: Tombstones, *, modified: datetime | None = None
) -> Rewritten:
    """Have a shard hold nothing that tombstones cover; where they cover nothing in it, it stays as it is.

    Safe to be cut off, to be done again, and to be done twice at once. One that is gone was written anew
    by somebody else, who does as much.

    Args:
        bucket: where.
        shard: its name.
        tombstones: of that bucket.
        modified: when its objects arrived there, by the bucket's clock.

    Raises:
        BucketError: the bucket failed; asking again is safe.
    """
    await tombstones.refresh(age_s=AGE_S)
    rows = await listed(bucket, shard)
    if rows is not None and not _covered(rows, tombstones):
        return _AS_IT_WAS
    try:
        tar = await bucket.get(shard.tar, max_bytes=unpack.MOST_BYTES)
    except MissingError:
        return await _dangling(bucket, shard, tombstones)
    if rows is None:
        rows = await read_tar(tar, shard)
        if not _covered(rows, tombstones):
            return _AS_IT_WAS
    since = _since(shard, rows, modified)
    return await _Rewriting(bucket, shard, tombstones, since).run(tar, rows)


def arrival(shard: Shard, rows: Iterable[Row], modified: datetime) -> datetime:
    """Return when the faces of a shard had arrived.

    That is the bucket's word, as for an object of its own. Of a shard that was written anew it is the name's,
    which was not made by any clock then; a name that lies in the future is not believed.
    """
    rewritten = shard.nonce in {_nonce(rows, salt) for salt in range(_TRIES)}
    return min(shard.closed, modified) if rewritten else modified


def _since(shard: Shard, rows: Sequence[Row], modified: datetime | None) -> datetime:
    """Return the time of closing that the new name bears: the old one's, where it can be right."""
    if modified is None or shard.closed <= modified < shard.closed + _LATE:
        return shard.closed
    return arrival(shard, rows, modified)


def _nonce(rows: Iterable[Row], salt: int) -> str:
    """Return the digits that tell a shard of these faces from others."""
    lines = "\n".join(f"{row.id} {row.sha256}" for row in rows)
    return hashlib.sha256(f"{salt}\n{lines}".encode()).hexdigest()[:8]


def _covered(rows: Iterable[Row], tombstones: Tombstones) -> list[Row]:
    """Return the lines of erased faces, and of whatever else has the bytes of one."""
    every = list(rows)
    gone = {row.sha256 for row in every if row.erased_by(tombstones)}
    return [row for row in every if row.sha256 in gone]


class _Rewriting:
    """One shard on its way to another name."""

    def __init__(self, bucket: Bucket, shard: Shard, tombstones: Tombstones, since: datetime) -> None:
        self._bucket = bucket
        self._old = shard
        self._base = replace(shard, closed=since.replace(microsecond=0))
        self._tombstones = tombstones

    async def run(self, tar: bytes, rows: Sequence[Row]) -> Rewritten:
        """Write what stays until no tombstone covers any of it, then delete what was."""
        in_vain: list[Shard] = []
        while True:
            gone = _covered(rows, self._tombstones)
            hashes = {row.sha256 for row in gone}
            made = await asyncio.to_thread(carry, tar, [row for row in rows if row.sha256 not in hashes])
            await self._tombstones.refresh(age_s=AGE_S)
            if _covered(made.rows, self._tombstones):
                continue
            if not made.rows:
                break
            now = await self._put_tar(made)
            await self._tombstones.refresh(age_s=AGE_S)
            if not _covered(made.rows, self._tombstones):
                await self._put_catalogue(now, made)
                await self._tombstones.refresh(age_s=0)
                if not _covered(made.rows, self._tombstones):
                    break
            in_vain.append(now)
        for one in (*in_vain, self._old):
            await remove(self._bucket, one)
        self._tell(made, gone)
        return Rewritten(gone=gone, tar=self._old.tar, unsound=made.unsound, astray=made.astray)

    async def _put_tar(self, made: Carried) -> Shard:
        """Write a tar, or find the same bytes under its name."""
        for salt in range(_TRIES):
            shard = replace(self._base, nonce=_nonce(made.rows, salt))
            if shard != self._old and await self._is_there(shard.tar, made.tar):
                return shard
        raise BucketError(self._old.tar, "it cannot be written anew: other tars have the names", "refused")

    async def _is_there(self, key: str, data: bytes) -> bool:
        """Create an object; False where there is one of other bytes."""
        for _ in range(_TRIES):
            if await self._bucket.put_new(key, data, content_type=TAR):
                return True
            try:
                return await self._bucket.get(key, max_bytes=len(data)) == data
            except MissingError:
                continue  # deleted between the two, by who erases from it
            except BucketError as error:
                if error.fault != "too-large":
                    raise
                return False
        raise BucketError(key, "others write and delete it all the time: ask again")

    async def _put_catalogue(self, shard: Shard, made: Carried) -> None:
        """Write a catalogue, over one that does not say the same."""
        data = await asyncio.to_thread(catalogue.write, made.rows, tar=shard.tar)
        if await self._bucket.put_new(shard.catalogue, data, content_type=PARQUET):
            return
        if await listed(self._bucket, shard) != made.rows:
            await self._bucket.put(shard.catalogue, data, content_type=PARQUET)

    def _tell(self, made: Carried, gone: Sequence[Row]) -> None:
        log.info("%s: written anew without %d faces; %d stay", self._old.tar, len(gone), len(made.rows))
        if made.unsound:
            form = "%s: %d faces have other bytes than their line says: kept as they were"
            log.error(form, self._old.tar, made.unsound)
        if made.astray:
            log.error("%s: %d lines led to no face of theirs: they are gone", self._old.tar, made.astray)


async def remove(bucket: Bucket, shard: Shard) -> None:
    """Delete a shard: its catalogue first, so that no reader is led to what is not there.

    A tar that is left alone when this is cut off is found by its own name.

    Raises:
        BucketError: the bucket failed; asking again is safe.
    """
    await bucket.delete(shard.catalogue)
    await bucket.delete(shard.tar)


async def _dangling(bucket: Bucket, shard: Shard, tombstones: Tombstones) -> Rewritten:
    """Delete a catalogue that names an erased face, and has no tar.

    Whoever deletes a tar has deleted its catalogue before, and has put its faces elsewhere before that: one
    that is there all the same was written late, or the tar was taken away by somebody else.
    """
    rows = await listed(bucket, shard) or ()
    gone = _covered(rows, tombstones)
    if not gone:
        return _AS_IT_WAS
    log.error(
        "%s: its tar is not there: deleted, for it names erased faces (%d lines)", shard.catalogue, len(rows)
    )
    await bucket.delete(shard.catalogue)
    return Rewritten(gone=gone)
