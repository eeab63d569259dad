"""Hostile messages through a real broker to a real store; the next good face must pass."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from facerelay import face, messages, settings, topics
from facerelay.config import Broker
from facerelay.link.session import Session
from fuzzing.million import Found, hostile, resident_kb
from fuzzing.mutate import Mutator, faces, known, plain
from servers import mosquitto

_AT_ONCE = 40
_CONF = "max_inflight_messages 200\nmax_queued_messages 100000\n"
_TOPICS = (
    "faces/home/door",
    "faces/home/door",
    "faces/golden/door",
    "faces/a b/\u202ec",
    "ledger/home/" + "a" * 32,
)


async def through_a_broker(count: int, seed: int, folder: Path) -> Found:
    """Publish so many messages to a store of its own.

    What is found is wrong where the store fell, logged a traceback, or did not take the next good face.
    """
    with mosquitto(extra_conf=_CONF) as broker:
        path = folder / "cloud.toml"
        values = {
            "broker": {"url": broker.url}, "bucket": {"url": f"file://{folder}/bucket"},
            "store": {"quarantine_bytes": 20_000_000},
        }  # fmt: skip
        path.write_text(settings.template(settings.CLOUD, values), encoding="utf-8")
        command = [sys.executable, "-m", "facerelay", "store", "-c", str(path)]
        log = Log(folder / "store.log")
        process = log.start(command)
        try:
            return await _feed(broker.url, process, count, seed, log)
        finally:
            process.terminate()
            process.wait(30)


async def _feed(url: str, process: subprocess.Popen[bytes], count: int, seed: int, log: Log) -> Found:
    found, first = Found(), 0
    mutator = Mutator(
        seed, [*faces(), json.dumps({"outbox": "a" * 32, "cameras": {"home/door": {}}}).encode()]
    )
    heard = ((topics.receipts("home", "a" * 32), 1), (topics.HELLOS, 1))
    session = Session(
        Broker(url=url), client_id="hostile", subscribe=heard, max_message=300_000, window=2_000
    )
    outcomes: dict[str, str] = {}
    ready = asyncio.Event()

    async def listen() -> None:
        async for message in session:
            message.ack()
            if message.topic.startswith("stores/"):
                ready.set()
                continue
            for receipt in messages.Receipts.from_bytes(message.payload).receipts:
                found.outcomes[receipt.outcome] += 1
                outcomes[receipt.id] = receipt.outcome

    async with session, asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen())
        async with asyncio.timeout(60):
            await ready.wait()
        begin = time.monotonic()
        batch: list[bytes] = []
        for number, data in enumerate(hostile(count, seed), 1):
            batch.append(mutator.next() if number % 7 == 0 else data)
            if len(batch) == _AT_ONCE or number == count:
                each = (
                    session.publish(_TOPICS[at % len(_TOPICS)], one, qos=1) for at, one in enumerate(batch)
                )
                await asyncio.gather(*each)
                batch.clear()
            if number == count // 5:
                first = resident_kb(process.pid)
        good = await _good(session, outcomes)
        found.messages, found.seconds = count, round(time.monotonic() - begin, 1)
        if not good or process.poll() is not None:
            found.wrong["the next good face did not pass"] = log.text()[-2_000:]
        else:
            found.grown_kb = resident_kb(process.pid) - first
        if "Traceback" in (text := log.text()):
            found.wrong["a traceback in the store's log"] = text[text.index("Traceback") :][:2_000]
        listening.cancel()
    return found


async def _good(session: Session, outcomes: dict[str, str]) -> bool:
    """Publish a good face, and wait until it is stored."""
    one = replace(known(1), id=face.new_id(), time=datetime.now(UTC))
    data = face.freeze(one, plain()).data
    for _ in range(600):
        await session.publish("faces/home/door", data, qos=1)
        await asyncio.sleep(0.1)
        if outcomes.get(one.id) == "stored":
            return True
    return False


class Log:
    """Where a process says what it does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process that writes there."""
        with self._path.open("wb") as out:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def text(self) -> str:
        """Return what it said."""
        return self._path.read_text(errors="replace")
