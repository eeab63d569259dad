"""The capture role over a long time: what came and went leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import servers
from facerelay.commands.running import connector
from facerelay.config import Config
from facerelay.edge.cameras import posted
from facerelay.edge.capture import capture
from facerelay.edge.watcher import Watcher


def picture(value: int) -> bytes:
    done, data = cv2.imencode(".png", np.full((48, 64, 3), value, np.uint8))
    assert done
    return data.tobytes()


def at_work() -> set[str]:
    return {each.name for each in threading.enumerate() if isinstance(each, Watcher)}


def kept() -> int:
    gc.collect()
    return len([each for each in gc.get_objects() if isinstance(each, Watcher)])


def test_cameras_that_lost_their_place_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posted, "RELEASE_S", 0.0)
    monkeypatch.setattr(posted, "MOST_CAMERAS", 1)

    async def check(server: servers.Server) -> None:
        config = Config.model_validate(
            {
                "broker": {"url": server.url},
                "camera": [{"name": "hall", "source": "mqtt:hall/+"}],
                "outbox": {"path": str(tmp_path / "outbox.db")},
            }
        )
        before, stop = kept(), asyncio.Event()
        role = asyncio.create_task(capture(config, connector(config), stop=stop))
        poster = connector(config)(client_id="poster", subscribe=[], clean=True, window=8)

        async def appears(number: int) -> None:
            """Post until the role, which may not have subscribed yet, has a camera of it and of it alone."""
            until = time.monotonic() + 60
            while at_work() != {f"camera hall-{number}"} and not role.done():
                assert time.monotonic() < until, "no camera is made of it"
                await poster.publish(f"hall/{number}", picture(number), qos=1)
                await asyncio.sleep(0.2)

        async with poster:
            await poster.wait_connected()
            try:
                for number in range(8):
                    await appears(number)
                assert not role.done()
                assert kept() - before <= 2
            finally:
                stop.set()
                await role

    with servers.mosquitto() as server:
        asyncio.run(check(server))
