"""Feed ready faces into an outbox that is relayed as the capture role does it.

`python -m bench.feed CONFIG OFFERED PHASE…`: a line on stdin begins the next phase, its end ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from bench.faces import WARM, Offered, Phase, ready, say
from facerelay import settings
from facerelay.commands import running
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.face import Frozen

_UNCOMMITTED = 500
_WARM_EVERY_S = 0.3
_LOOK_S = 0.02


async def main(config_path: str, offered_path: str, *phases: str) -> None:
    running.set_up_log(verbose=False)
    config = settings.load(Path(config_path))
    with open_outbox(config) as outbox:
        feeder = Feeder(outbox, Offered(Path(offered_path)))
        plan = [(phase, feeder.make(phase.count, phase.cameras)) for phase in map(Phase.parse, phases)]
        async with relaying(config, outbox, running.connector(config)):
            say("ready")
            await feeder.warm_up()
            for phase, faces in plan:
                await feeder.play(phase, faces)
                await asyncio.to_thread(sys.stdin.readline)


class Feeder:
    """Puts faces into an outbox, at a rate or as fast as it takes them."""

    def __init__(self, outbox: Outbox, offered: Offered) -> None:
        self._outbox = outbox
        self._offered = offered
        self._pending: deque[Future[None]] = deque()
        self._made = 0

    def make(self, count: int, cameras: int = 1) -> list[Frozen]:
        """Return ready faces of this outbox."""
        made = ready(
            count, outbox=self._outbox.id, run=self._outbox.run, first=self._made + 1, cameras=cameras
        )
        self._made += count
        return made

    async def warm_up(self) -> None:
        """Send a face now and then until the bench has seen one in the bucket and says so."""
        go = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        while not go.done():
            self._put(WARM, self.make(1)[0])
            await asyncio.wait((go,), timeout=_WARM_EVERY_S)
        self._offered.write()
        await self._answered()

    async def play(self, phase: Phase, faces: list[Frozen]) -> None:
        """Offer a phase's faces, and return once all have their answer."""
        say("begin")
        for frozen, due in zip(faces, phase.due(), strict=True):
            if (wait := due - time.time()) > 0:
                await asyncio.sleep(wait)
            self._put(phase.name, frozen)
            if len(self._pending) >= _UNCOMMITTED:
                await self._committed(_UNCOMMITTED // 2)
        say("given")
        self._offered.write()
        await self._answered()
        say("answered")

    def _put(self, phase: str, frozen: Frozen) -> None:
        now = time.time()
        self._offered.note(phase, now, frozen)
        self._pending.append(self._outbox.put(frozen, chosen=now))

    async def _committed(self, count: int) -> None:
        """Wait for the oldest; they are done in their order, so one is waited for, and all are asked."""
        oldest = [self._pending.popleft() for _ in range(count)]
        for future in reversed(oldest):
            if future.done():
                future.result()
            else:
                await asyncio.wrap_future(future)

    async def _answered(self) -> None:
        await self._committed(len(self._pending))
        while await asyncio.wrap_future(self._outbox.waiting()):  # noqa: ASYNC110 - the outbox has no event
            await asyncio.sleep(_LOOK_S)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
