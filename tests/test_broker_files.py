"""What lies in a broker's files of a face that everybody has acknowledged: nothing, within a stated time."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import servers
from chains import eventually
from facerelay.config import Broker
from facerelay.link.mosquitto import mosquitto_listener
from facerelay.link.session import Session

FACES = 40


def holding(folder: Path, needles: list[bytes]) -> int:
    """Count the pictures of which a piece lies in a folder's files."""
    count = 0
    for path in folder.rglob("*"):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue
        count += sum(needle in data for needle in needles)
    return count


def subscriber(broker: Broker) -> Session:
    return Session(
        broker,
        client_id="store",
        subscribe=[("faces/#", 1)],
        clean=False,
        window=FACES,
        max_message=1_000_000,
    )


async def queue(broker: Broker) -> list[bytes]:
    """Publish while the subscriber is away; return a piece of each picture."""
    async with subscriber(broker) as store:
        await store.wait_connected()
    faces = [os.urandom(9000) for _ in range(FACES)]
    async with Session(broker, client_id="edge", subscribe=(), max_message=1_000_000) as edge:
        await edge.wait_connected()
        for face in faces:
            await edge.publish("faces/home/door", face, qos=1)
    return [face[4000:4032] for face in faces]


async def take(broker: Broker) -> None:
    async with subscriber(broker) as store:
        taken = 0
        async for message in store:
            message.ack()
            taken += 1
            if taken == FACES:
                break
        await asyncio.sleep(0.2)


def test_the_embedded_broker_gives_up_its_blocks_with_the_last_answer() -> None:
    with servers.nats() as server:
        broker = Broker(url=server.url)
        pieces = asyncio.run(queue(broker))
        assert holding(server.state, pieces) == FACES
        asyncio.run(take(broker))
        eventually(lambda: holding(server.state, pieces) == 0)


def test_mosquittos_file_is_written_anew_within_its_interval() -> None:
    with servers.mosquitto(extra_conf="autosave_interval 1\n") as server:
        assert server.process is not None
        broker = Broker(url=server.url)
        pieces = asyncio.run(queue(broker))
        server.process.send_signal(signal.SIGUSR1)
        eventually(lambda: holding(server.state, pieces) == FACES)
        asyncio.run(take(broker))
        eventually(lambda: holding(server.state, pieces) == 0)


def test_our_mosquitto_has_an_interval_of_a_minute(tmp_path: Path) -> None:
    text = mosquitto_listener(Broker(), data=tmp_path, max_message=1_000_000)
    assert "autosave_interval 60" in text.splitlines()


@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
def test_an_end_and_a_start_bring_nothing_back(kind: str) -> None:
    with servers.nats() if kind == "embedded" else servers.mosquitto() as server:
        broker = Broker(url=server.url)
        pieces = asyncio.run(queue(broker))
        server.stop()
        assert holding(server.state, pieces) == FACES  # else the rest would show nothing
        server.start()
        asyncio.run(take(broker))
        server.stop()
        assert holding(server.state, pieces) == 0
