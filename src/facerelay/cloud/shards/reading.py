"""What is in a shard: by its catalogue, or by its tar where that fails."""

from __future__ import annotations

import asyncio
import logging

from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.cloud.shards import catalogue, unpack
from facerelay.cloud.shards.names import MOST_CATALOGUE_BYTES, Shard
from facerelay.cloud.shards.row import Row

log = logging.getLogger(__name__)


async def listed(bucket: Bucket, shard: Shard) -> list[Row] | None:
    """Return the lines of a shard's catalogue; None where there is none, or where it is not one.

    Raises:
        BucketError: the bucket failed.
    """
    try:
        data = await bucket.get(shard.catalogue, max_bytes=MOST_CATALOGUE_BYTES)
        return await asyncio.to_thread(catalogue.read, data, tar=shard.tar)
    except MissingError:
        return None
    except catalogue.CatalogueError as error:
        log.error("%s: %s: its tar is read instead", shard.catalogue, error)  # noqa: TRY400 - no traceback needed
        return None
    except BucketError as error:
        if error.fault != "too-large":
            raise
        log.error("%s: its tar is read instead", error)  # noqa: TRY400 - as above
        return None


async def read_tar(tar: bytes, shard: Shard) -> list[Row]:
    """Return the lines of a tar's faces, from the tar itself; none where it is no shard of ours."""
    try:
        return await asyncio.to_thread(unpack.rows, tar, arrived=shard.closed)
    except unpack.TarError as error:
        log.error("%s: no shard of facerelay's, and left as it is: %s", shard.tar, error)  # noqa: TRY400 - as above
        return []
