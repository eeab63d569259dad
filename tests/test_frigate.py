from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import servers
from conftest import Make
from facerelay import settings
from facerelay.commands.running import connector
from facerelay.config import Config
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.scene import Scene
from facerelay.edge.capture import open_outbox
from facerelay.edge.eyes.best import Look
from facerelay.edge.eyes.detect import Detection, make_detector
from facerelay.edge.eyes.watch import Seen
from facerelay.edge.home.announce import Home, announcing
from facerelay.edge.home.frigate import tracked
from facerelay.edge.home.witness import Captured, Ended, News, Witness
from facerelay.edge.watcher import Watcher
from facerelay.face import Frozen
from listening import ear

BEGAN = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIELDS = {
    "id", "camera", "frame_time", "snapshot", "label", "sub_label", "top_score", "false_positive",
    "start_time", "end_time", "score", "box", "area", "ratio", "region", "current_zones", "entered_zones",
    "thumbnail", "has_snapshot", "has_clip", "active", "stationary", "motionless_count", "position_changes",
    "attributes", "current_attributes",
}  # fmt: skip
"""Of `before` and `after` in Frigate's documentation of its events, but for speeds and number plates."""


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    made = servers.mosquitto if request.param == "mosquitto" else servers.nats
    with made() as server:
        yield server


def configured(url: str, folder: Path, **asked: Any) -> Config:  # noqa: ANN401 - any setting
    return Config.model_validate(
        {
            "broker": {"url": url},
            "outbox": {"path": str(folder / "outbox.db")},
            "frigate": {"enabled": True, **asked},
        }
    )


class Camera:
    """A camera's thread, by hand: who is looked at, whose face is captured, whose visit ends."""

    def __init__(self, witness: Witness, make_face: Make) -> None:
        self.witness = witness
        self._make_face = make_face
        self._seconds = 0

    def see(self, *tracks: int, ended: tuple[int, ...] = ()) -> None:
        self._seconds += 1
        at = BEGAN + timedelta(seconds=self._seconds)
        frame = Frame(raster=None, index=self._seconds, pts=float(self._seconds), time=at)
        looks = [Look(track, Detection((0, 0, 9, 9), 0.9), None, "kept") for track in tracks]
        self.witness.observe(Seen(frame, looks, [], inspected=True, ended=ended))

    def capture(self, track: int, *, score: float) -> Frozen:
        at = BEGAN + timedelta(seconds=self._seconds)
        frozen = self._make_face(camera="door", track=track, score=score, time=at)
        self.witness.captured(frozen)
        return frozen


@asynccontextmanager
async def announced(config: Config, make_face: Make) -> AsyncIterator[tuple[Home, Camera]]:
    with open_outbox(config) as outbox:
        async with announcing(config, outbox, partial(connector, config), link=lambda: True) as home:
            assert home is not None
            yield home, Camera(home.witness("door"), make_face)


def test_a_visit_is_told_as_frigate_tells_it(broker: servers.Server, tmp_path: Path, make_face: Make) -> None:
    async def check() -> None:
        config = configured(broker.url, tmp_path, images=True)
        async with ear(broker.url) as heard:
            async with announced(config, make_face) as (_, camera):
                await heard.until("frigate/available", b"online")
                await heard.until("frigate/door/detect/state", b"ON")
                await heard.until("frigate/door/face", b"0")
                camera.see(1)
                camera.see(1, 2)
                first = camera.capture(1, score=0.9)
                await heard.until("frigate/door/face", b"1")
                await heard.until("frigate/door/face/snapshot", first.data)
                better = camera.capture(1, score=0.8)
                await heard.until("frigate/door/face/snapshot", better.data)
                camera.see(2, ended=(1,))
                await heard.until("frigate/door/face", b"0")
                camera.see(ended=(2,))  # nobody's face was captured: nothing is told
            await heard.until("frigate/available", b"offline")
            await heard.until("frigate/door/face/snapshot", b"")
        new, update, end = (json.loads(payload) for topic, payload in heard.all if topic == "frigate/events")
        assert [new["type"], update["type"], end["type"]] == ["new", "update", "end"]
        assert new["before"] == new["after"]
        assert (update["before"], end["before"]) == (new["after"], update["after"])
        for told in (new, update, end):
            assert set(told["after"]) > FIELDS
        start, last = (BEGAN + timedelta(seconds=1)).timestamp(), (BEGAN + timedelta(seconds=2)).timestamp()
        assert new["after"] | {"snapshot": None} == tracked(
            first.face, label="face", began=BEGAN + timedelta(seconds=1)
        ) | {"snapshot": None}
        assert {told["after"]["id"] for told in (new, update, end)} == {f"{start:.6f}-{first.face.id[-6:]}"}
        assert (new["after"]["box"], new["after"]["area"]) == ([10, 20, 40, 60], 1200)
        assert (update["after"]["score"], update["after"]["top_score"]) == (0.8, 0.9)
        assert (new["after"]["end_time"], end["after"]["end_time"]) == (None, last)

    asyncio.run(check())


def test_snapshots_are_published_only_where_asked_for_and_under_the_label(
    tmp_path: Path, make_face: Make
) -> None:
    async def check(url: str) -> None:
        config = configured(url, tmp_path, prefix="nvr", label="person")
        async with ear(url) as heard, announced(config, make_face) as (_, camera):
            await heard.until("nvr/available", b"online")
            camera.see(1)
            camera.capture(1, score=0.9)
            await heard.until("nvr/door/person", b"1")
            await heard.until("nvr/events")
            assert not any(payload.startswith(b"\xff\xd8") for _, payload in heard.all)

    with servers.mosquitto() as server:
        asyncio.run(check(server.url))


def test_detect_set_pauses_the_camera(tmp_path: Path, make_face: Make) -> None:
    async def check(url: str) -> None:
        async with ear(url) as heard, announced(configured(url, tmp_path), make_face) as (_, camera):
            await heard.until("frigate/door/detect/state", b"ON")
            await heard.session.publish("frigate/door/detect/set", b"OFF", qos=1)
            await heard.until("frigate/door/detect/state", b"OFF")
            assert camera.witness.paused.is_set()

    with servers.mosquitto() as server:
        asyncio.run(check(server.url))


def test_each_visit_of_a_real_camera_that_gave_a_face_ends_once_and_after_it(tmp_path: Path) -> None:
    camera = {"name": "door", "source": "scene", "pace": False}
    values = {
        "camera": [camera],
        "outbox": {"path": str(tmp_path / "outbox.db")},
        "visits": {"policy": "first-and-best"},
    }
    config, told = Config.model_validate(values), list[News]()
    witness = Witness(camera="door", tell=told.append, paused=threading.Event())
    with open_outbox(config) as outbox:
        watcher = Watcher(
            config.camera[0], config=config, detector=make_detector("auto"), outbox=outbox,
            stop=threading.Event(), witness=witness,
        )  # fmt: skip
        watcher.start()
        watcher.join(60)
        assert watcher.failure is None
        assert outbox.waiting().result() == len([news for news in told if isinstance(news, Captured)])
    visits = {news.frozen.face.track for news in told if isinstance(news, Captured)}
    assert len(visits) == Scene().visits
    for track in visits:
        of = [each for each in told if _track(each) == track]
        assert [isinstance(each, Ended) for each in of] == [False] * (len(of) - 1) + [True]
        assert all(each.began <= each.frozen.face.time for each in of if isinstance(each, Captured))


def _track(news: News) -> int:
    return news.track if isinstance(news, Ended) else news.frozen.face.track


def test_a_visit_whose_last_face_comes_with_its_end_is_ended_after_it(make_face: Make) -> None:
    told = list[News]()
    witness = Witness(camera="door", tell=told.append, paused=threading.Event())
    camera = Camera(witness, make_face)
    camera.see(1)
    seen = Seen(Frame(raster=None, index=9, pts=9.0, time=BEGAN), [], [_Shot(1)], False, (1,))  # type: ignore[list-item]
    witness.observe(seen)
    assert not told
    camera.capture(1, score=0.9)
    assert [type(each) for each in told] == [Captured, Ended]
    assert not witness._visits
    assert not witness._ending


class _Shot:
    """A picture that is to be sent, of which only the visit matters here."""

    def __init__(self, track: int) -> None:
        self.track = track


def test_what_never_ends_is_forgotten_some_time(make_face: Make) -> None:
    told = list[News]()
    witness = Witness(camera="door", tell=told.append, paused=threading.Event())
    camera = Camera(witness, make_face)
    for track in range(3000):
        camera.see(track)
    assert len(witness._visits) == 1024


def test_snapshots_that_are_no_jpeg_are_refused() -> None:
    flags = ["frigate.enabled=true", "frigate.images=true", "picture.format=webp"]
    with pytest.raises(settings.ConfigError, match="its snapshots are JPEG"):
        settings.load(None, flags=flags, environ={})
