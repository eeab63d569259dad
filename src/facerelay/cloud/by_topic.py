"""Erase what has no owner, by the topic it came by: pictures of foreign clients, unreadable messages."""

from __future__ import annotations

import asyncio
from typing import Final

from facerelay.cloud import foreign, proofs, quarantine
from facerelay.cloud.contract import LONGEST_PUT_S, Bucket
from facerelay.cloud.erase import Erased, delete_all, proved, wait_for_puts
from facerelay.cloud.survey import Survey, counted
from facerelay.cloud.tombstones import AGE_S
from facerelay.steps import Watch, unwatched

_AT_ONCE: Final = 32


async def erase(
    bucket: Bucket,
    topic: str,
    *,
    longest_put: float = LONGEST_PUT_S,
    watch: Watch = unwatched,
    sign: proofs.Sign | None = None,
) -> Erased:
    """Erase what has no owner and came by a topic: pictures of foreign clients, unreadable messages.

    The same bytes stay away when they are sent again; other pictures of that topic are kept as before.

    Raises:
        BucketError: the bucket failed; asking again is safe.
    """
    meant = await _of_topic(bucket, topic)
    hashes = sorted({*meant.values()})
    tombstones: list[str] = []
    for at in range(0, len(hashes), _AT_ONCE):
        some = hashes[at : at + _AT_ONCE]
        tombstones += await asyncio.gather(*(foreign.bury(bucket, each) for each in some))
    await delete_all(bucket, [*meant], watch=watch)
    await wait_for_puts(longest_put + AGE_S if longest_put else 0, watch)
    again = await _of_topic(bucket, topic)
    second = [key for key, sha256 in again.items() if sha256 in meant.values()]
    await delete_all(bucket, second, watch=watch)
    return await proved(bucket, proofs.asked(topic=topic), tombstones, ([*meant], second), sign=sign)


async def survey(bucket: Bucket, topic: str) -> Survey:
    """Count what an erasure by topic would delete; nothing is written.

    Raises:
        BucketError: the bucket cannot be read.
    """
    return counted([(key, topic) for key in await _of_topic(bucket, topic)])


async def _of_topic(bucket: Bucket, topic: str) -> dict[str, str]:
    """Return the keys of what came by a topic and has no owner, and the sha256 of each message."""
    there: dict[str, str] = {}
    async for entry in bucket.list(foreign.prefix(topic)):
        there[entry.key] = entry.key.rpartition("/")[2].partition(".")[0]
    async for note in quarantine.notes(bucket):
        if note.face is None and note.topic == topic:
            there |= dict.fromkeys(note.keys, note.sha256)
    return there
