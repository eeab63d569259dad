"""Offer more faces than a thin line carries, encoded as a camera's thread does it.

`python -m bench.thin_feed CONFIG SECONDS RATE` says `ready`, `begin`, `given`, `answered`.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from bench.faces import CAMERA, SITE, say
from facerelay import face, settings
from facerelay.commands import running
from facerelay.edge.cameras.raster import Image
from facerelay.edge.capture import open_outbox
from facerelay.edge.eyes.freeze import encode_face
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.edge.thrift import Thrift
from facerelay.sections import PictureFormat

_SIDE = 208
_BLUR = 2.2
"""Such noise has about 8 kB as a JPEG of quality 90, as a face of that size has."""

_ANSWERED_S = 120.0


def main() -> None:
    config, seconds, rate = sys.argv[1:]
    running.set_up_log(verbose=False)
    asyncio.run(_feed(Path(config), float(seconds), float(rate)))


async def _feed(path: Path, seconds: float, rate: float) -> None:
    config = settings.load(path)
    thrift = Thrift(min_quality=config.uplink.min_quality, min_side=config.uplink.min_side)
    offer = _Offer(thrift, config.picture, config.limits.message_bytes)
    with open_outbox(config) as outbox:
        async with relaying(config, outbox, running.connector(config), thrift=thrift):
            say("ready")
            await offer.one(outbox)
            await _answered(outbox)
            say("begin")
            begin = time.time()
            for n in range(round(seconds * rate)):
                await asyncio.sleep(max(0, begin + n / rate - time.time()))
                await offer.one(outbox)
            say("given")
            await _answered(outbox)
            say("answered")


class _Offer:
    """Faces of random quality, the same in every run."""

    def __init__(self, thrift: Thrift, form: PictureFormat, most: int) -> None:
        self._thrift = thrift
        self._form = form
        self._most = most
        self._random = random.Random(1)  # noqa: S311 - the same in every run
        noise = np.random.default_rng(1).integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)
        self._image: Image = cv2.GaussianBlur(noise, (0, 0), _BLUR)  # type: ignore[assignment]

    async def one(self, outbox: Outbox) -> None:
        """Offer one."""
        form, thinned = self._thrift.encoding(self._form, _SIDE)
        known = face.Face(
            id=face.new_id(), outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=SITE, camera=CAMERA,
            time=datetime.now(UTC), box=(400, 200, 130, 130), frame=(1280, 720), score=0.9,
            quality=self._random.random(), thinned=thinned,
        )  # fmt: skip
        frozen = encode_face(known, self._image, form=form, most=self._most)
        await asyncio.wrap_future(outbox.put(frozen, chosen=time.time()))
        if thinned is not None:
            outbox.count(SITE, CAMERA, **{"picture:thinned": 1})


async def _answered(outbox: Outbox) -> None:
    async with asyncio.timeout(_ANSWERED_S):
        while await asyncio.wrap_future(outbox.waiting()):  # noqa: ASYNC110 - the outbox has no event
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    main()
