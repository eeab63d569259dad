"""Open a file, a webcam or a stream with PyAV: only what a source may be, and no word of its password."""

from __future__ import annotations

import errno
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

import av
import av.container
import av.error
import av.logging

from facerelay.edge.cameras import memory

MAX_PIXELS: Final = 64_000_000
"""Of a still picture."""

MAX_VIDEO_PIXELS: Final = 18_000_000
"""Of a video: a decoder keeps up to seventeen of its frames."""

OPEN_TIMEOUT_S: Final = 12.0
"""For a server's answers, and again for its first pictures: some send one only each ten seconds. FFmpeg
itself gives up a connection that is not made within 5 s."""

READ_TIMEOUT_S: Final = 30.0
"""A read that hangs ends by itself after so long; who reads may have given it up before."""

_CONTAINERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,mjpeg,mpjpeg,gif,apng,flv,"
    "asf,ogg,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""No playlist is among them: neither a file nor a server can have others opened."""

_STILLS: Final = {b"\xff\xd8": "jpeg_pipe", b"\x89P": "png_pipe", b"RI": "webp_pipe", b"BM": "bmp_pipe"}
"""By its name alone FFmpeg would take a still picture for one of a numbered sequence."""

_QUICK: Final = {"fpsprobesize": "0"}
"""Of a live source: FFmpeg would watch it for twenty pictures to learn its rate, which nobody asks for."""

_DEVICES: Final = {"v4l2", "avfoundation"}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_SECRET: Final = re.compile(r"(pass\w*|psw|pwd|pw)=[^&]*", re.IGNORECASE)

# What FFmpeg itself would print may hold a URL with its password.
av.logging.set_level(av.logging.PANIC)
memory.limit()

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
        return "nothing came in time"
    text = getattr(error, "strerror", None)
    return str(text) if text else type(error).__name__


def open_file(path: Path) -> Container:
    """Open a video, a GIF or a still picture.

    Raises:
        av.error.FFmpegError, OSError: it cannot be opened.
    """
    options = _options("file", format_whitelist=_CONTAINERS)
    # An absolute path cannot be taken for a protocol's name.
    return _open(str(path.resolve()), format=_still(path), options=options)


def _open(file: str, **how: Any) -> Container:  # noqa: ANN401 - PyAV's own arguments
    # What is no UTF-8 in a title or a comment does not matter.
    return cast("Container", av.open(file, metadata_errors="replace", **how))


def _still(path: Path) -> str | None:
    """Return the format of a still picture; None for anything else."""
    with path.open("rb") as file:
        head = file.read(12)
    avi = head.startswith(b"RIFF") and head[8:] != b"WEBP"
    return None if avi else _STILLS.get(head[:2])


def live_opener(source: str, *, transport: str = "auto") -> Callable[[], Container]:
    """Return what opens a webcam or a URL.

    Args:
        source: a webcam's number or a URL.
        transport: of RTSP: `tcp`, `udp`, or `auto`, which is TCP, and UDP where the camera refuses TCP.

    Raises:
        CameraError: no such webcam, or a kind of URL that is not taken.
    """
    if source.isdecimal():
        return _webcam_opener(source)
    scheme = split_url(source).scheme.lower()
    if scheme in {"rtsp", "rtsps"}:
        return _rtsp_opener(source, ("tcp", "udp") if transport == "auto" else (transport,))
    if scheme in {"http", "https"}:
        return lambda: _open_http(source)
    raise CameraError(source, "only rtsp://, rtsps://, http:// and https:// can be opened")


def _rtsp_opener(source: str, transports: tuple[str, ...]) -> Callable[[], Container]:
    """Return what opens an RTSP stream by the first transport that the camera takes, and remembers it."""

    def open_() -> Container:
        nonlocal transports
        first, *others = transports
        try:
            return _open_rtsp(source, first)
        except av.error.FFmpegError as error:
            if not others or not _refuses_transport(error):
                raise
        container = _open_rtsp(source, others[0])
        transports = (others[0], first)
        return container

    return open_


def _open_rtsp(source: str, transport: str) -> Container:
    # Who else sends to our UDP port is not the camera.
    options = _options(
        "rtsp,rtsps,rtp,tcp,tls,udp", rtsp_transport=transport, rtsp_flags="filter_src", **_QUICK
    )
    return _open(source, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))


def _refuses_transport(error: av.error.FFmpegError) -> bool:
    """Tell whether a camera would not have a transport, rather than us or anybody at all.

    The answer should be 461, which FFmpeg makes EPROTONOSUPPORT, but not every camera knows it.
    """
    odd = (
        av.error.HTTPBadRequestError, av.error.HTTPOtherClientError, av.error.HTTPServerError,
        av.error.InvalidDataError,
    )  # fmt: skip
    return error.errno == errno.EPROTONOSUPPORT or isinstance(error, odd)


def lends(container: Container) -> bool:
    """Tell whether frames may lie in memory of the device, which is gone once the container is closed."""
    return not _DEVICES.isdisjoint(container.format.name.split(","))


def most_pixels(container: Container) -> int:
    """Return how many pixels a frame may have: more in a still picture than in a video."""
    return MAX_PIXELS if container.format.name in _STILLS.values() else MAX_VIDEO_PIXELS


def describe(container: Container) -> str:
    """Return what an open source is, as `1280x720 h264 by RTSP over TCP`."""
    scheme, url, _ = container.name.partition("://")
    way = scheme.upper() if url else container.format.name.split(",")[0]
    if "rtsp_transport" in container.options:
        way = f"{way} over {container.options['rtsp_transport'].upper()}"
    if not container.streams.video:
        return f"no video by {way}"
    codec = cast("av.VideoCodecContext | None", container.streams.video[0].codec_context)
    return (
        f"an unknown codec by {way}"
        if codec is None
        else f"{codec.width}x{codec.height} {codec.name} by {way}"
    )


def _open_http(source: str) -> Container:
    # A camera that sends us elsewhere could have us ask what only this machine may reach.
    limits = {"format_whitelist": _CONTAINERS, "max_redirects": "0"}
    options = _options("http,https,tcp,tls,crypto", **_QUICK, **limits)
    try:
        return _open(source, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
    except av.error.FFmpegError as error:
        if error.errno not in {errno.EIO, errno.EINVAL}:
            raise
        advice = (
            "redirects are not followed, and playlists only where the address ends in .m3u8:"
            " name the address of the stream itself"
        )
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


def _options(protocols: str, **more: str) -> dict[str, str]:
    return {"protocol_whitelist": protocols, "max_pixels": str(MAX_PIXELS), **more}
