from __future__ import annotations

import contextlib
import http.server
import logging
import platform
import random
import struct
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from facerelay.edge import live, opening, video
from facerelay.edge.camera import CameraError, Frame, expand, open_camera, redact
from facerelay.edge.detect import Image

Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


def picture(value: int, size: tuple[int, int] = (64, 48)) -> Image:
    return np.full((size[1], size[0], 3), value, np.uint8)


def write_video(path: Path, frames: int = 10, rate: int = 10, title: str = "a title") -> Path:
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(20 + 20 * (number % 10)), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def play(source: str | Path, *, pace: bool = False) -> list[Frame]:
    return list(open_camera(str(source), pace=pace, stop=threading.Event()))


@contextlib.contextmanager
def serve(handle: Handler) -> Iterator[str]:
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                handle(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://someone:secret@127.0.0.1:{server.server_address[1]}/live?token=secret"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def mjpeg(count: int, pause: float = 0.02) -> Handler:
    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        request.end_headers()
        for number in range(count):
            data = cv2.imencode(".jpg", picture(number % 200))[1].tobytes()
            head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            request.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(pause)

    return handle


def test_a_file_gives_every_frame_in_order_with_its_time(tmp_path: Path) -> None:
    frames = play(write_video(tmp_path / "a.mp4"))
    assert [frame.index for frame in frames] == list(range(10))
    assert [round(frame.pts, 3) for frame in frames] == [round(n / 10, 3) for n in range(10)]
    assert frames[3].image.shape == (48, 64, 3)
    assert frames[3].image.dtype == np.uint8
    assert abs(int(frames[3].image.mean()) - 80) < 4
    assert frames[3].time.utcoffset() is not None


def test_a_paced_file_takes_its_own_time_and_leaves_out_what_is_late(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=12, rate=10)
    begin = time.monotonic()
    seen = []
    for frame in open_camera(str(path), pace=True, stop=threading.Event()):
        seen.append(frame.index)
        time.sleep(0.35)
    assert time.monotonic() - begin > 1.0
    assert seen[0] == 0
    assert len(seen) < 8


def test_stop_ends_a_paced_file(tmp_path: Path) -> None:
    stop = threading.Event()
    frames = open_camera(str(write_video(tmp_path / "a.mp4", rate=1)), pace=True, stop=stop)
    next(frames)
    threading.Timer(0.1, stop.set).start()
    begin = time.monotonic()
    assert list(frames) == []
    assert time.monotonic() - begin < 0.9


def test_full_range_and_limited_range_pictures_come_out_alike(tmp_path: Path) -> None:
    image = picture(230)
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    (frame,) = play(tmp_path / "a.jpg")
    assert abs(int(frame.image.mean()) - 230) < 4


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp"])
def test_a_single_picture_is_one_still_frame(tmp_path: Path, ending: str) -> None:
    cv2.imwrite(str(tmp_path / f"a.{ending}"), picture(90))
    (frame,) = play(tmp_path / f"a.{ending}")
    assert frame.still
    assert frame.image.shape == (48, 64, 3)


def test_a_folder_of_pictures_is_one_camera_in_the_order_of_names(tmp_path: Path) -> None:
    for name, value in (("b.png", 50), ("a.jpg", 20), ("c.png", 80)):
        cv2.imwrite(str(tmp_path / name), picture(value))
    (_, source), *none = expand(str(tmp_path))
    assert not none
    frames = play(source)
    assert [round(float(frame.image.mean()) / 10) for frame in frames] == [2, 5, 8]
    assert [frame.pts for frame in frames] == [0.0, 3.0, 6.0]


def test_each_video_of_a_folder_is_a_camera(tmp_path: Path) -> None:
    for name in ("front_door.mp4", "Garden View.mkv", "z.gif", ".hidden.mp4", "z.mp4", "notes.txt"):
        (tmp_path / name).touch()
    assert expand(str(tmp_path)) == [
        ("clip-1", str(tmp_path / "Garden View.mkv")),
        ("front_door", str(tmp_path / "front_door.mp4")),
        ("z", str(tmp_path / "z.gif")),
        ("clip-4", str(tmp_path / "z.mp4")),
    ]


@pytest.mark.parametrize(
    "names", [("clip-2.mp4", "my video.mp4"), ("clip-2.mp4", "my video.mp4", "your video.mp4")]
)
def test_no_video_of_a_folder_is_lost_to_another_of_its_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    cameras = expand(str(tmp_path))
    assert sorted(source for _, source in cameras) == sorted(str(tmp_path / name) for name in names)
    assert len(dict(cameras)) == len(names)


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    cv2.imwrite(str(tmp_path / "private.jpg"), picture(20))
    (folder / "a.jpg").symlink_to(tmp_path / "private.jpg")
    (folder / "a.mp4").symlink_to(write_video(tmp_path / "private.mp4"))
    with pytest.raises(CameraError, match="neither videos nor pictures"):
        expand(str(folder))
    cv2.imwrite(str(folder / "b.jpg"), picture(80))
    assert [name for name, _ in expand(str(folder))] == ["folder"]
    assert len(play(folder)) == 1


def test_other_sources_are_one_camera() -> None:
    assert expand("scene") == [("scene", "scene")]
    assert expand("0") == [("webcam-0", "0")]
    url = "rtsp://user:pass@door-cam/stream"
    assert expand(url) == [("door-cam", url)]
    assert expand("http://192.0.2.1/mjpg") == [("camera", "http://192.0.2.1/mjpg")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text.mp4", b"hello, not a video at all" * 100, "not a video"),
        ("empty.mp4", b"", "not a video"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not a video"),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/hostname\n", "not a video"),
    ],
)
def test_what_is_no_video_is_a_clear_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CameraError, match=says):
        play(tmp_path / name)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999)))
    (tmp_path / "a.png").write_bytes(data + chunk(b"IEND", b""))
    with pytest.raises(CameraError):
        play(tmp_path / "a.png")


def test_a_damaged_video_gives_what_can_be_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=30)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    assert len(play(path)) > 5


def test_a_title_that_is_no_utf8_does_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", title="here it is")
    data = path.read_bytes()
    assert b"here it is" in data
    path.write_bytes(data.replace(b"here it is", b"here \xff\xfe is"))
    assert len(play(path)) == 10


def test_a_codec_nobody_knows_is_a_clear_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    data = path.read_bytes()
    assert b"V_MPEG4/ISO/ASP" in data
    path.write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_MPEG4/ISO/XXX"))
    with pytest.raises(CameraError, match="codec"):
        play(path)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "avi", "ts", "gif", "jpg", "png", "webp"])
def test_damage_of_any_kind_is_a_camera_error_at_most(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending in {"gif", "jpg", "png", "webp"}:
        cv2.imwrite(str(path), picture(90))
    else:
        write_video(path)
    whole, chance = path.read_bytes(), random.Random(1)  # noqa: S311 - the same damage each time
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 5, 50])):
            data[chance.randrange(chance.choice([len(data), min(len(data), 600)]))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        with contextlib.suppress(CameraError):
            for each in video.read_file(path):
                each.image()


def test_no_time_stamp_makes_the_clock_leap() -> None:
    clock, rate = video._Clock(), 1e-6
    times = [clock.at(raw, rate) for raw in (5.0, 4.0, None, 1e300, -1e300, float("nan"))]
    assert times == sorted(times)
    assert times[-1] <= 50.0


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no such file"):
        play(tmp_path / "none.mp4")
    with pytest.raises(CameraError, match="no such file"):
        expand(str(tmp_path / "none"))
    with pytest.raises(CameraError, match="neither videos nor pictures"):
        expand(str(tmp_path))
    with pytest.raises(CameraError, match=r"only rtsp://"):
        play("ftp://host/a.mp4")
    if platform.system() == "Linux":
        with pytest.raises(CameraError, match="no webcam /dev/video97"):
            play("97")


def test_no_password_in_a_name_or_an_error() -> None:
    url = "rtsp://admin:p@ss:word@10.0.0.1:554/ch1?auth=secret#x"
    assert redact(url) == "rtsp://10.0.0.1:554/ch1"
    error = CameraError(url, "is off")
    assert str(error) == "camera rtsp://10.0.0.1:554/ch1: is off"
    assert redact("clips/a.mp4") == "clips/a.mp4"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:pa/ss@cam/1", "rtsp://…"),
        ("rtsp://admin:pa#ss@cam/1", "rtsp://…"),
        ("rtsp://admin:pa?ss@cam/1", "rtsp://…"),
        ("rtsp://cam:554/user=admin&password=hunter2&channel=1", "rtsp://cam:554/user=admin&password=…&channel=1"),
        ("rtsp://cam/user=admin_Pass=hunter2/1", "rtsp://cam/user=admin_Pass=…"),
        ("http://cam/x;pwd=hunter2?u=a", "http://cam/x;pwd=…"),
        ("admin:hunter2@rtsp://cam/1", "…://cam/1"),
    ],
)  # fmt: skip
def test_a_password_in_an_odd_place_is_not_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "user", ["admin:hunter2\u2105", "admin:hun[ter2", "admin:x]hunter2", "admin:hunter2/x"]
)
def test_an_url_that_cannot_be_read_is_an_error_without_its_password(user: str) -> None:
    url = f"rtsp://{user}@cam/1"
    for take in (expand, play):
        with pytest.raises(CameraError, match="cannot be read") as caught:
            take(url)
        assert "hun" not in "".join(traceback.format_exception(caught.value))


def test_no_part_of_a_password_becomes_the_name_of_a_camera() -> None:
    assert expand("rtsp://hunter2/x@cam/1")[0][0] == "camera"


def test_a_live_stream_gives_its_newest_frame() -> None:
    stop = threading.Event()
    with (
        serve(mjpeg(1000, 0.01)) as url,
        contextlib.closing(open_camera(url, pace=True, stop=stop)) as frames,
    ):
        indices = []
        for frame in frames:
            indices.append(frame.index)
            time.sleep(0.2)
            if len(indices) == 4:
                stop.set()
    assert indices[-1] - indices[0] > 12


def test_a_live_stream_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.05)
    caplog.set_level(logging.WARNING)
    stop = threading.Event()
    times: list[float] = []
    with serve(mjpeg(3)) as url:
        for frame in open_camera(url, pace=True, stop=stop):
            times.append(frame.pts)
            if len(times) >= 7:
                stop.set()
    assert times == sorted(times)
    assert "trying again" in caplog.text
    assert "secret" not in caplog.text


def test_a_server_that_says_nothing_cannot_hold_the_camera(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.05)
    caplog.set_level(logging.WARNING)
    release, stop = threading.Event(), threading.Event()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        release.wait(30)
        request.close_connection = True

    with serve(handle) as url:
        threading.Timer(2.0, stop.set).start()
        begin = time.monotonic()
        assert list(open_camera(url, pace=True, stop=stop)) == []
        assert time.monotonic() - begin < 6
        release.set()
    assert "nothing came for 0.3 s; trying again" in caplog.text


def test_a_live_camera_survives_whatever_its_reader_meets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.05)
    path, stop = write_video(tmp_path / "a.mp4"), threading.Event()
    tries: list[int] = []

    def open_() -> opening.Container:
        tries.append(1)
        if len(tries) == 1:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return av.open(str(path))

    timer = threading.Timer(20, stop.set)
    timer.start()
    with live.Live("rtsp://cam", open_, stop) as pictures:
        next(iter(pictures))
    timer.cancel()
    assert "UnicodeDecodeError; trying again" in caplog.text


def test_a_live_camera_that_falls_silent_gives_blank_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENT_S", 0.1)
    release, stop = threading.Event(), threading.Event()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        mjpeg(30)(request)
        release.wait(30)

    timer = threading.Timer(20, stop.set)
    timer.start()
    frames: list[Frame] = []
    with serve(handle) as url:
        for frame in open_camera(url, pace=True, stop=stop):
            frames.append(frame)
            if sum(each.blank for each in frames) == 3:
                stop.set()
        release.set()
    timer.cancel()
    assert not frames[0].blank
    assert [each.blank for each in frames[-3:]] == [True] * 3
    assert [each.pts for each in frames] == sorted(each.pts for each in frames)


def test_a_picture_that_cannot_be_converted_does_not_end_a_live_camera(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    convert, tries = video.to_bgr, iter(range(1000))

    def sometimes(frame: av.VideoFrame) -> Image:
        if next(tries) < 3:
            raise ValueError("Conversion to numpy array with format `none` is not supported")
        return convert(frame)

    monkeypatch.setattr(video, "to_bgr", sometimes)
    stop = threading.Event()
    timer = threading.Timer(20, stop.set)
    timer.start()
    with serve(mjpeg(1000)) as url:
        for frame in open_camera(url, pace=True, stop=stop):
            if not frame.blank:
                stop.set()
    timer.cancel()
    assert next(tries) > 3
    assert caplog.text.count("left out") == 1


@pytest.mark.parametrize("kind", ["hls", "ffconcat", "redirect"])
def test_a_camera_cannot_have_an_inner_service_asked(kind: str) -> None:
    asked: list[str] = []

    def inner(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.send_error(404)

    def camera(request: http.server.BaseHTTPRequestHandler) -> None:
        body = {
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
            "ffconcat": f"ffconcat version 1.0\nfile {other}\n",
            "redirect": "",
        }[kind].encode()
        request.send_response(302 if kind == "redirect" else 200)
        if kind == "redirect":
            request.send_header("Location", other)
        request.send_header(
            "Content-Type", "application/vnd.apple.mpegurl" if kind == "hls" else "text/plain"
        )
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with serve(inner) as other, serve(camera) as url:
        with pytest.raises(CameraError, match="not followed"):
            opening.live_opener(url)()
        assert asked == []


def test_a_playlist_from_the_network_cannot_open_a_file(tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.ts")

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        body = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/vnd.apple.mpegurl")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    stop = threading.Event()
    with serve(handle) as url:
        threading.Timer(1.5, stop.set).start()
        assert list(open_camera(url, pace=True, stop=stop)) == []


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp"])
def test_a_still_picture_of_any_name_is_one_frame(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture%03d{ending}"
    done, data = cv2.imencode(ending, np.full((60, 80, 3), 90, dtype=np.uint8))
    assert done
    path.write_bytes(data.tobytes())
    frames = list(open_camera(str(path), pace=False, stop=threading.Event()))
    assert [frame.image.shape for frame in frames] == [(60, 80, 3)]
    assert frames[0].still
