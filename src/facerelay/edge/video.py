"""Pictures out of files, webcams and streams, through PyAV; hostile input costs no more than its limits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import av
import av.container
import av.error
import av.logging
import cv2
import numpy as np
from av.video.reformatter import ColorRange

from facerelay.edge.detect import Image
from facerelay.edge.opening import MAX_PIXELS, CameraError, Container, open_file, reason_of

MAX_SIDE: Final = 16_384

_MAX_STEP_S: Final = 10.0
_MAX_DAMAGED: Final = 100
_RATE: Final = 25.0
NO_IMAGE: Final[Image] = np.empty((0, 0, 3), np.uint8)
_TURN: Final = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is made only when it is wanted: `pts` in seconds, `image()` height x width x 3, BGR."""

    pts: float
    image: Callable[[], Image]
    still: bool = False


def read_file(path: Path) -> Generator[Picture, None, None]:
    """Yield the pictures of a video, a GIF or a still picture; damaged ones are left out.

    Raises:
        CameraError: it is none of these, or too large.
    """
    try:
        with open_file(path) as container:
            yield from pictures(container, str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise CameraError(
            str(path), f"not a video or picture that can be read ({reason_of(error)})"
        ) from error


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
