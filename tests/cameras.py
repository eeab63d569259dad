"""Real cameras for tests, each a server process on a free loopback port: RTSP by GStreamer, MJPEG over HTTP.

Imported, it starts them; run as `cameras.py PORT`, it is the MJPEG camera, whose pictures swap their size on
SIGUSR1 and stand still on SIGUSR2.
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from conftest import lacking
from servers import free_port

SIZES: Final = ((320, 240), (480, 352))

_HERE: Final = Path(__file__).parent
_GSTREAMER: Final = ("/usr/bin/python3", str(_HERE / "rtsp.py"))
_START_S: Final = 20.0
_PAUSE_S: Final = 0.05


@dataclass
class Camera:
    """A camera's process; its port and URL stay the same when it is started again."""

    command: tuple[str, ...]
    port: int
    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return once the port answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"no answer on port {self.port}: {self.log.read_text(errors='replace')}")

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`, also where it is stopped; returns when it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_START_S)
            self.process = None


@contextmanager
def rtsp(folder: Path, *options: str) -> Iterator[Camera]:
    """GStreamer's RTSP server; for the options, see `rtsp.py`."""
    if not _has_gstreamer():
        lacking("GStreamer's RTSP server is not installed")
    port = free_port()
    url = f"rtsp://someone:secret@127.0.0.1:{port}/live?token=secret"
    yield from _run(Camera((*_GSTREAMER, str(port), *options), port, url, folder / "rtsp.log"))


@contextmanager
def mjpeg(folder: Path) -> Iterator[Camera]:
    """An HTTP server of JPEG pictures."""
    port = free_port()
    url = f"http://someone:secret@127.0.0.1:{port}/live?token=secret"
    yield from _run(Camera((sys.executable, __file__, str(port)), port, url, folder / "mjpeg.log"))


def _run(camera: Camera) -> Iterator[Camera]:
    try:
        camera.start()
        yield camera
    finally:
        camera.kill()


@cache
def _has_gstreamer() -> bool:
    check = [*_GSTREAMER, "--check"]
    return (
        Path(_GSTREAMER[0]).exists()
        and subprocess.run(check, check=False, capture_output=True).returncode == 0
    )


class _Handler(http.server.BaseHTTPRequestHandler):
    swaps = 0
    still = False

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for number in itertools.count():
                width, height = SIZES[self.swaps % 2]
                value = 0 if self.still else number % 200
                data = cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))[1].tobytes()
                head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(_PAUSE_S)

    def log_message(self, *_: object) -> None:
        pass


def _main() -> None:
    def swap(*_: object) -> None:
        _Handler.swaps += 1

    def freeze(*_: object) -> None:
        _Handler.still = True

    signal.signal(signal.SIGUSR1, swap)
    signal.signal(signal.SIGUSR2, freeze)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()


if __name__ == "__main__":
    _main()
