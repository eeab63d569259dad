"""Sites, as many as a process is given: each an outbox on disk, relayed as the capture role does it.

`python -m bench.fleet.sites PLAN`. It says `ready` once a face of each site has its receipt; a line on stdin
begins the play; it says `given` when all is offered, `answered` when no face waits; the end of stdin ends it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import sys
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.faces import picture, say
from bench.fleet.plan import OUTBOX, Part, Place
from facerelay import face
from facerelay.commands import running
from facerelay.config import Config
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.edge.reserve import BYTES

CAMERA: Final = "door"
_DIALS_PER_S: Final = 100
_LOOK_S: Final = 0.2


class Stage:
    """Where all sites of a process wait for one another.

    Attributes:
        go: begin to play.
        leave: end.
    """

    def __init__(self, sites: int) -> None:
        self._sites = sites
        self._left = 0
        self._done = asyncio.Event()
        self.go = asyncio.Event()
        self.leave = asyncio.Event()

    def done(self) -> None:
        """One of them has come to the end of its part."""
        self._left += 1
        if self._left == self._sites:
            self._left = 0
            self._done.set()

    async def all_done(self) -> None:
        """Return once all have."""
        await self._done.wait()
        self._done.clear()


class Site:
    """One site with one camera: its faces come at a rate, each a little before or after its time."""

    def __init__(self, place: Place, part: Part, jpeg: bytes) -> None:
        self._part = part
        self._jpeg = jpeg
        self._dice = random.Random(f"{part.seed} {place.site}")  # noqa: S311 - a play, to be repeated
        self._config = Config.model_validate(
            {
                "site": place.site,
                "direct": True,
                "broker": {"url": f"mqtt://127.0.0.1:{place.port}"},
                "outbox": {"path": Path(part.folder) / OUTBOX.format(site=place.site), "sync": "normal"},
            }
        )
        self.name = place.site
        self.offered = self.failed = 0

    async def live(self, stage: Stage) -> None:
        """Open the outbox and relay it; play when told to; leave when told to."""
        _sparse_reserve(self._config.outbox.path)
        with open_outbox(self._config) as outbox:
            async with relaying(self._config, outbox, running.connector(self._config)):
                self._offer(outbox)
                await _answered(outbox)
                stage.done()
                await stage.go.wait()
                await self._play(outbox)
                stage.done()
                await _answered(outbox)
                stage.done()
                await stage.leave.wait()

    async def _play(self, outbox: Outbox) -> None:
        loop = asyncio.get_running_loop()
        begin, every = loop.time(), 1 / self._part.rate
        phase = self._dice.random()
        for number in range(round(self._part.rate * self._part.play_s)):
            due = begin + (number + (phase + self._dice.random() / 2) % 1) * every
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._offer(outbox)

    def _offer(self, outbox: Outbox) -> None:
        at = time.time()
        self.offered += 1
        known = face.Face(
            id=face.new_id(), outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=self.name,
            camera=CAMERA, time=datetime.fromtimestamp(at, UTC), box=(400, 200, 120, 120), frame=(1280, 720),
            score=0.9, quality=self._dice.random(), track=self.offered,
        )  # fmt: skip
        outbox.put(face.freeze(known, self._jpeg), chosen=at).add_done_callback(self._kept)

    def _kept(self, put: Future[None]) -> None:
        self.failed += put.exception() is not None


def _sparse_reserve(outbox: Path) -> None:
    """Stand in for the room that an outbox keeps back: a thousand on one disk have no use for theirs."""
    with outbox.with_name(outbox.name + ".reserve").open("wb") as file:
        file.truncate(BYTES)


async def _answered(outbox: Outbox) -> None:
    while await asyncio.wrap_future(outbox.waiting()):  # noqa: ASYNC110 - the outbox has no event
        await asyncio.sleep(_LOOK_S)


def _note(offered: dict[str, int], path: Path) -> None:
    path.write_text(json.dumps(offered), encoding="utf-8")


async def _say_when(stage: Stage, word: str) -> None:
    await stage.all_done()
    say(word)


async def main(part: Part) -> None:
    """Play a part."""
    jpeg = picture()
    sites = [Site(place, part, jpeg) for place in part.places]
    stage = Stage(len(sites))
    async with asyncio.TaskGroup() as group:
        for site in sites:
            group.create_task(site.live(stage))
            await asyncio.sleep(1 / _DIALS_PER_S)
        await stage.all_done()
        gc.collect()
        gc.freeze()  # one site alone has no heap of a hundred to be looked over
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        stage.go.set()
        await _say_when(stage, "given")
        await _say_when(stage, "answered")
        _note({site.name: site.offered for site in sites}, Path(part.offered))
        assert not any(site.failed for site in sites), "a disk did not take a face"
        await asyncio.to_thread(sys.stdin.readline)
        stage.leave.set()


if __name__ == "__main__":
    running.follow(os.getppid())
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    asyncio.run(main(Part.from_dict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
