from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from browser import browsing
from chains import Part, eventually, facerelay
from facerelay import config, sections
from facerelay.commands import running
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.capture import capture
from facerelay.edge.eyes.best import Look, Shot
from facerelay.edge.eyes.detect import Detection
from facerelay.edge.eyes.quality import Quality
from facerelay.edge.eyes.watch import Seen
from facerelay.edge.preview import PreviewError, paint, previewing
from facerelay.edge.preview.app import MOST_VIEWERS
from facerelay.edge.preview.panel import Panel
from facerelay.edge.preview.reel import KEPT
from facerelay.edge.preview.serve import Preview
from servers import free_port

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FACE = Detection((100, 80, 60, 80), 0.9, ((115, 110), (145, 110), (130, 125), (118, 142), (142, 142)))
GOOD = Quality(0.8, {"size": 0.5, "sharpness": 0.9})


def ask(
    preview: Preview, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(preview), timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def port_of(preview: Preview) -> int:
    return int(preview.url.split(":")[2].strip("/"))


@contextmanager
def streaming(preview: Preview, path: str, *, buffer: int | None = None) -> Iterator[socket.socket]:
    """Ask for something endless, and read nothing of it."""
    with socket.socket() as viewer:
        if buffer:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        viewer.settimeout(10)
        viewer.connect(("127.0.0.1", port_of(preview)))
        viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        yield viewer


def cut_off(viewer: socket.socket) -> bool:
    """Read what is there; tell whether there is an end to it."""
    try:
        while viewer.recv(1 << 20):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def image_of(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.uint8)


def told(preview: Preview, seconds: float = 1.0) -> dict[str, Any]:
    """Return what the events say in a while, the last of each kind; of the lists all."""
    found: dict[str, Any] = {"faces": [], "visits": []}
    data, until = b"", time.monotonic() + seconds
    with streaming(preview, "/events") as viewer:
        viewer.settimeout(0.1)
        while time.monotonic() < until:
            try:
                data += viewer.recv(1 << 20)
            except TimeoutError:
                continue
    for name, body in re.findall(rb"event: (\w+)\ndata: (.*)\n", data):
        value = json.loads(body)
        found[name.decode()] = found[name.decode()] + value if name in {b"faces", b"visits"} else value
    return found


@pytest.fixture
def preview() -> Iterator[Preview]:
    with Preview(sections.Preview(port=0)) as serving:
        yield serving


def camera(name: str = "door", source: str = "scene", **more: Any) -> config.Camera:  # noqa: ANN401 - any settings
    return config.Camera(name=name, source=source, **more)


def show(preview: Preview, known: config.Camera | None = None) -> Panel:
    known = known or camera()
    preview.observe(known, config.Config())
    return preview.panels[known.name]


def grey(width: int = 640, height: int = 360, level: int = 120) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def frame(
    index: int, image: Image | None, *, late: bool = False, dark: bool = False, rate: float = 10
) -> Frame:
    raster = None if image is None else Pixels(image)
    pts, arrived = index / rate, NOON + timedelta(seconds=index / rate)
    return Frame(raster=raster, index=index, pts=pts, time=arrived, late=late, dark=dark)


def seen(
    index: int,
    looks: list[Look],
    shots: list[Shot] | None = None,
    *,
    inspected: bool = True,
    late: bool = False,
) -> Seen:
    return Seen(frame(index, grey(), late=late), looks, shots or [], inspected)


def shot(track: int, side: int = 90) -> Shot:
    return Shot(
        track=track, detection=FACE, crop=grey(side, side), crop_box=(80, 60, side, side),
        frame_size=(640, 360), pts=1.0, time=NOON, quality=0.8, parts=GOOD.parts,
    )  # fmt: skip


@contextmanager
def capturing(known: config.Config, preview: Preview) -> Iterator[None]:
    """Run the capture role itself, in a thread; no broker answers it, so it waits for one."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    role = capture(known, running.connector(known), stop=stop, observe=preview.observe)
    thread = threading.Thread(target=lambda: loop.run_until_complete(role))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


def settings(folder: Path, *cameras: config.Camera, **more: Any) -> config.Config:  # noqa: ANN401 - any settings
    return config.Config(
        broker=config.Broker(url=f"mqtt://127.0.0.1:{free_port()}"), camera=cameras,
        outbox=sections.Outbox(path=folder / "outbox.db"), **more,
    )  # fmt: skip


def test_nothing_is_drawn_while_nobody_looks(tmp_path: Path, preview: Preview) -> None:
    with capturing(settings(tmp_path, camera(pace=False)), preview):
        eventually(lambda: "door" in preview.panels and preview.panels["door"].counts.faces >= 2, 60)
        panel = preview.panels["door"]
        assert panel.drawn == 0
        with streaming(preview, "/camera/door.mjpeg") as viewer:
            eventually(lambda: panel.drawn > 3)
            assert b"\xff\xd8" in viewer.recv(1 << 20)
        eventually(lambda: told(preview, 0.3)["cameras"][0]["frames"] > 0)
        drawn, frames = panel.drawn, panel.counts.frames
        eventually(lambda: panel.counts.frames > frames + 100, 60)
        assert panel.drawn == drawn


def test_viewers_that_hang_hold_up_neither_camera_nor_one_another(tmp_path: Path, preview: Preview) -> None:
    with capturing(settings(tmp_path, camera(pace=False)), preview):
        eventually(lambda: "door" in preview.panels and preview.panels["door"].counts.frames > 0, 60)
        panel = preview.panels["door"]
        with streaming(preview, "/camera/door.mjpeg", buffer=4096):
            eventually(lambda: panel.drawn > 3)
            frames, drawn = panel.counts.frames, panel.drawn
            with streaming(preview, "/camera/door.mjpeg") as other:
                got = 0
                while got < 1_000_000:
                    got += len(other.recv(1 << 20))
            eventually(lambda: panel.counts.frames > frames + 200, 60)
            assert panel.drawn > drawn


def test_a_viewer_that_hangs_loses_its_seat(preview: Preview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facerelay.http_server._IDLE_S", 0.5)
    panel = show(preview)
    noise = np.random.default_rng(1).integers(0, 255, (540, 960, 3), np.uint8)
    stop = threading.Event()

    def play() -> None:
        for index in range(100_000):
            panel.put(Seen(frame(index, noise), [], [], True))
            if stop.wait(0.05):
                return

    playing = threading.Thread(target=play)
    playing.start()
    try:
        with streaming(preview, "/camera/door.mjpeg", buffer=4096) as viewer:
            eventually(lambda: panel.drawn > 3)
            eventually(lambda: not preview._server.server_state.connections)
            assert cut_off(viewer)
    finally:
        stop.set()
        playing.join()


def test_so_many_may_look_and_no_more(preview: Preview) -> None:
    show(preview)
    viewers = [streaming(preview, "/camera/door.mjpeg") for _ in range(MOST_VIEWERS)]
    for viewer in viewers:
        assert b"200 OK" in viewer.__enter__().recv(4096)
    status, _, body = ask(preview, "/camera/door.mjpeg")
    assert status == 503
    assert b"close another window" in body
    assert ask(preview, "/camera/door.jpg")[0] == 200
    for viewer in viewers:
        viewer.__exit__(None, None, None)

    def let_in() -> bool:
        with streaming(preview, "/camera/door.mjpeg") as viewer:
            return b"200 OK" in viewer.recv(4096)

    eventually(let_in)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8090", "127.0.0.1.evil.example"])
def test_another_host_is_refused(preview: Preview, host: str) -> None:
    show(preview)
    for path in ("/", "/events", "/camera/door.mjpeg", "/camera/door.jpg", "/face/1.jpg"):
        assert ask(preview, path, Host=host)[0] == 400
    assert ask(preview, "/", Host="localhost:1")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_gets_no_pictures(preview: Preview, site: str) -> None:
    panel = show(preview)
    for path in ("/events", "/camera/door.mjpeg", "/camera/door.jpg"):
        status, headers, _ = ask(preview, path, **{"Sec-Fetch-Site": site})
        assert status in {403, 404}
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert panel.drawn == 0
    assert ask(preview, "/camera/door.jpg", **{"Sec-Fetch-Site": "same-origin"})[0] == 200


def test_the_page_loads_nothing_from_elsewhere(preview: Preview) -> None:
    for path, media in {"/": "html", "/page.css": "css", "/page.js": "javascript"}.items():
        status, headers, body = ask(preview, path)
        assert status == 200
        assert media in headers["content-type"]
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert b"http://" not in body
        assert b"https://" not in body
        assert b"style=" not in body


def test_what_is_not_there_is_not_found_and_a_head_ends(preview: Preview) -> None:
    show(preview)
    for path in (
        "/camera/yard.mjpeg",
        "/camera/yard.jpg",
        "/face/1.jpg",
        "/visit/1.jpg",
        "/camera/../door.jpg",
    ):
        assert ask(preview, path)[0] == 404
    for path in ("/camera/door.mjpeg", "/events"):
        assert ask(preview, path, "HEAD")[0] == 200


def test_visits_that_end_without_a_face_say_why(preview: Preview) -> None:
    panel = show(preview)
    for index in range(40):
        small = [Look(1, FACE, None, "small")] if index < 5 else []
        averted = [Look(2, FACE, None, "averted" if index % 3 else "tilted")] if index < 10 else []
        fleeting = [Look(3, FACE, GOOD, "best")] if index == 3 else []
        good = [Look(4, FACE, GOOD, "kept")] if index < 8 else []
        panel.put(seen(index, small + averted + fleeting + good, [shot(4)] if index == 15 else None))
    eventually(lambda: panel.counts.without == 3)
    events = told(preview)
    assert {each["track"]: each["reason"] for each in events["visits"]} == {
        1: "small", 2: "averted", 3: "fleeting",
    }  # fmt: skip
    assert events["visits"][-1]["looks"] == {"averted": 6, "tilted": 4}
    assert [each["track"] for each in events["faces"]] == [4]
    assert events["faces"][0]["parts"] == GOOD.parts
    assert events["cameras"][0]["faces"] == 1
    status, headers, body = ask(preview, "/face/1.jpg")
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "image/jpeg", "no-store")
    assert image_of(body).shape == (90, 90, 3)


def test_who_stays_while_nothing_changes_has_not_gone(preview: Preview) -> None:
    panel = show(preview)
    panel.put(seen(0, [Look(1, FACE, None, "small")]))
    for index in range(1, 100):
        panel.put(seen(index, [], inspected=False))
    eventually(lambda: panel.counts.still == 99)
    assert panel.counts.without == 0
    panel.put(seen(100, []))
    panel.put(seen(130, []))
    eventually(lambda: panel.counts.without == 1)


def test_frames_are_counted_by_what_became_of_them(preview: Preview) -> None:
    panel = show(preview)
    panel.put(seen(0, []))
    panel.put(seen(3, [], inspected=False))  # two were dropped before it
    panel.put(seen(4, [], inspected=False, late=True))
    for index in (5, 6):
        panel.put(Seen(frame(index, None, dark=True), [], [], False))
    eventually(lambda: panel.counts.gaps == 1)
    state = panel.state()
    assert [state[name] for name in ("frames", "inspected", "still", "late", "gaps")] == [5, 1, 1, 3, 1]
    assert state["state"] == "dark"
    assert re.fullmatch(r"no picture since \d+ s", state["words"])
    panel.put(seen(7, []))
    eventually(lambda: panel.state()["state"] == "live")


def told_of(preview: Preview, face: int) -> bool:
    faces = told(preview)["faces"]
    return bool(faces) and faces[-1]["number"] == face


def test_only_the_last_faces_are_kept_and_small(preview: Preview) -> None:
    panel = show(preview)
    for turn in range(4):
        for track in range(30):
            panel.put(seen(turn * 30 + track, [], [shot(turn * 30 + track, side=700)]))
        eventually(partial(told_of, preview, (turn + 1) * 30))
    faces = told(preview)["faces"]
    assert [each["number"] for each in faces] == list(range(121 - KEPT, 121))
    assert ask(preview, "/face/70.jpg")[0] == 404
    body = ask(preview, "/face/120.jpg")[2]
    assert image_of(body).shape == (160, 160, 3)


def decoded(panel: Panel) -> Image:
    return image_of(panel.picture().jpeg)


def test_masks_are_black_and_boxes_have_the_colour_of_their_verdict(preview: Preview) -> None:
    corner, right = ((0.0, 0.5), (0.2, 0.5), (0.2, 1.0), (0.0, 1.0)), ((0.5, 0.1), (0.9, 0.1), (0.9, 0.9))
    panel = show(preview, camera(masks=(corner,), zones=(right,)))
    panel.put(seen(0, [Look(1, FACE, None, "sent")]))
    sent = decoded(panel)
    assert sent.shape == (360, 640, 3)
    assert sent[200:350, 10:110].max() < 20
    blue, green, red = sent[79:82, 104:120].reshape(-1, 3).mean(0)
    assert green > blue + 30 > red  # bright green
    blue, green, red = sent[34:38, 400:500].reshape(-1, 3).astype(int).max(0)
    assert min(blue, green) > red + 60  # the zone's outline
    time.sleep(0.11)
    panel.put(seen(1, [Look(1, FACE, None, "averted")]))
    blue, _, red = decoded(panel)[79:82, 104:120].reshape(-1, 3).mean(0)
    assert red > blue + 80  # orange


def test_a_frame_that_was_not_looked_at_keeps_the_boxes_but_dimmed(preview: Preview) -> None:
    panel = show(preview)
    panel.put(seen(0, [Look(1, FACE, GOOD, "best")]))
    looked = decoded(panel)
    time.sleep(0.11)
    panel.put(seen(1, [], inspected=False))
    still = decoded(panel)
    edge = np.s_[79:82, 104:120]
    plain = grey()[edge].astype(int)
    assert 10 < np.abs(still[edge] - plain).mean() < np.abs(looked[edge] - plain).mean() - 10
    assert still[10:30, 10:50].min() < 60  # the word at the corner


@pytest.mark.parametrize("size", [(1, 1), (16, 2), (2, 4000), (5000, 3000)])
def test_a_picture_of_any_size_is_drawn(size: tuple[int, int], preview: Preview) -> None:
    panel = show(preview, camera(masks=(((0, 0), (1, 0), (1, 1)),)))
    far = Detection((-500, -500, 9000, 9000), 0.9)
    panel.put(Seen(frame(0, grey(*size)), [Look(1, far, GOOD, "a-new-reason")], [], True))
    assert max(decoded(panel).shape) <= paint.SIDE


def test_a_picture_is_drawn_ten_times_a_second_at_most(preview: Preview) -> None:
    panel = show(preview)
    begin, turns = time.monotonic(), 0
    while time.monotonic() < begin + 1:
        panel.put(seen(turns, []))
        panel.picture()
        turns += 1
    assert turns > panel.drawn
    assert panel.drawn <= 11


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PreviewError, match=r"preview\.port"), Preview(sections.Preview(port=port)):
            pass
        (tmp_path / "edge.toml").write_text('camera = [{ name = "door", source = "scene" }]')
        done = facerelay(
            "capture", "--preview", "-c", f"{tmp_path}/edge.toml", "--set", f"preview.port={port}"
        )
    assert done.returncode == 1
    assert f"cannot have port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_opened_in_a_browser_where_there_is_a_display(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, opened = tmp_path / "browser", tmp_path / "opened"
    program.write_text(f'#!/bin/sh\necho "$1" >> {opened}.part; mv {opened}.part {opened}\n')
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with previewing(sections.Preview(port=0), wanted=True):
        assert not any(each.name == "browser" for each in threading.enumerate())
    monkeypatch.setenv("DISPLAY", ":99")
    with previewing(sections.Preview(port=0), wanted=True):
        eventually(opened.exists)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", opened.read_text())


def states(preview: Preview) -> dict[str, str]:
    return {name: panel.state()["state"] for name, panel in preview.panels.items()}


def test_a_page_of_two_cameras_lives_through_the_end_of_one(
    tmp_path: Path, portrait: Path, preview: Preview
) -> None:
    cameras = camera("hall"), camera("desk", str(portrait))
    with capturing(settings(tmp_path, *cameras), preview):
        eventually(lambda: states(preview) == {"hall": "live", "desk": "ended"}, 60)
        events = told(preview)
        assert [each["name"] for each in events["cameras"]] == ["hall", "desk"]
        assert events["cameras"][0]["size"] == [1280, 720]
        assert decoded(preview.panels["desk"]).shape[0] > decoded(preview.panels["desk"]).shape[1]
        hall = preview.panels["hall"]
        frames = hall.counts.frames
        eventually(lambda: hall.counts.frames > frames + 10)
        assert "desk" in {each["camera"] for each in events["faces"]}  # chosen as its camera ended
        assert ask(preview, "/camera/desk.jpg")[0] == ask(preview, "/camera/hall.jpg")[0] == 200


def test_a_reviewer_sees_in_a_browser_why_a_face_was_sent_or_not(tmp_path: Path, portrait: Path) -> None:
    (tmp_path / "edge.toml").write_text(f"""
        site = "home"
        broker = {{ url = "mqtt://127.0.0.1:{free_port()}" }}
        outbox = {{ path = "{tmp_path}/outbox.db" }}
        preview = {{ port = 0 }}
        visits = {{ min_eyes = 47.0 }}
        [[camera]]
        name = "hall"
        source = "scene"
        [[camera]]
        name = "desk"
        source = "{portrait}"
    """)
    command = [sys.executable, "-m", "facerelay", "capture", "--preview", "-c", str(tmp_path / "edge.toml")]
    part = Part("capture", command, tmp_path / "capture.log")
    part.start()
    try:
        with browsing(tmp_path) as tab:
            eventually(lambda: "the preview is at" in part.text())
            address = re.search(r"http://127\.0\.0\.1:\d+/", part.text())
            assert address is not None
            tab.size(1500, 950, dark=True)
            tab.open(address[0])
            tab.until("document.querySelectorAll('.camera').length === 2")
            tab.until("[...document.querySelectorAll('img.view')].every((each) => each.naturalWidth > 0)")
            tab.until("document.querySelectorAll('#faces li meter').length >= 6", 90)
            tab.until("document.querySelectorAll('#visits li .reason').length >= 1", 90)
            assert tab.value("document.querySelector('#visits .reason').textContent") == "Too small"
            assert "sent" in tab.value(
                "[...document.querySelectorAll('dt')].map((e) => e.textContent).join()"
            )
            assert "ended" in tab.value("document.querySelector('#camera-desk + .pill').textContent")
            tab.picture(tmp_path / "dark.png")
            assert image_of((tmp_path / "dark.png").read_bytes()).mean() < 110
            tab.value("document.getElementById('hold').click()")
            tab.until("document.querySelector('.camera canvas').width === 960")
            part.end()
            tab.until("document.getElementById('state').textContent.includes('ended')")
            assert tab.value("document.querySelectorAll('#faces li').length") >= 1
    finally:
        part.end()
    assert part.process is not None
    assert part.process.returncode == 0, part.text()
    assert "Traceback" not in part.text()


def test_frames_that_came_faster_than_is_asked_for_are_late(tmp_path: Path, preview: Preview) -> None:
    with capturing(settings(tmp_path, camera(pace=False), detect=sections.Detect(max_fps=5.0)), preview):
        eventually(lambda: "door" in preview.panels and preview.panels["door"].counts.frames > 90, 60)
        counts = preview.panels["door"].counts
        assert counts.late > 50
        assert counts.still < 20
