"""A TCP balancer before a cluster, for tests: in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.balancer import Balancer

from servers import free_port


@contextmanager
def balancer(ports: Sequence[int]) -> Iterator[int]:
    """Run one; yields its port."""
    one = Balancer(free_port(), ports)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with await one.start():
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield one.port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
