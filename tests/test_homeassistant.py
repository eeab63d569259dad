from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

import servers
from chains import chain, eventually
from conftest import Make
from facerelay import settings
from facerelay.commands.running import connector
from facerelay.config import Broker, Config
from facerelay.edge.cameras.scene import Scene
from facerelay.edge.capture import open_outbox
from facerelay.edge.eyes.detect import make_detector
from facerelay.edge.home.announce import Home, announcing
from facerelay.edge.home.discovery import Names, camera_device, site_device
from facerelay.edge.home.switches import Switches
from facerelay.edge.home.today import Today
from facerelay.edge.home.witness import Captured, Ended, News, Witness
from facerelay.edge.outbox import Outbox
from facerelay.edge.watcher import Watcher
from facerelay.face import Frozen, first_id, new_id
from hass import published
from listening import ear

HERE = Path(__file__).parent
CORE = os.environ.get("HOMEASSISTANT_PYTHON", "")
BROKERS: dict[str, Callable[[], Any]] = {"mosquitto": servers.mosquitto, "nats": servers.nats}
NAMES = Names(prefix="homeassistant", topic="facerelay", site="home")


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    with BROKERS[request.param]() as server:
        yield server


@pytest.fixture
def mosquitto() -> Iterator[servers.Server]:
    with servers.mosquitto() as server:
        yield server


def configured(url: str, folder: Path, **more: Any) -> Config:  # noqa: ANN401 - any setting
    values: dict[str, Any] = {
        "broker": {"url": url},
        "outbox": {"path": str(folder / "outbox.db")},
        "homeassistant": {"enabled": True, "images": True},
    }
    return Config.model_validate(values | more)


@asynccontextmanager
async def announced(config: Config) -> AsyncIterator[tuple[Home, Callable[[Make], Frozen]]]:
    """Announce without cameras; gives what captures a face as a camera's thread would."""
    with open_outbox(config) as outbox:
        async with announcing(config, outbox, partial(connector, config), link=lambda: True) as home:
            assert home is not None
            witness = home.witness("door")

            def capture(make_face: Make) -> Frozen:
                frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=config.site)
                outbox.put(frozen, chosen=time.time()).result()
                witness.captured(frozen)
                return frozen

            yield home, capture


# what is published


def test_the_discovery_messages_are_as_home_assistant_publishes_them() -> None:
    for made in (
        site_device(NAMES),
        camera_device(NAMES, "door", images=True, picture="webp"),
        camera_device(NAMES, "door", images=False, picture="jpeg"),
    ):
        read = published.Payload.model_validate(json.loads(json.dumps(made)))
        assert len({each.unique_id for each in read.components.values() if hasattr(each, "unique_id")}) >= 3
    assert re.match(published.CONFIG_TOPIC, NAMES.config("door"))
    with pytest.raises(ValueError, match="components"):
        published.Payload.model_validate(site_device(NAMES) | {"components": {"x": {"platform": "sensor"}}})


def test_no_two_cameras_of_any_sites_have_one_id() -> None:
    names = ["a", "a_b", "b_c", "b", "c", "a_", "a__b", "b__c", "a-b"]
    ids = [
        Names(prefix="h", topic="f", site=site).device(camera) for site in names for camera in [*names, None]
    ]
    assert len(set(ids)) == len(ids)


def test_a_face_is_seen_as_image_event_and_count(
    broker: servers.Server, tmp_path: Path, make_face: Make
) -> None:
    async def check() -> None:
        config = configured(broker.url, tmp_path)
        async with ear(broker.url) as heard, announced(config) as (_, capture):
            await heard.until("facerelay/home/door/capture", b"ON")
            frozen = capture(make_face)
            told = json.loads(await heard.until("facerelay/home/door/face"))
            assert told.pop("time") == frozen.face.time.isoformat()
            assert told == {
                "event_type": "face", "id": frozen.face.id, "site": "home", "camera": "door",
                "quality": 0.5, "score": 0.9, "visit": f"{frozen.face.run}-0",
            }  # fmt: skip
            await heard.until("facerelay/home/door/image", frozen.data)
            await heard.until("facerelay/home/door/today", b"1")
            await heard.until("facerelay/home/link", b"ON")
            async with ear(broker.url) as later:  # what a Home Assistant that starts now finds
                for device in (None, "door"):
                    payload = await later.until(NAMES.config(device))
                    published.Payload.model_validate_json(payload)
                await later.until("facerelay/home/available", b"online")
                await later.until("facerelay/home/door/image", frozen.data)
                await later.until("facerelay/home/door/today", b"1")
                assert "facerelay/home/door/face" not in later.kept  # an event is no state
        async with ear(broker.url) as left:
            await left.until("facerelay/home/available", b"offline")
            await asyncio.sleep(0.3)
            assert "facerelay/home/door/image" not in left.kept

    asyncio.run(check())


def test_without_images_no_picture_is_published_and_an_old_one_goes(
    mosquitto: servers.Server, tmp_path: Path, make_face: Make
) -> None:
    async def check() -> None:
        config = configured(mosquitto.url, tmp_path, homeassistant={"enabled": True})
        async with ear(mosquitto.url) as heard:
            await heard.session.publish("facerelay/home/door/image", b"\xff\xd8old", qos=1, retain=True)
            async with announced(config) as (_, capture):
                await heard.until("facerelay/home/door/image", b"")
                capture(make_face)
                await heard.until("facerelay/home/door/today", b"1")
            await heard.until("facerelay/home/available", b"offline")
            pictures = [topic for topic, payload in heard.all if payload.startswith(b"\xff\xd8")]
            assert pictures == ["facerelay/home/door/image"]  # the old one itself
            told = published.Payload.model_validate_json(
                heard.last["homeassistant/device/facerelay_home_door/config"]
            )
            assert isinstance(told.components["image"], published.Forgotten)

    asyncio.run(check())


def test_a_picture_goes_off_the_broker_when_its_time_is_over(
    mosquitto: servers.Server, tmp_path: Path, make_face: Make
) -> None:
    async def check() -> None:
        asked = {"enabled": True, "images": True, "image_hours": 0.5 / 3600}
        async with (
            ear(mosquitto.url) as heard,
            announced(configured(mosquitto.url, tmp_path, homeassistant=asked)) as (home, capture),
        ):
            frozen = capture(make_face)
            await heard.until("facerelay/home/door/image", frozen.data)
            await asyncio.sleep(0.6)
            home.boards[0].look()
            await heard.until("facerelay/home/door/image", b"")

    asyncio.run(check())


def test_home_assistants_return_is_answered_with_all_states_but_no_picture(
    mosquitto: servers.Server, tmp_path: Path, make_face: Make
) -> None:
    async def check() -> None:
        config = configured(mosquitto.url, tmp_path)
        async with ear(mosquitto.url) as heard, announced(config) as (_, capture):
            frozen = capture(make_face)
            await heard.until("facerelay/home/door/image", frozen.data)
            await heard.until("facerelay/home/link", b"ON")
            heard.clear()
            await heard.session.publish("homeassistant/status", b"online", qos=1)
            for topic in (
                NAMES.config(),
                NAMES.config("door"),
                "facerelay/home/available",
                "facerelay/home/link",
            ):
                await heard.until(topic)
            assert "facerelay/home/door/image" not in heard.last

    asyncio.run(check())


def test_a_camera_that_gives_no_picture_is_told_of(mosquitto: servers.Server, tmp_path: Path) -> None:
    async def check() -> None:
        async with ear(mosquitto.url) as heard, announced(configured(mosquitto.url, tmp_path)) as (home, _):
            assert home.assistant is not None
            for since, said in (("1700000000", b"ON"), ("", b"OFF")):
                home._outbox.count("home", "door", frames=1)
                await asyncio.wrap_future(home._outbox.note("dark/home/door", since))
                await home._read(home.assistant)
                await heard.until("facerelay/home/door/dark", said)

    asyncio.run(check())


# what is never held up


def test_a_broker_that_is_away_holds_up_nothing_and_is_told_when_it_comes(
    tmp_path: Path, make_face: Make
) -> None:
    async def check() -> None:
        port = servers.free_port()
        asked = {"enabled": True, "images": True, "url": f"mqtt://127.0.0.1:{port}"}
        config = configured("mqtt://127.0.0.1:1", tmp_path, homeassistant=asked)
        async with announced(config) as (home, capture):
            faces = [capture(make_face) for _ in range(300)]
            await asyncio.sleep(0.1)
            assert not home.boards[0]._passing  # what nobody hears is not remembered
            with servers.mosquitto(port) as server:
                async with ear(server.url) as heard:
                    await heard.until("facerelay/home/door/today", b"300", seconds=30)
                    await heard.until("facerelay/home/door/image", faces[-1].data)
                    assert "facerelay/home/door/face" not in heard.last

    asyncio.run(check())


def test_a_fault_in_the_telling_ends_the_telling_alone(
    mosquitto: servers.Server, tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with announced(configured(mosquitto.url, tmp_path)) as (home, capture):
            home.boards[0].keep("wrong/#", b"a topic that cannot be published on")
            while "a fault of ours" not in caplog.text:
                await asyncio.sleep(0.05)
            capture(make_face)

    asyncio.run(check())


# the switch


def test_a_switch_pauses_its_camera_and_stays_as_it_was_left(broker: servers.Server, tmp_path: Path) -> None:
    async def check() -> None:
        config = configured(broker.url, tmp_path)
        command, state = "facerelay/home/door/capture/set", "facerelay/home/door/capture"
        async with ear(broker.url) as heard:
            async with announced(config) as (home, _):
                await heard.until(state, b"ON")
                for nonsense in (b"", b"off", b"\xff" * 50_000):
                    await heard.session.publish(command, nonsense, qos=1)
                await heard.session.publish("facerelay/home/other/capture/set", b"OFF", qos=1)
                await heard.session.publish(command, b"OFF", qos=1)
                await heard.until(state, b"OFF")
                assert home.witness("door").paused.is_set()
            heard.clear()
            async with announced(config) as (home, _):
                await heard.until(state, b"OFF")
                assert home.witness("door").paused.is_set()
                await heard.session.publish(command, b"ON", qos=1)
                await heard.until(state, b"ON")
                assert not home.witness("door").paused.is_set()
            await heard.session.publish(command, b"OFF", qos=1, retain=True)
            heard.clear()
            async with announced(config) as (home, _):  # an order of old is none
                await heard.until(state, b"ON")
                await asyncio.sleep(0.3)
                assert not home.witness("door").paused.is_set()

    asyncio.run(check())


def test_a_switch_that_flutters_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        with Outbox(tmp_path / "o.db", max_bytes=10**6, max_message=10**6) as outbox:
            switches = Switches(outbox, changed=lambda _: None)
            await switches.load()
            switches.paused("door")
            for n in range(1001):
                switches.turn("door", b"ON" if n % 2 else b"OFF")
            await switches.save()
        assert caplog.text.count("camera door is paused by its switch") == 1
        assert len(caplog.records) == 1

    asyncio.run(check())


def test_frames_of_a_paused_camera_are_counted_and_nobody_is_looked_at(tmp_path: Path) -> None:
    camera = {"name": "door", "source": "scene", "pace": False}
    config = Config.model_validate({"camera": [camera], "outbox": {"path": str(tmp_path / "outbox.db")}})
    paused, told = threading.Event(), list[News]()

    def pause_at_the_first_face(news: News) -> None:
        told.append(news)
        paused.set()

    with open_outbox(config) as outbox:
        witness = Witness(camera="door", tell=pause_at_the_first_face, paused=paused)
        watcher = Watcher(
            config.camera[0], config=config, detector=make_detector("auto"), outbox=outbox,
            stop=threading.Event(), witness=witness,
        )  # fmt: skip
        watcher.start()
        watcher.join(60)
        assert watcher.failure is None
        books = outbox.ledger().result().cameras["home/door"]
    captured = [news for news in told if isinstance(news, Captured)]
    assert len(captured) == books.captured < 3  # whoever had been seen till then
    assert {news.frozen.face.track for news in captured} == {
        news.track for news in told if isinstance(news, Ended)
    }
    assert books.frames == Scene().frames == books.inspected + books.skipped
    assert books.reasons["paused"] > books.frames / 2


# faces today


def test_a_day_begins_at_the_machines_own_midnight_and_a_restart_forgets_nothing(
    tmp_path: Path, make_face: Make
) -> None:
    zone = timezone(timedelta(hours=-5))
    clock = [datetime(2026, 11, 21, 23, 59, tzinfo=zone)]

    def at(when: datetime) -> str:
        return first_id(when) + new_id()[13:]

    async def check() -> None:
        config = configured("mqtt://127.0.0.1:1", tmp_path)
        with open_outbox(config) as outbox:
            yesterday = datetime(2026, 11, 21, 4, 59, 59, tzinfo=UTC)  # 23:59:59 there
            for when in (yesterday, yesterday + timedelta(seconds=1), yesterday + timedelta(hours=9)):
                known = {"id": at(when), "outbox": outbox.id, "seq": outbox.number()}
                outbox.put(make_face(**known), chosen=when.timestamp()).result()
            today = Today(now=lambda: clock[0])
            await today.load(outbox, "home")
            assert today.of("door") == 2
            today.add("door")
            assert today.of("door") == 3
            clock[0] += timedelta(minutes=2)
            today.turn()
            assert today.of("door") == 0

    asyncio.run(check())


# the whole role


@contextmanager
def capturing(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
    with log.open("ab") as said:
        role = subprocess.Popen(
            [sys.executable, "-m", "facerelay", "capture", "-c", str(config)],
            env=env,
            stdout=said,
            stderr=said,
        )
    try:
        yield role
    finally:
        role.kill()
        role.wait()


@pytest.mark.parametrize("link", ["forward", "bridge"])
def test_a_cameras_faces_are_told_in_the_house_and_nothing_of_it_leaves(
    tmp_path: Path, link: Literal["forward", "bridge"]
) -> None:
    async def check() -> None:
        kind: Literal["embedded", "mosquitto"] = "mosquitto" if link == "bridge" else "embedded"
        told = {"enabled": True, "images": True}
        with chain(
            tmp_path, edge_broker=kind, cloud_broker=kind, link=link, homeassistant=told, frigate=told,
            camera=[{"name": "door", "source": "scene"}],
        ) as parts:  # fmt: skip
            async with ear(parts.edge.broker.url) as edge, ear(parts.cloud.broker.url) as cloud:
                with capturing(tmp_path / "edge.toml", tmp_path / "capture.log") as role:
                    event = json.loads(await edge.until("facerelay/home/door/face", seconds=60))
                    await edge.until("frigate/events")
                    await edge.until("facerelay/home/link", b"ON", seconds=30)
                    pictures = [data for topic, data in edge.all if topic == "facerelay/home/door/image"]
                    assert any(event["id"].replace("-", "").encode() in data for data in pictures)
                    await cloud.until("faces/home/door", seconds=30)
                    role.send_signal(signal.SIGKILL)
                    await edge.until("facerelay/home/available", b"offline", seconds=40)  # by the will
                    await edge.until("frigate/available", b"offline", seconds=40)
                    outside = {topic.partition("/")[0] for topic, _ in cloud.all}
                    assert outside <= {"faces", "receipts", "ledger", "link", "stores"}

    asyncio.run(check())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["topics.faces=facerelay/#"], "the link carries facerelay/# as faces"),
        (["homeassistant.topic=x", "frigate.enabled=true", "frigate.prefix=x"], "as another section does"),
        (["camera.0.name=a", "camera.0.source=mqtt:facerelay/+/door/image"], "camera a takes pictures from"),
        (["frigate.enabled=true", "camera.0.name=a", "camera.0.source=mqtt:frigate/+/x"], "camera a"),
        (["homeassistant.url=mqtt://localhost", "topics.faces=facerelay/#"], "the link carries"),
        (["direct=true"], "homeassistant.url"),
        (["homeassistant.topic=faces"], "keeps for its own messages"),
        (["homeassistant.username=me"], "set url as well"),
        (["homeassistant.url=ha:1883"], "mqtt://host:port"),
        (["homeassistant.prefix=a/#"], "homeassistant.prefix"),
    ],
)  # fmt: skip
def test_what_would_leave_the_house_or_come_back_as_pictures_is_refused(flags: list[str], words: str) -> None:
    with pytest.raises(settings.ConfigError, match=re.escape(words)):
        settings.load(None, flags=["homeassistant.enabled=true", *flags], environ={})


@pytest.mark.parametrize("page", ["home-assistant.md", "webhook.md"])
def test_the_settings_in_the_docs_are_right(tmp_path: Path, page: str) -> None:
    text = (HERE.parent / "docs" / page).read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "docs.toml").write_text("\n".join(blocks))
    assert settings.load(tmp_path / "docs.toml", environ={}) != Config()
    for name in re.findall(r"`(homeassistant|frigate|webhook|visits)\.([a-z_]+)`", text):
        assert name[1] in settings._fields([name[0]]), name


def test_their_broker_may_be_another_and_then_no_topic_clashes(tmp_path: Path) -> None:
    (tmp_path / "word").write_text("hunter2\n")
    flags = [
        "homeassistant.enabled=true", "homeassistant.url=mqtts://ha.lan", "homeassistant.username=me",
        f"homeassistant.password_file={tmp_path}/word", "topics.faces=facerelay/#",
    ]  # fmt: skip
    config = settings.load(None, flags=flags, environ={})
    theirs = config.homeassistant.broker(config.broker)
    assert (theirs.host, theirs.port, theirs.username, theirs.secret()) == ("ha.lan", 8883, "me", "hunter2")
    assert Config().homeassistant.broker(Broker(url="mqtts://here")).host == "here"


# Home Assistant itself


class Core:
    """Home Assistant's core in a process of its own."""

    def __init__(self, broker: servers.Server, log: Path) -> None:
        command = [CORE, str(HERE / "hass" / "core.py"), str(broker.port), str(servers.free_port())]
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
            )
        self.begun = self._read()

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        assert answer, "Home Assistant ended"
        read: dict[str, Any] = json.loads(answer)
        return read

    def state(self, entity: str) -> str | None:
        known = self.ask("states")["entities"].get(entity)
        return known and str(known["state"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.skipif(
    not CORE, reason="HOMEASSISTANT_PYTHON names no Python that has Home Assistant 2024.11 or later"
)
def test_homeassistant_itself_takes_what_is_published(
    broker: servers.Server, tmp_path: Path, make_face: Make
) -> None:
    async def check(core: Core) -> None:
        async with announced(configured(broker.url, tmp_path)) as (home, capture):
            await asyncio.to_thread(eventually, lambda: core.state("switch.home_door_capture") == "on", 30)
            frozen = capture(make_face)
            await asyncio.to_thread(eventually, lambda: core.state("sensor.home_door_faces_today") == "1")
            found = await asyncio.to_thread(core.ask, "states")
            states = {name: known["state"] for name, known in found["entities"].items() if known}
            assert states["binary_sensor.facerelay_home_link_to_the_cloud"] == "on"
            assert set(found["entities"]) == {
                "binary_sensor.facerelay_home_link_to_the_cloud", "sensor.facerelay_home_uplink",
                "sensor.facerelay_home_oldest_waiting_face", "sensor.facerelay_home_lost_by_the_last_audit",
                "sensor.home_door_faces_today",
                "sensor.home_door_waiting", "sensor.home_door_dropped", "sensor.home_door_refused",
                "binary_sensor.home_door_no_picture", "event.home_door_face",
                "switch.home_door_capture", "image.home_door_last_face",
            }  # fmt: skip
            assert found["entities"]["event.home_door_face"]["id"] == frozen.face.id
            assert found["devices"]["home door"]["via"] == found["devices"]["facerelay home"]["id"]
            image = await asyncio.to_thread(core.ask, "image image.home_door_last_face")
            assert base64.b64decode(image["picture"]) == frozen.data
            await asyncio.to_thread(core.ask, "turn switch.home_door_capture off")
            await asyncio.to_thread(eventually, lambda: core.state("switch.home_door_capture") == "off")
            assert home.witness("door").paused.is_set()
        await asyncio.to_thread(eventually, lambda: core.state("switch.home_door_capture") == "unavailable")
        without = configured(broker.url, tmp_path, homeassistant={"enabled": True})
        async with announced(without):
            await asyncio.to_thread(eventually, lambda: core.state("switch.home_door_capture") == "off")
            await asyncio.to_thread(eventually, lambda: core.state("image.home_door_last_face") is None)

    core = Core(broker, tmp_path / "homeassistant.log")
    try:
        assert core.begun["mqtt"] == "loaded"
        asyncio.run(check(core))
        assert "ERROR" not in (tmp_path / "homeassistant.log").read_text()
    finally:
        core.close()
