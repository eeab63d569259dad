from __future__ import annotations

import http.server
import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from facerelay.edge.cameras import hls, live, origin, playlist
from facerelay.edge.cameras.camera import CameraError, Frame, expand, open_camera
from web import Handler, answer, files, serve

RATE = 10


def write_hls(folder: Path, *, kind: str = "mpegts", seconds: int = 4, flags: str = "") -> Path:
    """Write a playlist of one-second segments with the real muxer, its pictures ever brighter."""
    options = {"hls_time": "1", "hls_list_size": "0", "hls_segment_type": kind}
    options |= {"hls_flags": flags} if flags else {}
    with av.open(str(folder / "live.m3u8"), "w", format="hls", options=options) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": str(RATE), "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(seconds * RATE):
            image = np.full((48, 64, 3), 20 + 5 * (number % 40), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return folder / "live.m3u8"


def play(url: str) -> list[Frame]:
    frames = open_camera(url, pace=False, stop=threading.Event())
    return [frame for frame in frames if not frame.blank]


@pytest.mark.parametrize(
    ("kind", "flags"), [("mpegts", ""), ("fmp4", ""), ("mpegts", "single_file"), ("fmp4", "single_file")]
)
def test_an_ended_playlist_is_a_recording(tmp_path: Path, kind: str, flags: str) -> None:
    write_hls(tmp_path, kind=kind, flags=flags)
    with serve(files(tmp_path)) as url:
        frames = play(f"{url}/live.m3u8?token=1")
    assert len(frames) == 4 * RATE
    assert [frame.index for frame in frames] == list(range(4 * RATE))
    assert round(frames[-1].pts - frames[0].pts, 2) == 3.9
    assert [frame.image.mean() for frame in frames] == sorted(frame.image.mean() for frame in frames)


def test_a_recording_goes_on_behind_another_beginning(tmp_path: Path) -> None:
    lists = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        text = write_hls(tmp_path / name, kind="fmp4", seconds=2).read_text()
        text = text.replace('URI="', f'URI="{name}/')
        lists.append("".join(f"{name}/{x}\n" if x.endswith(".m4s") else f"{x}\n" for x in text.splitlines()))
    second = "".join(
        f"{x}\n" for x in lists[1].splitlines() if not x.startswith(("#EXTM3U", "#EXT-X-ENDLIST"))
    )
    joined = lists[0].replace("#EXT-X-ENDLIST\n", "") + "#EXT-X-DISCONTINUITY\n" + second + "#EXT-X-ENDLIST\n"
    (tmp_path / "all.m3u8").write_text(joined)
    with serve(files(tmp_path)) as url:
        frames = play(f"{url}/all.m3u8")
    times = [frame.pts - frames[0].pts for frame in frames]
    assert len(frames) == 4 * RATE
    assert times == sorted(times)
    assert 3.5 < times[-1] < 4.5


def test_of_several_playlists_the_one_with_the_largest_picture_is_taken(tmp_path: Path) -> None:
    write_hls(tmp_path)
    (tmp_path / "main.m3u8").write_text(
        '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="x",URI="audio.m3u8"\n'
        "#EXT-X-STREAM-INF:BANDWIDTH=9000000,RESOLUTION=32x24\nsmall.m3u8\n"
        '#EXT-X-STREAM-INF:BANDWIDTH=100000,CODECS="avc1.4d401f,mp4a.40.2",RESOLUTION=64x48\nlive.m3u8\n'
    )
    asked: list[str] = []
    with serve(files(tmp_path, asked=asked)) as url:
        assert len(play(f"{url}/main.m3u8")) == 4 * RATE
    assert asked[:2] == ["main.m3u8", "live.m3u8"]
    assert "small.m3u8" not in asked


def test_a_segment_that_fails_ends_a_recording_after_what_came(tmp_path: Path) -> None:
    write_hls(tmp_path)
    (tmp_path / "live2.ts").unlink()
    frames: list[Frame] = []
    with serve(files(tmp_path)) as url, pytest.raises(CameraError, match="404") as caught:
        frames.extend(open_camera(f"{url}/live.m3u8", pace=False, stop=threading.Event()))
    assert sum(not frame.blank for frame in frames) == 2 * RATE
    assert "secret" not in str(caught.value)


class Growing:
    """A live playlist, as a camera serves it: three of many segments, one more with each second."""

    def __init__(self, folder: Path, *, ends_at: float = 1e9) -> None:
        self.folder, self.begin, self.ends_at = folder, time.monotonic(), ends_at
        self.asked: list[str] = []
        self._files = files(folder, asked=self.asked)

    @property
    def newest(self) -> int:
        return 3 + int(time.monotonic() - self.begin)

    def __call__(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if not request.path.startswith("/live.m3u8"):
            self._files(request)
            return
        newest = self.newest
        lines = [f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{newest - 2}\n"]
        lines += [f"#EXTINF:1.0,\nlive{number}.ts\n" for number in range(newest - 2, newest + 1)]
        ended = time.monotonic() - self.begin > self.ends_at
        answer(request, "".join([*lines, "#EXT-X-ENDLIST\n" if ended else ""]).encode())


def watch(url: str, until: Callable[[list[Frame]], object], **more: Any) -> list[Frame]:  # noqa: ANN401 - open_camera's own
    stop = threading.Event()
    timer = threading.Timer(30, stop.set)
    timer.start()
    frames: list[Frame] = []
    for frame in open_camera(url, pace=True, stop=stop, **more):
        frames.append(frame)
        if until(frames):
            stop.set()
    timer.cancel()
    timer.join()
    return frames


def test_a_growing_playlist_is_live_at_its_own_pace(tmp_path: Path) -> None:
    write_hls(tmp_path, seconds=30)
    camera = Growing(tmp_path)
    with serve(camera) as url:
        frames = watch(f"{url}/live.m3u8", lambda seen: sum(not each.blank for each in seen) >= 5 * RATE)
        seconds = time.monotonic() - camera.begin
    seen = [frame for frame in frames if not frame.blank]
    assert len(seen) == 5 * RATE
    assert seconds > 4
    assert "live0.ts" not in camera.asked
    steps = [b.pts - a.pts for a, b in itertools.pairwise(seen)]
    assert all(step >= 0 for step in steps)
    assert sum(0.05 < step < 0.2 for step in steps) > 0.8 * len(steps)


def test_a_live_playlist_that_ends_is_not_played_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_hls(tmp_path, seconds=20)
    with serve(Growing(tmp_path, ends_at=1.5)) as url:
        frames = watch(f"{url}/live.m3u8", lambda _: "the stream has ended" in caplog.text)
    assert 0 < sum(not frame.blank for frame in frames) <= 5 * RATE


def test_a_live_camera_that_fell_behind_goes_on_with_its_last_segment(tmp_path: Path) -> None:
    write_hls(tmp_path, seconds=30)
    camera = Growing(tmp_path)
    with serve(camera) as url:
        stream = hls.Stream(f"{url}/live.m3u8", stop=threading.Event())
        following = stream._following()
        first = next(following).number
        camera.begin -= 10
        assert next(following).number >= first + 10


def test_a_live_playlist_that_stands_still_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(hls, "_TARGETS", 0.5)
    path = write_hls(tmp_path)
    path.write_text(path.read_text().replace("#EXT-X-ENDLIST\n", ""))
    with serve(files(tmp_path)) as url:
        following = hls.Stream(f"{url}/live.m3u8", stop=threading.Event())._following()
        assert next(following).number == 3
        with pytest.raises(CameraError, match="does not go on"):
            next(following)


ENCRYPTED = b'#EXT-X-KEY:METHOD=AES-128,URI="file:///etc/passwd"\n#EXTINF'
FAR = b"#EXTM3U\n#EXT-X-BYTERANGE:1@99999999999999999999\n#EXTINF:nan,\nlive.m3u8\n#EXT-X-ENDLIST"


def listed(*names: str, end: str = "#EXT-X-ENDLIST\n") -> bytes:
    entries = "".join(f"#EXTINF:1,\n{name}\n" for name in names)
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{entries}{end}".encode()


@pytest.mark.parametrize(
    "entry",
    [
        "{other}/live0.ts", "//{other_host}/live0.ts", "file://{folder}/live0.ts", "/../..{folder}/live0.ts",
        "https://127.0.0.1/live0.ts", "http://[::1/live0.ts", "http://localhost:{port}/live0.ts",
        "concat:{other}/live0.ts", "data:video/mp2t;base64,AAAA", "crypto+{other}/live0.ts",
        "subfile,,start,0,end,0,,:{folder}/live0.ts", "tcp://{other_host}", "a b\x7f.ts", "ftp://127.0.0.1/x.ts",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["segment", "init", "variant", "redirect"])
def test_nothing_but_its_own_server_is_asked_by_a_playlist(tmp_path: Path, entry: str, place: str) -> None:
    (tmp_path / "live0.ts").write_bytes(b"G" * 188)
    asked: list[str] = []
    with serve(files(tmp_path, asked=asked)) as other:
        host = other.rpartition("@")[2]
        known = {
            "other": f"http://{host}",
            "other_host": host,
            "folder": tmp_path,
            "port": host.split(":")[1],
        }
        name = entry.format(**known)
        says = "another server|address that is none|answers 404|Invalid IPv6"
        with serve(hostile(name, place)) as url, pytest.raises(CameraError, match=says) as caught:
            read_all(f"{url}/live.m3u8")
        assert asked == []
        assert "secret" not in str(caught.value)


def hostile(name: str, place: str) -> Handler:
    bodies = {
        "segment": listed(name),
        "init": listed("a.mp4").replace(b"#EXTINF", f'#EXT-X-MAP:URI="{name}"\n#EXTINF'.encode()),
        "variant": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{name}\n".encode(),
    }

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path != "/live.m3u8":
            request.send_error(404)
        elif place != "redirect":
            answer(request, bodies[place])
        else:
            request.send_response(302)
            request.send_header("Location", name)
            request.end_headers()

    return handle


def read_all(url: str) -> int:
    return sum(1 for _ in hls.Stream(url, stop=threading.Event()).pictures())


def test_a_redirect_within_the_server_is_followed(tmp_path: Path) -> None:
    write_hls(tmp_path)
    serve_files = files(tmp_path)

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path == "/cam/live.m3u8":
            request.send_response(302)
            request.send_header("Location", "/live.m3u8?cookieCheck=1")
            request.end_headers()
        else:
            serve_files(request)

    with serve(handle) as url:
        assert read_all(f"{url}/cam/live.m3u8") == 4 * RATE


def test_a_redirect_to_a_long_address_is_not_followed() -> None:
    asked: list[str] = []

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.send_response(302)
        request.send_header("Location", f"/{'a' * 60_000}/b.m3u8")
        request.end_headers()

    with serve(handle) as url, pytest.raises(CameraError, match="address of more than 4096"):
        hls.Stream(f"{url}/live.m3u8", stop=threading.Event())
    assert asked == ["/live.m3u8"]


def test_a_long_attribute_costs_no_more_than_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playlist, "_LONGEST_LINE", 2_000_000)
    body = b"#EXTM3U\n#EXT-X-STREAM-INF:" + b"A" * 100_000 + b",BANDWIDTH=7\nx\n"
    begin = time.monotonic()
    assert playlist.parse(body, "http://h/a", "http://h/a") == playlist.Master("http://h/x")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("what", ["playlist", "redirect"])
def test_a_hundred_playlists_within_one_another_are_not_followed(what: str) -> None:
    asked: list[str] = []

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        name = f"/{len(asked)}.m3u8"
        if what == "playlist":
            answer(request, f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{name}\n".encode())
            return
        request.send_response(307)
        request.send_header("Location", name)
        request.end_headers()

    with serve(handle) as url, pytest.raises(CameraError, match=r"more playlists|again and again"):
        hls.Stream(f"{url}/0.m3u8", stop=threading.Event())
    assert len(asked) < 6


@pytest.mark.parametrize("length", ["none", "huge"])
@pytest.mark.parametrize("name", ["live.m3u8", "a.ts"])
def test_an_endless_answer_is_given_up_at_the_limit(
    monkeypatch: pytest.MonkeyPatch, name: str, length: str
) -> None:
    monkeypatch.setattr(origin, "PLAYLIST_BYTES", 300_000)
    monkeypatch.setattr(origin, "SEGMENT_BYTES", 300_000)
    sent = itertools.count()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        if not request.path.endswith(name):
            answer(request, listed("a.ts"))
            return
        request.send_response(200)
        if length == "huge":
            request.send_header("Content-Length", str(10**18))
        request.end_headers()
        while next(sent) < 10_000:
            request.wfile.write(b"#EXTM3U\n" + b"#" * 65_536)

    with serve(handle) as url, pytest.raises(CameraError, match="more than 300000 bytes"):
        read_all(f"{url}/live.m3u8")
    assert next(sent) < 1000


def test_a_server_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "WHOLE_S", 0.5)
    end = threading.Event()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not end.wait(0.05):
            request.wfile.write(b"#")

    with serve(handle) as url:
        with pytest.raises(CameraError, match="takes more than"):
            hls.Stream(f"{url}/live.m3u8", stop=threading.Event())
        end.set()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not a playlist"), (b"<html>", "not a playlist"), (b"\x80\x04.", "not a playlist"),
        (listed(), "no segments"), (listed("live.m3u8"), "cannot be read"),
        (listed("a.ts").replace(b"#EXTINF", ENCRYPTED), "encrypted"),
        (b"#EXTM3U\n" + b"#EXTINF:1,\na\n" * 10_001, "entries"),
        (listed("a" * 8193), "line of more than 8192"), (listed("a" * 4097), "address of more than 4096"),
        (listed("a").replace(b"#EXTINF", b'#EXT-X-MAP:URI="%b"\n#EXTINF' % (b"a" * 4097)), "than 4096"),
        (FAR, "answers 200 instead of 206"),
    ],
)  # fmt: skip
def test_a_playlist_that_cannot_be_played_is_a_clear_error(body: bytes, says: str) -> None:
    with serve(lambda request: answer(request, body)) as url, pytest.raises(CameraError, match=says):
        read_all(f"{url}/live.m3u8")


def test_the_user_and_password_of_the_address_are_shown_to_its_server(tmp_path: Path) -> None:
    write_hls(tmp_path)
    shown: set[str] = set()
    serve_files = files(tmp_path)

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        shown.add(request.headers.get("Authorization", ""))
        serve_files(request)

    with serve(handle) as url:
        read_all(f"{url}/live.m3u8")
    assert shown == {"Basic c29tZW9uZTpzZWNyZXQ="}


def test_a_playlist_is_known_by_its_address() -> None:
    assert hls.is_playlist("https://cam/a/index.M3U8?token=1")
    assert not hls.is_playlist("http://cam/a.mp4?x=.m3u8")
    assert not hls.is_playlist("rtsp://cam/a.m3u8")
    assert expand("https://door/a/index.m3u8") == [("door", "https://door/a/index.m3u8")]


def test_a_live_playlist_whose_server_is_gone_is_dark_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LONGEST_PAUSE_S", 0.2)
    write_hls(tmp_path, seconds=30)
    camera, down = Growing(tmp_path), threading.Event()

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        if down.is_set():
            request.send_error(503)
        else:
            camera(request)

    def until(frames: list[Frame]) -> object:
        if not frames[-1].blank and not down.is_set() and not any(frame.dark for frame in frames):
            down.set()
        elif frames[-1].dark:
            down.clear()
        dark = next((n for n, frame in enumerate(frames) if frame.dark), None)
        return dark is not None and any(not frame.blank for frame in frames[dark:])

    with serve(handle) as url:
        frames = watch(f"{url}/live.m3u8", until)
    assert not frames[-1].blank
    assert any(frame.dark for frame in frames)
