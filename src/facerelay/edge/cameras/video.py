"""Pictures out of files, webcams and streams, through PyAV; hostile input costs no more than its limits."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, cast

import av
import av.container
import av.error
import av.logging
import av.video.plane
import cv2
import numpy as np
from av.video.reformatter import ColorRange

from facerelay.edge.cameras.lull import Lull
from facerelay.edge.cameras.opening import CameraError, Container, most_pixels, open_file, reason_of
from facerelay.edge.cameras.raster import Image, Pixels, Planes, Raster

Packet: TypeAlias = "av.Packet[av.VideoStream]"

MAX_SIDE: Final = 16_384

_MAX_STEP_S: Final = 10.0
_MAX_DAMAGED: Final = 100
_RATE: Final = 25.0
_PLANAR: Final = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"}
_TURN: Final = {
    -180: cv2.ROTATE_180,
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    -90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is made only when it is wanted; see `Frame` for what is known of it.

    `raster` gives None where no picture came.
    """

    pts: float
    raster: Callable[[], Raster | None]
    still: bool = False
    dark: bool = False


def read_file(path: Path, lull: Lull | None = None) -> Generator[Picture, None, None]:
    """Yield the pictures of a video, a GIF or a still picture; damaged ones are left out.

    Args:
        path: the file.
        lull: see `decode`.

    Raises:
        CameraError: it is none of these, or too large.
    """
    try:
        with open_file(path) as container:
            yield from pictures(container, str(path), lull)
    except (av.error.FFmpegError, OSError) as error:
        raise CameraError(
            str(path), f"not a video or picture that can be read ({reason_of(error)})"
        ) from error


def pictures(container: Container, source: str, lull: Lull | None = None) -> Iterator[Picture]:
    """Yield an open container's pictures, on a clock that starts near 0 and never goes back.

    Raises:
        CameraError: there are no pictures in it, they are too large, or nothing but damage.
    """
    clock, last = _Clock(), -math.inf
    for frame in decode(container, source, lull=lull):
        last = clock.at(frame.time, _rate(container))
        yield Picture(last, converter(frame, source))
    if last == -math.inf:
        raise CameraError(source, "there is no picture in it that can be read")


def decode(
    container: Container,
    source: str,
    wanted: Callable[[Packet], bool] | None = None,
    lull: Lull | None = None,
) -> Iterator[av.VideoFrame]:
    """Yield decoded frames, checked against the limits; damaged packets are left out.

    Args:
        container: open; its first video is read.
        source: for errors.
        wanted: is asked of each packet whether it is to be decoded; all are, if it is None.
        lull: says which frames need not be decoded.

    Raises:
        CameraError: no video in it, frames too large, or nothing but damage.
    """
    if not container.streams.video:
        raise CameraError(source, "there is no video in it")
    stream = container.streams.video[0]
    codec = cast("av.VideoCodecContext | None", stream.codec_context)
    if codec is None:
        raise CameraError(source, "its video is of a codec that is not known: let the camera send H.264")
    most = most_pixels(container)
    codec.options = {"max_pixels": str(most)}
    codec.thread_count = 1
    damaged = 0
    lull, flows, skips = lull or Lull(), False, "DEFAULT"
    for packet in _packets(container, stream):
        if wanted is not None and packet.size and not wanted(packet):
            continue
        if flows and lull.skips != skips:
            codec.skip_frame = skips = lull.skips
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
        lull.left_out += bool(flows and packet.size and not frames and skips != "DEFAULT")
        flows = flows or bool(frames)
        for frame in frames:
            _check(frame, source, most)
            yield frame


def _packets(container: Container, stream: av.VideoStream) -> Iterator[Packet]:
    while True:
        try:
            yield from container.demux(stream)
        except IndexError:
            # A packet of a stream that was not there at the beginning, which PyAV cannot give.
            continue
        return


def _check(frame: av.VideoFrame, source: str, most: int) -> None:
    if max(frame.width, frame.height) > MAX_SIDE or frame.width * frame.height > most:
        raise CameraError(
            source, f"frames of {frame.width}x{frame.height} are too large: {most} pixels at most"
        )


def to_raster(frame: av.VideoFrame, *, own: bool = False) -> Raster:
    """Return a decoded frame upright: its planes as they are where they can be, else BGR.

    Args:
        frame: decoded.
        own: copy what would lie in the frame's memory.
    """
    turn = _TURN.get(frame.rotation)
    even = frame.width % 2 == frame.height % 2 == 0
    if turn is None and frame.format.name in _PLANAR and even and not _is_upside_down(frame):
        full = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
        planes = (_plane(plane) for plane in frame.planes)
        return Planes(*(plane.copy() if own else plane for plane in planes), full=full)
    image = _bgr(frame)
    image = image.copy() if own else image
    return Pixels(image if turn is None else cast("Image", cv2.rotate(image, turn)))


def _is_upside_down(frame: av.VideoFrame) -> bool:
    """Tell whether the rows lie in memory from the bottom up, which PyAV's buffers cannot show."""
    return any(plane.line_size < 0 for plane in frame.planes)


def _bgr(frame: av.VideoFrame) -> Image:
    """Return a frame as BGR, however its rows lie."""
    if _is_upside_down(frame) and frame.format.name == "bgr24":
        # Of the same format PyAV would take the rows as they are.
        return cast("Image", frame.to_ndarray(format="rgb24")[:, :, ::-1].copy())
    return cast("Image", frame.to_ndarray(format="bgr24"))


def _plane(plane: av.video.plane.VideoPlane) -> Image:
    """Return a plane's pixels, height x width: a read-only view that keeps the frame alive."""
    rows = np.frombuffer(memoryview(plane).toreadonly(), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def fingerprint(frame: av.VideoFrame) -> int:
    """Return a checksum of a frame's first plane: its brightness, or all of a packed format."""
    if _is_upside_down(frame):
        return zlib.crc32(np.ascontiguousarray(_bgr(frame)).data)
    plane, form = frame.planes[0], frame.format
    bits = form.padded_bits_per_pixel if len(frame.planes) == 1 else 8 * -(-form.components[0].bits // 8)
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    # What lies between the rows is nobody's, and may change by itself.
    return zlib.crc32(np.ascontiguousarray(rows[: plane.height, : plane.width * bits // 8]).data)


def converter(frame: av.VideoFrame, source: str) -> Callable[[], Raster]:
    """Return what turns a frame into a raster, or raises a `CameraError`."""

    def convert() -> Raster:
        try:
            return to_raster(frame)
        except Exception as error:
            raise CameraError(source, f"a picture cannot be converted ({reason_of(error)})") from error

    return convert


def copied(frame: av.VideoFrame, source: str) -> Callable[[], Raster]:
    """As `converter`, but convert at once: nothing of the frame itself is kept."""
    try:
        raster = to_raster(frame, own=True)
    except Exception as error:  # noqa: BLE001 - said when the picture is taken, as of any other
        reason = reason_of(error)
    else:
        return lambda: raster

    def fail() -> Raster:
        raise CameraError(source, f"a picture cannot be converted ({reason})")

    return fail


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
