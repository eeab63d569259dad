"""Offer live faces at a rate, and an hour's faces at once, to an outbox that is relayed as capture does it.

`python -m bench.outage_feed CONFIG OFFERED BACKLOG RATE`. Live faces come all the time. Each line on stdin is
the next step: the line dies, the hour's faces come, the line is back; then it says when the backlog is gone.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from bench.faces import CAMERA, SITE, Offered, say
from facerelay import face, settings
from facerelay.commands import running
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying

BEFORE, DEAD, BACKLOG, LIVE, AFTER = "before", "dead", "backlog", "live", "after"
_HOUR_S: Final = 3600.0
_UNCOMMITTED: Final = 500
_LOOK_S: Final = 0.2
_AFTER_S: Final = 3.0
_FEW_S: Final = 2.0


async def main(config_path: str, offered_path: str, backlog: str, rate: str) -> None:
    running.set_up_log(verbose=False)
    config = settings.load(Path(config_path))
    with open_outbox(config) as outbox:
        feeder = Feeder(outbox, Offered(Path(offered_path)), float(rate))
        async with relaying(config, outbox, running.connector(config)):
            live = asyncio.create_task(feeder.live())
            say("ready")
            await _line()
            feeder.step = DEAD
            await _line()
            await feeder.hour(int(backlog))
            say("given")
            await _line()
            feeder.step = LIVE
            await feeder.waits(few=round(float(rate) * _FEW_S))
            say("drained")
            feeder.step = AFTER
            await asyncio.sleep(_AFTER_S)
            live.cancel()
            await feeder.waits(few=0)
            feeder.offered.write()
            say("answered")
            await _line()


async def _line() -> None:
    await asyncio.to_thread(sys.stdin.readline)


class Feeder:
    """Puts faces of about 4 kB into an outbox.

    Attributes:
        step: under which name live faces are noted now.
    """

    def __init__(self, outbox: Outbox, offered: Offered, rate: float) -> None:
        self.step = BEFORE
        self.offered = offered
        self._outbox = outbox
        self._rate = rate
        self._encoded = _picture()

    async def live(self) -> None:
        """Put live faces until cancelled."""
        due = time.time()
        while True:
            now = time.time()
            self._put(self.step, now)
            due += 1 / self._rate
            await asyncio.sleep(due - time.time())

    async def hour(self, count: int) -> None:
        """Put faces of the hour past, in the order of their capture."""
        pending: deque[Future[None]] = deque()
        now = time.time()
        for n in range(count):
            pending.append(self._put(BACKLOG, now - _HOUR_S * (count - n) / count))
            if len(pending) >= _UNCOMMITTED:
                await asyncio.wrap_future(pending.popleft())
        for each in pending:
            await asyncio.wrap_future(each)

    async def waits(self, *, few: int) -> None:
        """Return once no more than a few faces wait."""
        while await asyncio.wrap_future(self._outbox.waiting()) > few:  # noqa: ASYNC110 - the outbox has no event
            await asyncio.sleep(_LOOK_S)

    def _put(self, step: str, at: float) -> Future[None]:
        known = face.Face(
            id=face.new_id(), outbox=self._outbox.id, run=self._outbox.run, seq=self._outbox.number(),
            site=SITE, camera=CAMERA, time=datetime.fromtimestamp(at, UTC), box=(400, 200, 80, 80),
            frame=(1280, 720), score=0.9, quality=0.5,
        )  # fmt: skip
        frozen = face.freeze(known, self._encoded)
        self.offered.note(step, at, frozen)
        return self._outbox.put(frozen, chosen=at)


def _picture() -> bytes:
    """Return a JPEG of blurred noise that makes a face of about 4 kB."""
    noise = np.random.default_rng(1).integers(0, 255, (104, 104, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.2)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
