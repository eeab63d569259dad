"""Faults on the real chain: each raises its alarm on the operator's view, and clears it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cameras
import servers
from conftest import Make
from facerelay import alarms
from facerelay.alarms import Report
from facerelay.cloud import ledgers, store
from facerelay.cloud.gallery import health, serve_gallery
from facerelay.cloud.history import diary
from facerelay.commands import books
from facerelay.commands.running import connector
from facerelay.config import Config
from facerelay.edge import flights, teller
from facerelay.edge.capture import open_outbox
from facerelay.edge.eyes.detect import configured
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.edge.watcher import Watcher
from facerelay.link.forward import forward
from faults.link_proxy import LinkProxy
from servers import free_port


@asynccontextmanager
async def running(*roles: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(role) for role in roles]
    try:
        yield tasks
        assert not any(task.done() for task in tasks), tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Chain:
    """An edge's outbox, its relay, a watched camera, and the page's answers."""

    def __init__(self, outbox: Outbox, make: Make, port: int) -> None:
        self.outbox = outbox
        self._make = make
        self._port = port

    async def capture(self, n: int) -> None:
        faces = [
            self._make(outbox=self.outbox.id, run=self.outbox.run, seq=self.outbox.number()) for _ in range(n)
        ]
        for face in faces:
            await asyncio.wrap_future(self.outbox.put(face, chosen=time.time()))

    async def ask(self, path: str = "") -> Any:  # noqa: ANN401 - whatever JSON can hold
        with suppress(OSError):  # it has only begun
            return await asyncio.to_thread(self._ask, path)
        return {}

    def _ask(self, path: str) -> Any:  # noqa: ANN401 - as above
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/health{path}", timeout=20) as found:
            return json.load(found)

    async def until(self, true: Callable[[Any], object]) -> Any:  # noqa: ANN401 - as above
        """Wait until the page's answer is such, and return it."""
        end = time.monotonic() + 60
        while not (("verdict" in (now := await self.ask())) and true(now)):
            assert time.monotonic() < end, json.dumps(now, indent=1)
            await asyncio.sleep(0.2)
        return now


def alarmed(now: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can hold
    return {alarm["kind"]: alarm for alarm in now["alarms"]}


def test_faults_on_the_real_chain_raise_alarms_and_clear_them(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera goes and comes back; the link is cut, the outbox runs full, and the link comes back."""
    for module, name, value in (
        (teller, "_EVERY_S", 0.5), (ledgers, "_BOOKS_EVERY_S", 0.3), (diary, "EVERY_S", 0.3),
        (alarms, "SILENT_S", 4.0), (health, "_BOOKS_S", 0.2), (health, "_HISTORY_S", 0.2),
        (flights, "_SILENCE", 1.0),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    size = len(make_face().data)
    port = free_port()

    async def scenario(camera: cameras.Camera, edge: servers.Server, cloud: servers.Server) -> None:
        proxy = LinkProxy(cloud.port)
        await proxy.start()
        here = Config.model_validate({
            "site": "home", "broker": {"url": edge.url}, "cloud": {"url": f"mqtt://127.0.0.1:{proxy.port}"},
            "outbox": {"path": tmp_path / "outbox.db", "max_bytes": 4 * size + size // 2, "overdue_s": 0.5},
            "camera": [{"name": "door", "source": camera.url}],
        })  # fmt: skip
        there = Config.model_validate({
            "broker": {"url": cloud.url}, "bucket": {"url": f"file://{tmp_path / 'bucket'}"},
            "gallery": {"port": port, "cache": tmp_path / "cache"},
        })  # fmt: skip
        carry = forward(
            edge=here.broker, cloud=here.cloud or here.broker, site="home", faces="faces/+/+", qos=1,
            delivery="receipt", window=64, max_message=10**6,
        )  # fmt: skip
        halt = threading.Event()
        with open_outbox(here) as outbox:
            watcher = Watcher(
                here.camera[0], config=here, detector=configured(here.detect), outbox=outbox, stop=halt
            )
            watcher.start()
            try:
                roles = running(carry, store.serve_store(there, connector(there)), serve_gallery(there))
                async with roles, relaying(here, outbox, connector(here)):
                    await faults(Chain(outbox, make_face, port), camera, proxy)
            finally:
                halt.set()
                await asyncio.to_thread(watcher.join, 10)
                await proxy.close()

    async def faults(chain: Chain, camera: cameras.Camera, proxy: LinkProxy) -> None:
        await chain.capture(2)
        now = await chain.until(
            lambda now: not now["alarms"] and now["cameras"] and now["cameras"][0]["counts"]["stored"] == 2
        )
        assert now["verdict"] == {"level": "good", "words": "Nothing is lost, late or dark."}
        camera.kill()
        now = await chain.until(lambda now: "dark" in alarmed(now))
        assert alarmed(now)["dark"]["severity"] == "critical"
        assert "home/door has given no picture since" in alarmed(now)["dark"]["words"]
        assert now["verdict"]["words"].endswith("home/door is dark.")
        camera.start()
        await chain.until(lambda now: "dark" not in alarmed(now))
        proxy.set("reset")
        await chain.until(lambda now: "silent" in alarmed(now))
        await chain.capture(9)  # four have room
        proxy.set("up")
        now = await chain.until(lambda now: set(alarmed(now)) == {"dropped"})
        assert alarmed(now)["dropped"]["words"].startswith("5 faces of home/door dropped in the last day")
        now = await chain.until(lambda now: now["cameras"][0]["counts"]["stored"] == 6)
        assert now["cameras"][0]["share"] == pytest.approx(6 / 11)
        past = await chain.ask(
            f"/period?hours=3&start={datetime.now(UTC) - timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
        )
        assert past["verdict"]["words"].startswith("Yes: 5 faces of 11 captured were lost: 5 gave way")
        assert sum(loss["n"] for loss in past["losses"]) == 5
        assert {loss["code"] for loss in past["losses"]} == {"evicted"}

    with cameras.mjpeg(tmp_path) as camera, servers.nats() as edge, servers.nats() as cloud:
        asyncio.run(scenario(camera, edge, cloud))


def watched(folder: Path, source: str) -> tuple[Outbox, Watcher, threading.Event]:
    settings = Config.model_validate(
        {"outbox": {"path": folder / "outbox.db"}, "camera": [{"name": "door", "source": source}]}
    )
    outbox, halt = open_outbox(settings), threading.Event()
    detector = configured(settings.detect)
    return (
        outbox,
        Watcher(settings.camera[0], config=settings, detector=detector, outbox=outbox, stop=halt),
        halt,
    )


def dark_since(outbox: Outbox) -> datetime | None:
    account = outbox.ledger().result().cameras.get("home/door")
    return account.dark_since if account else None


def test_a_camera_that_cannot_be_opened_is_dark_until_capture_begins_anew(tmp_path: Path) -> None:
    outbox, watcher, _ = watched(tmp_path, str(tmp_path / "none.mp4"))
    with outbox:
        watcher.run()
        assert watcher.failure is not None
        since = dark_since(outbox)
        assert since is not None
        assert abs((datetime.now(UTC) - since).total_seconds()) < 60
        (alarm,) = alarms.find([Report("home", outbox.ledger().result())], now=datetime.now(UTC))
        assert alarm.kind == "dark"
        assert books.read(outbox.path).cameras["home/door"].dark_since == since  # beside its owner
    with watched(tmp_path, "scene")[0] as again:
        assert dark_since(again) is None


def test_a_recording_that_ends_leaves_no_camera_dark(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "shot-1.png"), np.zeros((64, 64, 3), np.uint8))
    outbox, watcher, _ = watched(tmp_path, str(tmp_path / "shot-%d.png"))
    with outbox:
        watcher.run()
        assert watcher.failure is None
        assert outbox.ledger().result().cameras["home/door"].frames == 1
        assert dark_since(outbox) is None


@pytest.mark.parametrize("note", ["dark/home", "dark/../x", "dark/home/door/x", "dark/Home/door"])
def test_a_note_that_makes_no_sense_darkens_nothing(tmp_path: Path, note: str) -> None:
    outbox, _, _ = watched(tmp_path, "scene")
    with outbox:
        outbox.note(note, "1").result()
        outbox.note("dark/home/door", "soon").result()
        assert outbox.ledger().result().cameras == {}
