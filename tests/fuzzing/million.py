"""A million hostile messages to the decoder of faces and to the store: `make hostile`.

Every message goes through `face.parse`, then through a `Keeper` with a folder in memory; a share of them
through a Mosquitto to a `facerelay store` of its own. The measures: an exception of any other kind than
those promised, the CPU time of the slowest message (tried again, to tell the machine's noise apart), and
the growth of memory after a warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from facerelay import config, face
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.keep import Keeper
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.tombstones import Tombstones
from facerelay.topics import FaceTopic
from fuzzing.mutate import Mutator, bombs, faces

LIMIT_S: Final = 0.1
_AGAIN: Final = 3
_LOOK: Final = 10_000
_WARM: Final = 0.2
_TOPICS: Final = (
    "faces/home/door", "faces/golden/door", "faces/../etc", "faces/a/\r\n\x1b[2J", "faces/A/\u202eb",
    "faces/x",
)  # fmt: skip


@dataclass
class Found:
    """What a run found.

    Attributes:
        messages: how many there were.
        seconds: that took.
        outcomes: how many of each.
        wrong: exceptions of another kind than those promised; the first of each.
        slowest_ms: CPU time of the slowest message, at its fastest try.
        over: messages over the limit in every try.
        grown_kb: memory at the end against that after the warm-up.
    """

    messages: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    slowest_ms: float = 0.0
    over: int = 0
    grown_kb: int = 0

    @property
    def well(self) -> bool:
        """Whether nothing was wrong, and nothing slow."""
        return not self.wrong and not self.over


def hostile(count: int, seed: int) -> Iterator[bytes]:
    """Yield so many hostile messages."""
    mutator = Mutator(seed, faces(), bombs())
    for _ in range(count):
        yield mutator.next()


def resident_kb(pid: int | str = "self") -> int:
    """Return a process's resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4


def decoder(count: int, seed: int) -> Found:
    """Hand messages to the decoder of faces."""
    limits = face.Limits()

    def work(data: bytes) -> str:
        try:
            return face.parse(data, limits).extension
        except face.FaceError as error:
            return error.reason

    found, gauge = Found(), _Gauge(count)
    begin = time.monotonic()
    for data in hostile(count, seed):
        _timed(found, data, work)
        gauge.look(found.messages)
    found.seconds, found.grown_kb = round(time.monotonic() - begin, 1), gauge.grown_kb
    return found


async def store(count: int, seed: int, folder: Path) -> Found:
    """Hand messages to a keeper, one after the other, and empty its bucket now and then."""
    root = folder / "bucket"
    bucket = open_bucket(config.Bucket(url=f"file://{root}"))
    quarantine = Quarantine(bucket, max_bytes=20_000_000, keep=timedelta(days=1))
    keeper = Keeper(
        bucket, limits=face.Limits(), topic=FaceTopic("faces/{site}/{camera}"), quarantine=quarantine,
        tombstones=Tombstones(bucket),
    )  # fmt: skip
    found, gauge = Found(), _Gauge(count)
    begin = time.monotonic()
    for data in hostile(count, seed):
        topic = _TOPICS[len(data) % len(_TOPICS)] if found.messages % 5 == 0 else _TOPICS[0]
        for again in range(_AGAIN):
            start = time.process_time()
            try:
                answer = await keeper.keep(topic, data)
            except Exception as error:  # noqa: BLE001 - any is a finding
                found.wrong.setdefault(repr(error)[:200], data[:64].hex())
            took = time.process_time() - start
            if took <= LIMIT_S:
                break
            found.over += again == _AGAIN - 1
        found.slowest_ms = max(found.slowest_ms, round(took * 1000, 2))
        found.outcomes[answer.receipt.outcome if answer else "no owner"] += 1
        found.messages += 1
        gauge.look(found.messages)
        if found.messages % _LOOK == 0:
            for name in ("faces", "foreign", "quarantine"):
                shutil.rmtree(root / name, ignore_errors=True)
            if found.messages % (5 * _LOOK) == 0:
                await quarantine.sweep()
    found.seconds, found.grown_kb = round(time.monotonic() - begin, 1), gauge.grown_kb
    return found


def _timed(found: Found, data: bytes, work: Callable[[bytes], str]) -> None:
    for again in range(_AGAIN):
        start = time.process_time()
        try:
            outcome = work(data)
        except Exception as error:  # noqa: BLE001 - any is a finding
            outcome = "wrong"
            found.wrong.setdefault(repr(error)[:200], data[:64].hex())
        took = time.process_time() - start
        if took <= LIMIT_S:
            break
        found.over += again == _AGAIN - 1
    found.slowest_ms = max(found.slowest_ms, round(took * 1000, 2))
    found.outcomes[outcome] += 1
    found.messages += 1


class _Gauge:
    """Looks at this process's memory now and then."""

    def __init__(self, count: int) -> None:
        self._warm = count * _WARM
        self._every = max(1, count // 100)
        self._first = self._last = 0

    def look(self, number: int) -> None:
        """Look, if it is time to."""
        if number % self._every == 0:
            self._last = resident_kb()
            if number <= self._warm or not self._first:
                self._first = self._last

    @property
    def grown_kb(self) -> int:
        """The difference to what there was after the warm-up."""
        return self._last - self._first


def main() -> int:
    """Run all, and print what was found as JSON."""
    parser = argparse.ArgumentParser(prog="fuzzing.million", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.05, help="of them, also through a broker (0.05)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", default="/dev/shm", help="where the bucket is made")  # noqa: S108 - memory
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = {"decoder": decoder(options.messages, options.seed)}
    print(json.dumps({"decoder": vars(found["decoder"])}), flush=True)  # noqa: T201 - its result
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="facerelay-hostile-") as made:
        found["store"] = asyncio.run(store(options.messages, options.seed, Path(made)))
    print(json.dumps({"store": vars(found["store"])}), flush=True)  # noqa: T201 - its result
    if count := int(options.messages * options.share):
        from fuzzing.broker import through_a_broker  # noqa: PLC0415 - takes Mosquitto

        with tempfile.TemporaryDirectory(dir=options.folder, prefix="facerelay-hostile-") as made:
            found["broker"] = asyncio.run(through_a_broker(count, options.seed, Path(made)))
        print(json.dumps({"broker": vars(found["broker"])}), flush=True)  # noqa: T201 - its result
    return 0 if all(one.well for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
