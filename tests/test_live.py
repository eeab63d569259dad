from __future__ import annotations

import http.server
import logging
import signal
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import av
import cv2
import numpy as np
import pytest

import cameras
from facerelay.edge.cameras import health, live, opening, stream, video
from facerelay.edge.cameras.camera import Frame, open_camera
from facerelay.edge.cameras.raster import Raster
from servers import free_port
from web import Handler, serve

DEADLINE_S = 30.0


class Watch:
    """The frames of one camera, taken one by one."""

    def __init__(self, url: str, **how: object) -> None:
        self.stop = threading.Event()
        self._timer = threading.Timer(9 * DEADLINE_S, self.stop.set)
        self._frames = open_camera(url, pace=True, stop=self.stop, **how)  # type: ignore[arg-type]
        self.seen: list[Frame] = []

    def until(self, wanted: Callable[[Frame], bool], seconds: float = DEADLINE_S) -> Frame:
        """Take frames until one is as wanted, and return it."""
        deadline = time.monotonic() + seconds
        for frame in self._frames:
            self.seen.append(frame)
            if wanted(frame):
                return frame
            assert time.monotonic() < deadline, f"none in {seconds} s: {self.seen[-3:]}"
        raise AssertionError("the camera ended")

    def flow(self, count: int = 5, seconds: float = DEADLINE_S) -> Frame:
        """Take so many pictures."""
        for _ in range(count):
            frame = self.until(pictured, seconds)
        return frame

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._frames.close()


def pictured(frame: Frame) -> bool:
    return not frame.blank


def dark(frame: Frame) -> bool:
    return frame.dark


def cost() -> tuple[int, int]:
    """Return how many threads of cameras there are, and open files in all."""
    threads = [each for each in threading.enumerate() if each.name == "camera"]
    return len(threads), len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is one after 1 s: the real limits only make a test longer."""
    monkeypatch.setattr(health, "STALL_S", 1.0)
    monkeypatch.setattr(live, "STALL_S", 1.0)
    monkeypatch.setattr(health, "_AT_ONCE_S", 0.0)


def blank_url() -> str:
    """Return the address of a camera that is not there."""
    return f"rtsp://someone:secret@127.0.0.1:{free_port()}/live"


def jpegs(values: Iterable[int], pause: float = 0.02) -> Handler:
    """Return what sends grey pictures."""

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        request.end_headers()
        for value in values:
            data = cv2.imencode(".jpg", np.full((48, 64, 3), value, np.uint8))[1].tobytes()
            head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            request.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(pause)

    return handle


CAMERAS = {"rtsp": cameras.rtsp, "mjpeg": cameras.mjpeg}


@pytest.fixture(params=CAMERAS)
def camera(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[cameras.Camera]:
    with CAMERAS[request.param](tmp_path) as each:
        yield each


def test_a_live_stream_gives_its_newest_frame(camera: cameras.Camera) -> None:
    with Watch(camera.url) as watch:
        first = watch.flow(3)
        for _ in range(4):
            time.sleep(0.3)
            last = watch.flow(1)
    assert last.index - first.index > 12
    assert last.pts - first.pts > 1.0


def test_a_camera_that_is_killed_and_comes_back_flows_again_within_five_seconds(
    camera: cameras.Camera, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Watch(camera.url) as watch:
        watch.flow()
        camera.kill()
        gone = watch.until(dark).pts
        watch.until(lambda frame: frame.pts > gone + 3)
        assert all(frame.dark for frame in watch.seen[-3:])
        camera.start()
        came = time.monotonic()
        assert watch.until(pictured).size == cameras.SIZES[0]
        assert time.monotonic() - came < 5
        watch.flow()
    assert [frame.pts for frame in watch.seen] == sorted(frame.pts for frame in watch.seen)
    assert [frame.index for frame in watch.seen] == sorted(frame.index for frame in watch.seen)
    assert caplog.text.count("trying again") <= 3
    assert caplog.text.count("back after") == 1
    assert "secret" not in caplog.text


@pytest.mark.usefixtures("quick")
def test_a_camera_that_hangs_again_and_again_flows_again_and_leaks_nothing(camera: cameras.Camera) -> None:
    with Watch(camera.url) as watch:
        watch.flow()
        before = cost()
        for _ in range(3):
            camera.send(signal.SIGSTOP)
            watch.until(dark)
            camera.send(signal.SIGCONT)
            came = time.monotonic()
            watch.flow(1)
            assert time.monotonic() - came < 5
            watch.flow()
        deadline = time.monotonic() + DEADLINE_S
        while cost() > before and time.monotonic() < deadline:
            watch.flow(1)
        assert cost() <= before


def test_a_camera_that_is_not_there_is_dark_from_the_beginning() -> None:
    with Watch(blank_url()) as watch:
        watch.until(lambda _: len(watch.seen) == 3)
    assert all(frame.blank and frame.dark for frame in watch.seen)


def test_a_camera_that_is_slow_between_pictures_is_not_dark() -> None:
    release = threading.Event()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        jpegs(range(30))(request)
        release.wait(DEADLINE_S)

    with serve(handle) as url, Watch(url) as watch:
        watch.until(lambda frame: frame.blank and not watch.seen[0].blank)
        watch.until(lambda frame: frame.blank)
        release.set()
    assert not any(frame.dark for frame in watch.seen)
    assert [frame.pts for frame in watch.seen] == sorted(frame.pts for frame in watch.seen)


def test_a_camera_of_few_pictures_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "STALL_S", 0.4)
    monkeypatch.setattr(live, "SILENT_S", 0.2)
    with serve(jpegs(range(200), pause=0.8)) as url, Watch(url) as watch:
        watch.until(lambda frame: pictured(frame) and last_pictures(watch.seen, 3) >= 4)
    assert caplog.text.count("trying again") <= 1


def last_pictures(frames: list[Frame], blanks: int) -> int:
    """Return how many pictures came since the camera was gone, if there were so many blanks between them."""
    since = next((n for n, frame in enumerate(reversed(frames)) if frame.dark), len(frames))
    latest = frames[len(frames) - since :]
    return sum(map(pictured, latest)) if sum(frame.blank for frame in latest) >= blanks else 0


@pytest.mark.parametrize("kind", CAMERAS)
def test_a_stream_that_swaps_its_size_goes_on(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with CAMERAS[kind](tmp_path) as camera, Watch(camera.url) as watch:
        assert watch.flow().size == cameras.SIZES[0]
        for size in (cameras.SIZES[1], cameras.SIZES[0], cameras.SIZES[1]):
            camera.send(signal.SIGUSR1)
            frame = watch.until(lambda frame, size=size: frame.size == size)  # type: ignore[misc]
            assert frame.image.shape == (size[1], size[0], 3)
        watch.flow()
    assert "the picture is now 480x352" in caplog.text or "back after" in caplog.text


def test_a_frozen_stream_is_opened_again_after_ever_longer_times(
    camera: cameras.Camera, caplog: pytest.LogCaptureFixture
) -> None:
    with Watch(camera.url, freeze_s=0.5) as watch:
        watch.flow(20)
        assert "did not change" not in caplog.text
        camera.send(signal.SIGUSR2)
        watch.until(lambda _: "did not change" in caplog.text)
        first = watch.flow().pts
        watch.until(lambda frame: pictured(frame) and frame.pts > first + 2)
    assert len({frame.index for frame in watch.seen if pictured(frame)}) > 20


def test_a_still_stream_may_stay_as_it_is_where_that_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with cameras.mjpeg(tmp_path) as camera, Watch(camera.url, freeze_s=0) as watch:
        camera.send(signal.SIGUSR2)
        watch.flow(40)
    assert not caplog.text


@pytest.mark.parametrize("transport", ["auto", "udp"])
def test_a_camera_that_takes_only_udp_is_read_by_udp(
    transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with cameras.rtsp(tmp_path, "--udp") as camera, Watch(camera.url, transport=transport) as watch:
        watch.flow()
        camera.kill()
        watch.until(dark)
        camera.start()
        watch.flow()
    assert "320x240 h264 by RTSP over UDP" in caplog.text


def test_what_the_camera_took_is_asked_for_first_the_next_time(tmp_path: Path) -> None:
    with cameras.rtsp(tmp_path, "--udp") as camera:
        open_ = opening.live_opener(camera.url)
        for _ in range(2):
            with open_() as container:
                assert opening.describe(container) == "320x240 h264 by RTSP over UDP"
        assert open_.__closure__ is not None
        assert ("udp", "tcp") in [cell.cell_contents for cell in open_.__closure__]


def test_a_transport_that_is_set_is_the_only_one(tmp_path: Path) -> None:
    with cameras.rtsp(tmp_path, "--udp") as camera, pytest.raises(OSError, match="Protocol not supported"):
        opening.live_opener(camera.url, transport="tcp")()
    with cameras.rtsp(tmp_path) as camera, opening.live_opener(camera.url)() as container:
        assert opening.describe(container) == "320x240 h264 by RTSP over TCP"


def test_an_opener_that_hangs_holds_up_neither_the_camera_nor_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "OPENING_S", 0.3)
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(live, "SILENT_S", 0.2)
    monkeypatch.setattr(live, "STALL_S", 0.2)
    release, stop, tries = threading.Event(), threading.Event(), []

    def open_() -> opening.Container:
        tries.append(1)
        release.wait(DEADLINE_S)
        raise opening.CameraError("rtsp://cam", "was released")

    before = cost()
    with live.Live("rtsp://cam", open_, stop) as pictures:
        for count, (_, picture) in enumerate(pictures):
            assert picture.dark
            if count == 15:
                break
        assert len(tries) == live.MOST_HANGING
        release.set()
        deadline = time.monotonic() + DEADLINE_S
        for _ in pictures:
            if len(tries) > live.MOST_HANGING:
                break
            assert time.monotonic() < deadline
    while cost() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cost() <= before
    assert "nothing came for" in caplog.text


def test_a_server_that_says_nothing_cannot_hold_the_camera(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "OPEN_TIMEOUT_S", 0.3)
    release = threading.Event()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        release.wait(DEADLINE_S)
        request.close_connection = True

    with serve(handle) as url, Watch(url) as watch:
        watch.until(dark)
        watch.until(dark)
        release.set()
    assert not any(pictured(frame) for frame in watch.seen)
    assert "nothing came in time; trying again" in caplog.text


def test_a_stream_that_ends_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    with serve(jpegs(range(3))) as url, Watch(url) as watch:
        watch.until(lambda frame: frame.index >= 7)
    assert [frame.pts for frame in watch.seen] == sorted(frame.pts for frame in watch.seen)
    assert caplog.text.count("trying again") == 1
    assert "secret" not in caplog.text


def test_a_live_camera_survives_whatever_its_reader_meets(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes())
    stop, tries = threading.Event(), []

    def open_() -> opening.Container:
        tries.append(1)
        if len(tries) == 1:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return opening.open_file(tmp_path / "a.jpg")

    with live.Live("rtsp://cam", open_, stop) as pictures:
        assert next(index for index, picture in pictures if picture.raster() is not None) == 0
    assert "UnicodeDecodeError; trying again" in caplog.text


def test_a_picture_that_cannot_be_converted_does_not_end_a_live_camera(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    convert, tries = video.to_raster, iter(range(1000))

    def sometimes(frame: av.VideoFrame) -> Raster:
        if next(tries) < 3:
            raise ValueError("Conversion to numpy array with format `none` is not supported")
        return convert(frame)

    monkeypatch.setattr(video, "to_raster", sometimes)
    with serve(jpegs(range(200))) as url, Watch(url) as watch:
        watch.flow(2)
    assert next(tries) > 3
    assert caplog.text.count("left out") == 1


def test_a_decoder_that_falls_behind_leaves_frames_out_and_stays_near(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stream, "LATE_S", 0.3)
    monkeypatch.setattr(stream, "_CAUGHT_UP_S", 0.1)
    check = video._check

    def slowly(frame: av.VideoFrame, source: str, most: int) -> None:
        time.sleep(0.15)
        check(frame, source, most)

    with cameras.rtsp(tmp_path) as camera, opening.live_opener(camera.url)() as container:
        monkeypatch.setattr(video, "_check", slowly)
        subject = stream.Stream(container, "rtsp://cam")
        lags, begin = [], time.monotonic()
        for _, at in subject:
            lags.append(time.monotonic() - at)
            if time.monotonic() - begin > 5:
                break
    # Of 15 frames a second it decodes not even 7: in the end it would be 2.7 s behind.
    assert max(lags) < 1.5
    assert subject.passed > len(lags) + 10


def test_of_a_webcam_every_picture_is_copied_while_it_is_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A closed webcam's buffers are gone: what was not copied by then would end the process."""
    path, copies = tmp_path / "a.jpg", list[str]()
    cv2.imwrite(str(path), np.full((48, 64, 3), 70, np.uint8))
    copied = video.copied

    def watched(frame: av.VideoFrame, source: str) -> Callable[[], Raster]:
        copies.append(threading.current_thread().name)
        return copied(frame, source)

    monkeypatch.setattr(live, "copied", watched)
    monkeypatch.setattr(live, "lends", lambda _: True)
    with live.Live("0", lambda: opening.open_file(path), threading.Event()) as pictures:
        raster = next(picture.raster() for _, picture in pictures if not picture.dark)
        assert raster is not None
        assert copies[0] == "camera"


@pytest.mark.parametrize(
    ("name", "lent"),
    [("video4linux2,v4l2", True), ("avfoundation", True), ("rtsp", False), ("mpjpeg", False)],
)
def test_the_pictures_of_webcams_alone_are_lent(name: str, *, lent: bool) -> None:
    container = types.SimpleNamespace(format=types.SimpleNamespace(name=name))
    assert opening.lends(container) == lent  # type: ignore[arg-type]
