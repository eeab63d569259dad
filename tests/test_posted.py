from __future__ import annotations

import asyncio
import logging
import sqlite3
import struct
import threading
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from conftest import need
from facerelay.commands.running import connector, run
from facerelay.config import Camera, Config
from facerelay.edge.cameras import posted
from facerelay.edge.cameras.camera import CameraError, expand, open_camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.posted import MOST_CAMERAS, Mailbox, PostOffice, topic_of
from facerelay.edge.cameras.raster import Image
from facerelay.edge.capture import capture, open_outbox
from facerelay.face import Limits
from facerelay.link.session import Session
from facerelay.messages import Account
from facerelay.topics import FaceTopic
from servers import Server, mosquitto, nats
from waiting import until

LIMITS = Limits(bytes=1_000_000, pixels=1_000_000)
FRIGATE = "mqtt:frigate/+/person/snapshot"


def encoded(value: int, ending: str = ".jpg", size: tuple[int, int] = (64, 48)) -> bytes:
    done, data = cv2.imencode(ending, np.full((size[1], size[0], 3), value, np.uint8))
    assert done
    return data.tobytes()


def huge_png() -> bytes:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return png + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


class Found:
    """A post office and the cameras that it found."""

    def __init__(self, *cameras: tuple[str, str], own: str = "faces/{site}/{camera}") -> None:
        self.boxes: dict[str, Mailbox] = {}
        self.sources: dict[str, str] = {}
        configured = [Camera(name=name, source=source) for name, source in cameras]
        self.office = PostOffice(configured, limits=LIMITS, own=FaceTopic(own), appear=self._appear)
        self.office.open()

    def _appear(self, camera: Camera, box: Mailbox) -> None:
        self.boxes[camera.name], self.sources[camera.name] = box, camera.source

    def take(self, topic: str, data: bytes, *, retained: bool = False) -> None:
        self.office.take(topic, data, retained=retained)


def read(box: Mailbox, count: int) -> list[Frame]:
    """Return so many frames that are not blank."""
    stop = threading.Event()
    timer = threading.Timer(20, stop.set)
    timer.start()
    frames = []
    for frame in box.frames(stop):
        frames += [] if frame.blank else [frame]
        if len(frames) >= count:
            stop.set()
    timer.cancel()
    return frames


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_a_posted_picture_is_a_still_frame(ending: str) -> None:
    found = Found(("door", "mqtt:cam/door/image"))
    found.take("cam/door/image", encoded(90, ending))
    (frame,) = read(found.boxes["door"], 1)
    assert frame.still
    assert frame.size == (64, 48)
    assert abs(int(frame.image.mean()) - 90) < 3


def test_a_posted_picture_is_turned_upright(jpeg: bytes) -> None:
    turned = (
        b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    )
    body = b"Exif\x00\x00" + turned
    found = Found(("door", "mqtt:cam"))
    found.take("cam", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:])
    (frame,) = read(found.boxes["door"], 1)
    assert frame.size == (120, 96)


@pytest.mark.parametrize(
    ("data", "retained", "reason"),
    [
        (b"\x80\x04\x95\x10\x00.", False, "pickle"), (b"", False, "not-a-picture"),
        (encoded(90)[:-20], False, "truncated"), (huge_png(), False, "too-many-pixels"),
        (encoded(90, size=(1200, 900)), False, "too-many-pixels"), (bytes(1_000_001), False, "too-large"),
        (b"/9j/4AAQSkZJRgABAQ", False, "base64"), (b'{"image": "x"}', False, "not-a-picture"),
        (encoded(90), True, "retained"),
        (encoded(90)[:300] + bytes(200) + b"\xff\xd9", False, "malformed"),
        (encoded(90, ".png")[:60] + bytes(60) + encoded(90, ".png")[-12:], False, "truncated"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_counted_and_left(
    data: bytes, retained: bool, reason: str, caplog: pytest.LogCaptureFixture  # noqa: FBT001 - a parameter
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    found = Found(("door", "mqtt:cam"))
    found.take("cam", data, retained=retained)
    found.take("cam", encoded(50))
    (frame,) = read(found.boxes["door"], 1)
    assert abs(int(frame.image.mean()) - 50) < 3
    assert found.boxes["door"].refused() == {reason: 1}
    assert found.boxes["door"].refused() == {}


def test_a_picture_whose_pixels_are_damaged_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    good = encoded(90, ".png", (640, 480))
    begin, end = good.index(b"IDAT") + 4, len(good) - 16
    found = Found(("door", "mqtt:cam"))
    found.take("cam", good[:begin] + bytes(end - begin) + good[end:])
    found.take("cam", encoded(50))
    (frame,) = read(found.boxes["door"], 1)
    assert frame.index == 0, "it would count as too late to be looked at"
    assert found.boxes["door"].refused() == {"damaged": 1}
    assert "cannot be decoded" in caplog.text


def test_damaged_pictures_without_end_are_silence() -> None:
    box, stop, end = Found(("door", "mqtt:cam")).boxes["door"], threading.Event(), threading.Event()

    def flood() -> None:
        number = 0
        while not end.wait(0.01):
            number += 1
            box.post(b"\xff\xd8\xff" + number.to_bytes(8, "big"))

    threads = [threading.Thread(target=flood), threading.Timer(20, stop.set)]
    for thread in threads:
        thread.start()
    first = next(box.frames(stop), None)
    end.set()
    cast("threading.Timer", threads[1]).cancel()
    for thread in threads:
        thread.join()
    assert first is not None
    assert first.blank
    assert box.refused()["damaged"] > 1


def test_a_picture_that_is_sent_again_counts_once() -> None:
    found = Found(("door", "mqtt:cam"))
    for value in (10, 50, 10, 10):
        found.take("cam", encoded(value))
    assert [round(float(frame.image.mean()) / 10) for frame in read(found.boxes["door"], 2)] == [1, 5]
    assert found.boxes["door"].refused() == {"repeated": 2}


def test_a_flood_drops_the_oldest_pictures_and_leaves_their_numbers_out() -> None:
    found = Found(("door", "mqtt:cam"))
    for value in range(20):
        found.take("cam", encoded(10 * value))
    frames = read(found.boxes["door"], 4)
    assert [frame.index for frame in frames] == [16, 17, 18, 19]
    assert [frame.pts for frame in frames] == sorted(frame.pts for frame in frames)


def test_silence_is_blank_and_dark_only_without_the_broker() -> None:
    found = Found(("door", "mqtt:cam"))
    box, stop = found.boxes["door"], threading.Event()
    frames = box.frames(stop)
    first = next(frames)
    assert first.blank
    assert first.dark
    found.office.set_connected(True)
    second = next(frames)
    assert second.blank
    assert not second.dark
    assert second.pts > first.pts
    found.take("cam", encoded(9))
    assert not next(frames).blank
    stop.set()
    assert list(frames) == []


def test_each_match_of_a_plus_is_a_camera() -> None:
    found = Found(("frigate", FRIGATE), ("frigate-taken", "scene"))
    assert found.boxes == {}
    for camera in ("door", "front_yard", "Upper Case", "taken", "x" * 60, "", "door"):
        found.take(f"frigate/{camera}/person/snapshot", encoded(len(camera)))
    found.take("frigate/door/car/snapshot", encoded(99))
    found.take("frigate/yard/person/snapshot", encoded(98), retained=True)
    found.take("frigate/hall/person/snapshot", b"junk")
    found.take("frigate/a/b/person/snapshot", encoded(97))
    assert found.sources == {
        "frigate-door": "mqtt:frigate/door/person/snapshot",
        "frigate-front_yard": "mqtt:frigate/front_yard/person/snapshot",
    }


def test_two_topics_never_share_a_camera() -> None:
    found = Found(("a", "mqtt:a/+/+"))
    found.take("a/b-c/d", encoded(1))
    found.take("a/b/c-d", encoded(2))
    assert found.sources == {"a-b-c-d": "mqtt:a/b-c/d"}


def test_there_is_an_end_to_the_cameras_that_a_plus_makes(caplog: pytest.LogCaptureFixture) -> None:
    found = Found(("frigate", FRIGATE))
    for number in range(MOST_CAMERAS + 5):
        found.take(f"frigate/cam{number}/person/snapshot", encoded(number))
    assert len(found.boxes) == MOST_CAMERAS
    assert f"there are {MOST_CAMERAS} already" in caplog.text


def test_a_camera_that_was_silent_for_long_makes_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = Found(("frigate", FRIGATE), ("hall", "mqtt:hall"))
    for number in range(MOST_CAMERAS - 1):
        found.take(f"frigate/made{number}/person/snapshot", encoded(number))
    found.take("frigate/made0/person/snapshot", encoded(99))
    silent, hall = found.boxes["frigate-made1"], found.boxes["hall"]
    monkeypatch.setattr(posted, "RELEASE_S", 0.0)
    found.take("frigate/door/person/snapshot", encoded(200))
    assert len(read(found.boxes["frigate-door"], 1)) == 1
    assert read(silent, 1) == []
    assert len(read(found.boxes["frigate-made0"], 2)) == 2
    assert "frigate-made1 loses its place" in caplog.text
    found.take("frigate/made1/person/snapshot", encoded(201))
    assert len(read(found.boxes["frigate-made1"], 1)) == 1
    found.take("hall", encoded(202))
    assert len(read(hall, 1)) == 1


def test_two_cameras_may_look_at_one_topic() -> None:
    found = Found(("one", "mqtt:cam/door"), ("all", "mqtt:cam/+"))
    found.take("cam/door", encoded(60))
    assert set(found.boxes) == {"one", "all-door"}
    assert [read(box, 1)[0].index for box in found.boxes.values()] == [0, 0]
    assert found.office.filters == [("cam/+", 1), ("cam/door", 1)]


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("", "name a topic"), ("cam/#", "`#`"), ("#", "`#`"), ("cam/a+", "whole level"), ("$SYS/x", r"`\$`"),
        ("$share/g/x", r"`\$`"), ("faces/home/door", "itself publishes"), ("receipts/x", "itself publishes"),
        ("ledger/+/x", "itself publishes"), ("link/home", "itself publishes"),
        ("stores/a", "itself publishes"),
        ("+/home/door", "itself publishes"), ("+", "itself publishes"), ("a\0b", "name a topic"),
        ("x" * 300, "name a topic"),
    ],
)  # fmt: skip
def test_a_topic_that_would_take_in_too_much_is_refused(topic: str, says: str) -> None:
    for take in (topic_of, expand, lambda source: Found(("door", source))):
        with pytest.raises(CameraError, match=says):
            take(f"mqtt:{topic}")


@pytest.mark.parametrize("own", ["pictures/{site}/{camera}", "pictures/#", "pictures/door/snap"])
def test_no_camera_takes_in_the_faces_that_it_gives(own: str) -> None:
    with pytest.raises(CameraError, match="own faces"):
        Found(("door", "mqtt:pictures/+/snap"), own=own)
    assert Found(("door", "mqtt:picture/+/snap"), own=own).office.filters


def test_a_topic_names_its_camera() -> None:
    assert expand(FRIGATE) == [("frigate", FRIGATE)]
    assert expand("mqtt:Front Door/image") == [("posted", "mqtt:Front Door/image")]
    with pytest.raises(CameraError, match="the capture role alone"):
        next(open_camera(FRIGATE, pace=True, stop=threading.Event()))


# the real role, with real brokers


def settings(broker: Server, folder: Path, *cameras: tuple[str, str]) -> Config:
    return Config.model_validate(
        {
            "broker": {"url": broker.url},
            "camera": [{"name": name, "source": source} for name, source in cameras],
            "outbox": {"path": str(folder / "outbox.db")},
            "visits": {"wait_s": 0.5},
        }
    )


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Session]:
    """Run the capture role; yields a session of somebody who posts."""
    stop = asyncio.Event()
    role = asyncio.create_task(capture(config, connector(config), stop=stop))
    async with connector(config)(client_id="poster", subscribe=[], clean=True, window=8) as session:
        await session.wait_connected()
        try:
            yield session
        finally:
            stop.set()
            await role


def faces(config: Config) -> list[str]:
    """Return the cameras of the faces in the outbox, as they are on disk."""
    db = sqlite3.connect(f"file:{config.outbox.path}?mode=ro", uri=True)
    try:
        return [camera for (camera,) in db.execute("SELECT camera FROM faces ORDER BY camera")]
    finally:
        db.close()


async def books(config: Config) -> dict[str, Account]:
    with open_outbox(config) as outbox:
        return (await asyncio.wrap_future(outbox.ledger())).cameras


def variant(image: Image, number: int) -> bytes:
    """Return the picture with another compression: other bytes, the same face."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80 + number])[1].tobytes()


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_a_posted_portrait_becomes_one_face(
    kind: str, tmp_path: Path, portrait: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    if kind == "mosquitto":
        need("mosquitto")
    image = cast("Image | None", cv2.imread(str(portrait)))
    assert image is not None

    async def scenario(config: Config) -> None:
        async with connector(config)(client_id="before", subscribe=[], clean=True, window=8) as early:
            await early.wait_connected()
            await early.publish("frigate/old/person/snapshot", variant(image, 0), qos=1, retain=True)
        async with running(config) as session:
            post: Any = partial(session.publish, "frigate/door/person/snapshot", qos=1)
            await until(lambda: "an old one" in caplog.text)
            for number in range(3):
                await post(variant(image, number))
            for bad in (
                b"\x80\x04\x95.",
                variant(image, 5)[:-1000],
                huge_png(),
                b"/9j/4AAQ",
                variant(image, 0),
            ):
                await post(bad)
            await session.publish("esp/hall", variant(image, 9), qos=0)
            await until(lambda: len(faces(config)) == 2)
        assert faces(config) == ["frigate-door", "hall"]
        kept = (await books(config))["home/frigate-door"]
        wanted = {"pickle": 1, "truncated": 1, "too-many-pixels": 1, "base64": 1, "repeated": 1}
        assert {name: kept.reasons.get(f"posted-{name}") for name in wanted} == wanted
        assert kept.inspected == 3

    with (mosquitto if kind == "mosquitto" else nats)(folder=tmp_path / "broker") as broker:
        cameras = ("frigate", FRIGATE), ("hall", "mqtt:esp/hall")
        asyncio.run(scenario(settings(broker, tmp_path, *cameras)))


def test_cameras_come_back_with_the_broker(
    tmp_path: Path, portrait: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = portrait.read_bytes()

    async def scenario(config: Config, broker: Server) -> None:
        async with running(config) as session:
            await until(lambda: caplog.text.count(": connected") >= 3)
            broker.kill()
            await until(lambda: caplog.text.count(": not connected") >= 3)
            await asyncio.sleep(1.5)
            broker.start()
            await until(lambda: caplog.text.count(": connected") >= 6)
            await session.publish("cam/door", data, qos=1)
            await until(lambda: faces(config) == ["door"])
        kept = (await books(config))["home/door"]
        assert kept.gaps >= 1
        assert kept.frames == 1

    need("mosquitto")
    with mosquitto(folder=tmp_path / "broker") as broker:
        asyncio.run(scenario(settings(broker, tmp_path, ("door", "mqtt:cam/door")), broker))


def test_a_topic_that_cannot_be_taken_ends_the_role_with_a_clear_error(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "camera": [{"name": "door", "source": "mqtt:cam/#"}],
            "outbox": {"path": str(tmp_path / "outbox.db")},
        }
    )

    with pytest.raises(CameraError, match="`#` takes in too much"):
        run(lambda stop: capture(config, connector(config), stop=stop))
