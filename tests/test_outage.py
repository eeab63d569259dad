from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import servers
from chains import _role
from conftest import Make, need
from facerelay import settings
from facerelay.commands.bridge import bridge_config
from facerelay.commands.running import connector
from facerelay.config import Config
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.link.session import Session
from facerelay.topics import DOWN, UP, link
from faults.link_proxy import LinkProxy
from waiting import until

BACKLOG = 2_000
LIVE = 20
WINDOW = 128_000
BESIDE = 32_000
"""What a broker keeps besides faces: its own figures, ledgers, receipts."""

BYTES_PER_SECOND = 600_000
HELD = "$SYS/broker/store/messages/bytes"
DROPPED = "$SYS/broker/publish/messages/dropped"


class Watch:
    """What a broker says of itself, and of the link."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {HELD: 0, DROPPED: 0}
        self.link = b""

    async def listen(self, session: Session) -> None:
        async for message in session:
            if message.topic in self.most:
                self.most[message.topic] = max(self.most[message.topic], int(message.payload))
            else:
                self.link = message.payload
            message.ack()


def configure(folder: Path, edge: int, cloud: int, line: int) -> Config:
    """Write the settings of both sides, and return the edge's."""
    url = "mqtt://127.0.0.1:{}".format
    values: dict[str, dict[str, Any]] = {
        "edge": {"site": "home", "broker": {"url": url(edge)}, "cloud": {"url": url(line)},
                 "outbox": {"window_bytes": WINDOW}, "uplink": {"bytes_per_second": BYTES_PER_SECOND}},
        "cloud": {"broker": {"url": url(cloud)}, "bucket": {"url": "file://bucket"}},
    }  # fmt: skip
    for side, names in (("edge", settings.EDGE), ("cloud", settings.CLOUD)):
        (folder / f"{side}.toml").write_text(settings.template(names, values[side]))
    return settings.load(folder / "edge.toml", environ={})


class Chain:
    """Two Mosquittos with no limit set, the line between them, the link and the store."""

    def __init__(self, config: Config, line: LinkProxy) -> None:
        self.config, self.line = config, line
        self.at_edge, self.at_cloud = Watch(), Watch()


@asynccontextmanager
async def chain(folder: Path, kind: str) -> AsyncIterator[Chain]:
    need("mosquitto")
    async with AsyncExitStack() as stack:
        cloud = stack.enter_context(servers.mosquitto(extra_conf="sys_interval 1\n"))
        line = LinkProxy(cloud.port)
        await line.start()
        stack.push_async_callback(line.close)
        port = servers.free_port()
        config = configure(folder, port, cloud.port, line.port)
        bridge = bridge_config(config) if kind == "bridge" else ""
        edge = stack.enter_context(servers.mosquitto(port, f"sys_interval 1\n{bridge}"))
        roles = [("store", "cloud"), *([("forward", "edge")] if kind == "forward" else [])]
        for name, side in roles:
            part = _role(folder, name, side)
            part.start()
            stack.callback(part.end)
        found = Chain(config, line)
        for server, watch in ((edge, found.at_edge), (cloud, found.at_cloud)):
            topics = [(HELD, 0), (DROPPED, 0), (link("home"), 1)]
            session = connector(config, config.broker.model_copy(update={"url": server.url}))(
                client_id="watch", subscribe=topics, clean=True, window=100
            )
            await stack.enter_async_context(session)
            task = asyncio.create_task(watch.listen(session))
            stack.callback(task.cancel)
        yield found


@pytest.mark.parametrize("kind", ["forward", "bridge"])
def test_after_an_outage_live_faces_arrive_before_the_backlog_and_nothing_is_lost(
    kind: str, tmp_path: Path, make_face: Make
) -> None:
    offered: dict[str, list[str]] = {"live": [], "backlog": []}
    small = cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8))[
        1
    ].tobytes()

    async def capture(outbox: Outbox, step: str, *times: float) -> None:
        kept = [asyncio.wrap_future(put(outbox, step, at)) for at in times]
        await asyncio.gather(*kept)

    def put(outbox: Outbox, step: str, at: float) -> Future[None]:
        known = {"outbox": outbox.id, "run": outbox.run, "seq": outbox.number()}
        frozen = make_face(small, time=datetime.fromtimestamp(at, UTC), **known)
        offered[step].append(frozen.sha256)
        return outbox.put(frozen, chosen=at)

    async def answered(outbox: Outbox) -> None:
        async with asyncio.timeout(60):
            while await asyncio.wrap_future(outbox.waiting()):
                await asyncio.sleep(0.05)

    async def check() -> Chain:
        async with chain(tmp_path, kind) as c:
            with open_outbox(c.config) as outbox:
                async with relaying(c.config, outbox, connector(c.config)):
                    await until(lambda: c.at_edge.link == UP)
                    c.line.set("reset")
                    await until(lambda: c.at_edge.link == DOWN)
                    now = time.time()
                    hour = [now - 3600 * (BACKLOG - n) / BACKLOG for n in range(BACKLOG)]
                    await capture(outbox, "backlog", *hour)
                    c.line.set("up")
                    await until(lambda: c.at_edge.link == UP)
                    for _ in range(LIVE):
                        await capture(outbox, "live", time.time())
                        await asyncio.sleep(0.05)
                    await answered(outbox)
                books = outbox.ledger().result().cameras["home/door"]
                assert (books.stored, books.waiting, books.dropped) == (BACKLOG + LIVE, 0, 0)
            return c

    found = asyncio.run(check())
    files = [path for path in (tmp_path / "bucket" / "faces").rglob("*") if path.is_file()]
    files.sort(key=lambda path: path.stat().st_ctime_ns)
    order = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert sorted(order) == sorted(offered["live"] + offered["backlog"]), "each once, its bytes equal"
    last = max(order.index(sha256) for sha256 in offered["live"])
    assert last < len(order) - BACKLOG // 10, "live faces waited for the backlog"
    for watch in (found.at_edge, found.at_cloud):
        assert watch.most[DROPPED] == 0
        assert 0 < watch.most[HELD] <= WINDOW + BESIDE
