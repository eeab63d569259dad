"""What is done in a bucket again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from facerelay.cloud.contract import BucketError

log = logging.getLogger(__name__)

_AGAIN_S: Final = 60.0


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do a work now and then; where the bucket fails, sooner again."""
    while True:
        try:
            await work()
        except BucketError as error:
            log.warning("put off: %s", error)
            await asyncio.sleep(min(seconds, _AGAIN_S))
        else:
            await asyncio.sleep(seconds)
