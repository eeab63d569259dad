"""Waiting, in a loop, for what must come; and running, beside a test, what never ends by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


async def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds; an assertion error says that it never did."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(role: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a role; it must not have ended when the block does."""
    task = asyncio.create_task(role)
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
