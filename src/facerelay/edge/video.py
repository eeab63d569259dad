"""Pictures out of files, webcams and streams, through PyAV; hostile input costs no more than its limits."""

from __future__ import annotations

import errno
import math
import platform
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

import av
import av.container
import av.error
import av.logging
import cv2
import numpy as np
from av.video.reformatter import ColorRange

from facerelay.edge.detect import Image

MAX_SIDE: Final = 16_384
MAX_PIXELS: Final = 64_000_000
READ_TIMEOUT_S: Final = 10.0
"""A server that says nothing for so long has failed; FFmpeg asks an RTSP server twice, so that one which
hangs is noticed only after about twice this time."""

_MAX_STEP_S: Final = 10.0
_MAX_DAMAGED: Final = 100
_RATE: Final = 25.0
NO_IMAGE: Final[Image] = np.empty((0, 0, 3), np.uint8)
_CONTAINERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,mjpeg,mpjpeg,gif,apng,flv,"
    "asf,ogg,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""No playlist is among them: neither a file nor a server can have others opened."""

_STILLS: Final = {b"\xff\xd8": "jpeg_pipe", b"\x89P": "png_pipe", b"RI": "webp_pipe", b"BM": "bmp_pipe"}
"""By its name alone FFmpeg would take a still picture for one of a numbered sequence."""

_TURN: Final = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180}

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_SECRET: Final = re.compile(r"(pass\w*|psw|pwd|pw)=[^&]*", re.IGNORECASE)

# What FFmpeg itself would print may hold a URL with its password.
av.logging.set_level(av.logging.PANIC)

Container = av.container.InputContainer


class CameraError(Exception):
    """A camera that cannot be opened, or whose pictures cannot be taken.

    Attributes:
        source: as the user wrote it, without password and query.
        reason: what is wrong and what to do.
    """

    def __init__(self, source: str, reason: str) -> None:
        self.source = redact(source)
        self.reason = reason
        super().__init__(f"camera {self.source}: {reason}")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is made only when it is wanted: `pts` in seconds, `image()` height x width x 3, BGR."""

    pts: float
    image: Callable[[], Image]
    still: bool = False


def redact(source: str) -> str:
    """Return a source fit for logs: a URL without user, password and query.

    With an "@" after the host, a password may hold a "/", "#" or "?": nothing but the scheme is shown.
    A password that is a part of the path, as some cameras want it, is masked.
    """
    if "://" not in source:
        return source
    scheme, _, rest = source.partition("://")
    scheme = scheme if _SCHEME.fullmatch(scheme) else "…"
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(host) :]:
        return f"{scheme}://…"
    path = _SECRET.sub(r"\1=…", re.split("[?#]", rest[len(host) :], maxsplit=1)[0])
    return f"{scheme}://{host.rpartition('@')[2]}{path}"


def split_url(source: str) -> SplitResult:
    """Return a URL's parts.

    Raises:
        CameraError: it is none; unlike a ValueError, it does not hold the URL with its password.
    """
    try:
        parts = urlsplit(source)
        _ = parts.port
    except ValueError:
        raise CameraError(
            source, "the URL cannot be read: write special characters of its password as %2F (/), %23 (#), …"
        ) from None
    return parts


def reason_of(error: Exception) -> str:
    """Return what FFmpeg says of an error, without the address that it would add."""
    if isinstance(error, CameraError):
        return error.reason
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {READ_TIMEOUT_S:g} s"
    text = getattr(error, "strerror", None)
    return str(text) if text else type(error).__name__


def read_file(path: Path) -> Generator[Picture, None, None]:
    """Yield the pictures of a video, a GIF or a still picture; damaged ones are left out.

    Raises:
        CameraError: it is none of these, or too large.
    """
    try:
        options = _options("file", format_whitelist=_CONTAINERS)
        # An absolute path cannot be taken for a protocol's name.
        with _open(str(path.resolve()), format=_still(path), options=options) as container:
            yield from pictures(container, str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise CameraError(
            str(path), f"not a video or picture that can be read ({reason_of(error)})"
        ) from error


def _open(file: str, **how: Any) -> Container:  # noqa: ANN401 - PyAV's own arguments
    # What is no UTF-8 in a title or a comment does not matter.
    return cast("Container", av.open(file, metadata_errors="replace", **how))


def _still(path: Path) -> str | None:
    """Return the format of a still picture; None for anything else."""
    with path.open("rb") as file:
        head = file.read(12)
    avi = head.startswith(b"RIFF") and head[8:] != b"WEBP"
    return None if avi else _STILLS.get(head[:2])


def live_opener(source: str) -> Callable[[], Container]:
    """Return what opens a webcam or a URL.

    Raises:
        CameraError: no such webcam, or a kind of URL that is not taken.
    """
    if source.isdecimal():
        return _webcam_opener(source)
    scheme = split_url(source).scheme.lower()
    if scheme in {"rtsp", "rtsps"}:
        options = _options("rtsp,rtsps,rtp,tcp,tls", rtsp_transport="tcp", fflags="nobuffer")
        return lambda: _open(source, options=options, timeout=(READ_TIMEOUT_S, READ_TIMEOUT_S))
    if scheme in {"http", "https"}:
        return lambda: _open_http(source)
    raise CameraError(source, "only rtsp://, rtsps://, http:// and https:// can be opened")


def _open_http(source: str) -> Container:
    # A camera that sends us elsewhere could have us ask what only this machine may reach.
    limits = {"format_whitelist": _CONTAINERS, "max_redirects": "0"}
    options = _options("http,https,tcp,tls,crypto", fflags="nobuffer", **limits)
    try:
        return _open(source, options=options, timeout=(READ_TIMEOUT_S, READ_TIMEOUT_S))
    except av.error.FFmpegError as error:
        if error.errno not in {errno.EIO, errno.EINVAL}:
            raise
        advice = "redirects and playlists are not followed: name the address of the stream itself"
        raise CameraError(source, f"{reason_of(error)}; {advice}") from error


def _webcam_opener(number: str) -> Callable[[], Container]:
    system = platform.system()
    if system == "Darwin":
        return lambda: _open(
            str(int(number)), format="avfoundation", options={"framerate": "30"}, timeout=READ_TIMEOUT_S
        )
    if system != "Linux":
        raise CameraError(number, f"webcams cannot be opened on {system}: use a file or a URL")
    device = Path(f"/dev/video{int(number)}")
    if not device.exists():
        raise CameraError(number, f"there is no webcam {device}: plug it in, or name another source")
    return lambda: _open(str(device), format="v4l2", timeout=READ_TIMEOUT_S)


def pictures(container: Container, source: str) -> Iterator[Picture]:
    """Yield an open container's pictures, on a clock that starts near 0 and never goes back.

    Raises:
        CameraError: there are no pictures in it, they are too large, or nothing but damage.
    """
    clock, last = _Clock(), -math.inf
    for frame in decode(container, source):
        last = clock.at(frame.time, _rate(container))
        yield Picture(last, _converter(frame, source))
    if last == -math.inf:
        raise CameraError(source, "there is no picture in it that can be read")


def decode(container: Container, source: str) -> Iterator[av.VideoFrame]:
    """Yield decoded frames, checked against the limits; damaged packets are left out.

    Raises:
        CameraError: no video in it, frames too large, or nothing but damage.
    """
    if not container.streams.video:
        raise CameraError(source, "there is no video in it")
    stream = container.streams.video[0]
    codec = cast("av.VideoCodecContext | None", stream.codec_context)
    if codec is None:
        raise CameraError(source, "its video is of a codec that is not known: let the camera send H.264")
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    codec.thread_count = 1
    damaged = 0
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except (av.error.ExitError, av.error.EOFError):
            raise
        except av.error.FFmpegError as error:
            damaged += 1
            if damaged > _MAX_DAMAGED:
                raise CameraError(source, "its pictures are damaged") from error
            continue
        damaged = 0 if frames else damaged
        for frame in frames:
            _check(frame, source)
            yield frame


def _packets(container: Container, stream: av.VideoStream) -> Iterator[av.Packet[av.VideoStream]]:
    while True:
        try:
            yield from container.demux(stream)
        except IndexError:
            # A packet of a stream that was not there at the beginning, which PyAV cannot give.
            continue
        return


def _check(frame: av.VideoFrame, source: str) -> None:
    if max(frame.width, frame.height) > MAX_SIDE or frame.width * frame.height > MAX_PIXELS:
        raise CameraError(
            source, f"frames of {frame.width}x{frame.height} are too large: {MAX_PIXELS} pixels at most"
        )


def to_bgr(frame: av.VideoFrame) -> Image:
    """Return a decoded frame as height x width x 3, BGR, upright."""
    if (
        frame.format.name == "yuv420p"
        and frame.color_range != ColorRange.JPEG
        and frame.width % 2 == frame.height % 2 == 0
    ):
        # Half a millisecond less than FFmpeg's own conversion of a 720p frame.
        image = cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2BGR_I420)
    else:
        image = frame.to_ndarray(format="bgr24")
    turn = _TURN.get(frame.rotation)
    return cast("Image", image if turn is None else cv2.rotate(image, turn))


def arriving(container: Container, source: str, begin: float) -> Iterator[Picture]:
    """Yield a live container's pictures, each with the time it came, in seconds since `begin` (monotonic)."""
    for frame in decode(container, source):
        yield Picture(time.monotonic() - begin, _converter(frame, source))


def _converter(frame: av.VideoFrame, source: str) -> Callable[[], Image]:
    def convert() -> Image:
        try:
            return to_bgr(frame)
        except Exception as error:
            raise CameraError(source, f"a picture cannot be converted ({reason_of(error)})") from error

    return convert


class _Clock:
    """A file's own time stamps, made to start at 0, and never to go back nor leap."""

    def __init__(self) -> None:
        self._raw: float | None = None
        self._now = 0.0

    def at(self, raw: float | None, rate: float) -> float:
        if self._raw is None:
            self._raw = raw if raw is not None and math.isfinite(raw) else 0.0
            return self._now
        step = 1 / rate if raw is None or not math.isfinite(raw) else raw - self._raw
        self._raw += step
        self._now += min(step if step > 0 else 1 / rate, _MAX_STEP_S)
        return self._now


def _rate(container: Container) -> float:
    rate = container.streams.video[0].average_rate
    return float(rate) if rate and rate > 0 else _RATE


def _options(protocols: str, **more: str) -> dict[str, str]:
    return {"protocol_whitelist": protocols, "max_pixels": str(MAX_PIXELS), **more}
