from __future__ import annotations

import contextlib
import http.server
import platform
import random
import struct
import threading
import time
import traceback
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from facerelay.edge.cameras import live, opening, video
from facerelay.edge.cameras.camera import CameraError, Frame, expand, open_camera, redact
from facerelay.edge.cameras.raster import Image
from web import files, serve


def picture(value: int, size: tuple[int, int] = (64, 48)) -> Image:
    return np.full((size[1], size[0], 3), value, np.uint8)


def write_video(
    path: Path,
    frames: int = 10,
    rate: int = 10,
    title: str = "a title",
    options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=options or {}) as container:
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


def test_a_file_gives_every_frame_in_order_with_its_time(tmp_path: Path) -> None:
    frames = play(write_video(tmp_path / "a.mp4"))
    assert [frame.index for frame in frames] == list(range(10))
    assert [round(frame.pts, 3) for frame in frames] == [round(n / 10, 3) for n in range(10)]
    assert frames[3].image.shape == (48, 64, 3)
    assert frames[3].image.dtype == np.uint8
    assert abs(int(frames[3].image.mean()) - 80) < 4
    assert frames[3].time.utcoffset() is not None


def test_a_paced_file_takes_its_own_time_and_says_what_is_late(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=12, rate=10)
    begin = time.monotonic()
    late = []
    for frame in open_camera(str(path), pace=True, stop=threading.Event()):
        late.append(frame.late)
        time.sleep(0 if frame.late else 0.35)
    assert time.monotonic() - begin > 1.0
    assert len(late) == 12
    assert not late[0]
    assert sum(late) > 4


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
                raster = each.raster()
                assert raster is not None
                assert raster.cut((0, 0, *raster.size)).size


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
        assert all(frame.blank for frame in open_camera(url, pace=True, stop=stop))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp"])
def test_a_still_picture_of_any_name_is_one_frame(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture%03d{ending}"
    done, data = cv2.imencode(ending, np.full((60, 80, 3), 90, dtype=np.uint8))
    assert done
    path.write_bytes(data.tobytes())
    frames = list(open_camera(str(path), pace=False, stop=threading.Event()))
    assert [frame.image.shape for frame in frames] == [(60, 80, 3)]
    assert frames[0].still


def write_shots(folder: Path, pattern: str, numbers: dict[int, int], width: int = 64) -> None:
    for number, value in numbers.items():
        cv2.imwrite(str(folder / (pattern % number)), picture(value, (width + number, 48)))


def test_a_numbered_sequence_is_a_video_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    write_shots(tmp_path, "shot-%d.png", {2: 20, 10: 80, 1: 10, 11: 110})
    write_shots(tmp_path, "shot-%04d.png", {3: 200})
    write_shots(tmp_path, "other-%d.png", {5: 200})
    frames = list(open_camera(str(tmp_path / "shot-%d.png"), pace=False, stop=threading.Event(), fps=10))
    assert [round(float(frame.image.mean())) for frame in frames] == [10, 20, 80, 110]
    assert [frame.size for frame in frames] == [(65, 48), (66, 48), (74, 48), (75, 48)]
    assert [frame.pts for frame in frames] == [0.0, 0.1, 0.2, pytest.approx(0.3)]
    assert not any(frame.still for frame in frames)


def test_the_zeros_of_a_sequence_count(tmp_path: Path) -> None:
    write_shots(tmp_path, "%03d.jpg", {7: 40, 1234: 90})
    write_shots(tmp_path, "%d.jpg", {8: 200})
    frames = play(tmp_path / "%03d.jpg")
    assert [round(float(frame.image.mean()) / 10) for frame in frames] == [4, 9]
    assert expand(str(tmp_path / "%03d.jpg")) == [("pictures", str(tmp_path / "%03d.jpg"))]
    assert expand(str(tmp_path / "Front Door-%d.jpg"))[0][0] == "pictures"
    assert expand(str(tmp_path / "Door_%d.jpg"))[0][0] == "door"


def test_a_damaged_picture_of_a_sequence_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shots(tmp_path, "%d.jpg", {1: 10, 4: 40})
    for number in (2, 3):
        (tmp_path / f"{number}.jpg").write_bytes(b"not a picture")
    frames = play(tmp_path / "%d.jpg")
    assert [round(frame.pts * 25) for frame in frames] == [0, 3]
    assert caplog.text.count("left out") == 1
    for number in (1, 4):
        (tmp_path / f"{number}.jpg").unlink()
    with pytest.raises(CameraError, match="none of its pictures"):
        play(tmp_path / "%d.jpg")


def test_a_damaged_picture_of_a_folder_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shots(tmp_path, "%d.jpg", {1: 10, 4: 40})
    for number in (2, 3):
        (tmp_path / f"{number}.jpg").write_bytes(b"not a picture")
    frames = play(tmp_path)
    assert [round(frame.pts) for frame in frames] == [0, 9]
    assert all(frame.still for frame in frames)
    assert caplog.text.count("left out") == 1
    for number in (1, 4):
        (tmp_path / f"{number}.jpg").unlink()
    with pytest.raises(CameraError, match="none of its pictures"):
        play(tmp_path)


def test_a_video_may_have_fewer_pixels_than_a_still_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(opening, "MAX_VIDEO_PIXELS", 64 * 48 - 1)
    with pytest.raises(CameraError):
        play(write_video(tmp_path / "a.mp4"))
    write_shots(tmp_path, "%d.png", {1: 10})
    assert len(play(tmp_path / "1.png")) == 1


def test_a_sequence_stays_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    (folder / "2.jpg").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "private.jpg"), picture(20))
    (folder / "1.jpg").symlink_to(tmp_path / "private.jpg")
    with pytest.raises(CameraError, match="no file of that folder"):
        play(folder / "%d.jpg")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none/%d.jpg", "no such folder"), ("%d-%d.jpg", "one %d"), ("%d/%d.jpg", "one %d"),
        ("cam%d/a.jpg", "one %d"), ("%d.mp4", "of pictures"), ("%d.jpg", "no file of that folder"),
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_be_is_a_clear_error(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(CameraError, match=says):
        play(tmp_path / name)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_recording_on_a_web_server_gives_every_frame_and_ends(tmp_path: Path, ending: str) -> None:
    write_video(tmp_path / f"a.{ending}", frames=40)
    with serve(files(tmp_path)) as url:
        frames = [frame for frame in play(f"{url}/a.{ending}?token=1") if not frame.blank]
    assert [frame.index for frame in frames] == list(range(40))
    assert round(frames[-1].pts - frames[0].pts, 2) == 3.9
    assert not any(frame.late for frame in frames)


def test_a_recording_on_a_web_server_is_paced(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=12)
    with serve(files(tmp_path)) as url:
        begin = time.monotonic()
        frames = [frame for frame in play(f"{url}/a.mp4", pace=True) if not frame.blank]
        assert time.monotonic() - begin > 1.0
    assert len(frames) == 12
    assert [frame.pts for frame in frames] == sorted(frame.pts for frame in frames)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_recording_that_breaks_off_is_an_error_after_what_came(tmp_path: Path, ending: str) -> None:
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    write_video(tmp_path / f"a.{ending}", frames=400, options=options)
    frames: list[Frame] = []
    with serve(files(tmp_path, share=0.6)) as url, pytest.raises(CameraError, match="broke off") as caught:
        frames.extend(open_camera(f"{url}/a.{ending}", pace=False, stop=threading.Event()))
    assert 100 < len(frames) < 350
    assert "secret" not in str(caught.value)


def test_a_single_picture_on_a_web_server_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.05)
    cv2.imwrite(str(tmp_path / "snap.jpg"), picture(90))
    stop, frames = threading.Event(), 0
    timer = threading.Timer(20, stop.set)
    timer.start()
    with serve(files(tmp_path)) as url:
        for frame in open_camera(f"{url}/snap.jpg", pace=True, stop=stop):
            frames += not frame.blank
            if frames == 3:
                stop.set()
    timer.cancel()
    assert frames == 3
