"""Capture ready faces at a rate, and relay them: what cameras do, with known pictures. Run as a process."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from facerelay import face, settings
from facerelay.commands.running import connector
from facerelay.edge.capture import open_outbox
from facerelay.edge.relaying import relaying


def picture(number: int) -> bytes:
    """Return the JPEG of a face with its number on it."""
    image = np.random.default_rng(number).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    cv2.putText(image, str(number), (2, 30), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255))
    return cv2.imencode(".jpg", image)[1].tobytes()


async def feed(path: Path, count: int, rate: float) -> None:
    config = settings.load(path)
    with open_outbox(config) as outbox:
        async with relaying(config, outbox, connector(config)):
            begin = time.monotonic()
            for number in range(count):
                known = face.Face(
                    id=face.new_id(), outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=config.site,
                    camera="door", time=datetime.now(UTC), box=(0, 0, 48, 64), frame=(48, 64),
                    score=0.9, quality=0.5,
                )  # fmt: skip
                await asyncio.wrap_future(outbox.put(face.freeze(known, picture(number)), chosen=time.time()))
                await asyncio.sleep(max(0.0, begin + (number + 1) / rate - time.monotonic()))
            while await asyncio.wrap_future(outbox.waiting()):
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(feed(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
