"""Trying again while a bucket fails: at first soon, then seldom, for as long as it takes."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError

REFUSALS: Final = 5
"""So often the bucket may not want one object, before it is asked whether it works at all."""

SAY_EVERY_S: Final = 10.0
_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 10.0
_JITTER: Final = random.Random()  # noqa: S311 - spreads retries, keeps no secret


class Backoff:
    """The pauses between tries: each is about twice the one before."""

    def __init__(self) -> None:
        self._delay = _FIRST_DELAY_S

    async def pause(self) -> None:
        """Wait until the next try is due."""
        await asyncio.sleep(self._delay * _JITTER.uniform(0.5, 1.5))
        self._delay = min(2 * self._delay, _LONGEST_DELAY_S)


async def works(bucket: Bucket) -> bool:
    """Whether the bucket takes anything at all: if not, the fault is not with one object."""
    try:
        await bucket.probe()
    except BucketError:
        return False
    return True
