"""A camera that takes one face for each line it is given, and says what became of it. Run as a process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from facerelay import face, settings
from facerelay.commands.running import connector
from facerelay.edge import reading
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from feeder import picture

STATES = ("stored", "sent", "waiting", "refused", "dropped", "erased")


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _states(outbox: Outbox, path: Path) -> dict[str, list[str]]:
    with closing(reading.open_books(path)) as db:
        return {one.id: [one.state, one.reason or ""] for one in reading.entries(db, outbox.id, STATES)}


async def _take(outbox: Outbox, site: str, number: int) -> face.Frozen:
    known = face.Face(
        id=face.new_id(), outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=site,
        camera="door", time=datetime.now(UTC), box=(0, 0, 48, 64), frame=(48, 64),
        score=0.9, quality=0.5,
    )  # fmt: skip
    made = face.freeze(known, picture(number))
    await asyncio.wrap_future(outbox.put(made, chosen=time.time()))
    return made


async def pump(path: Path) -> None:
    """Answer `face` with the face once it lies in the outbox, `states` with what became of all.

    `ignored` is how many words of stores did not count, by reason.
    """
    config = settings.load(path)
    number = 0
    with open_outbox(config) as outbox:
        async with relaying(config, outbox, connector(config)) as relay:
            _say(outbox=outbox.id, run=outbox.run)
            while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
                if line == "face":
                    number += 1
                    made = await _take(outbox, config.site, number)
                    _say(id=made.face.id, key=made.key, sha256=made.sha256, topic=made.face.camera)
                elif line == "ignored":
                    _say(ignored=dict(relay.pulse.voices.ignored))
                else:
                    _say(states=await asyncio.to_thread(_states, outbox, config.outbox.path))


if __name__ == "__main__":
    asyncio.run(pump(Path(sys.argv[1])))
