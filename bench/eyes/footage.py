"""Footage: the clips of `FACERELAY_MEDIA`, and what is mixed of them by code."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Final, cast

import av
import av.video.stream
import cv2
import numpy as np
from numpy.typing import NDArray

from bench.processes import BenchError
from facerelay.edge.cameras.raster import Image

GROUPS: Final = {
    "intel_preview_face-demographics-walking-and-pause.gif": 3,
    "intel_preview_classroom.gif": 4,
}
"""Clips of several people, and how many there are."""

BIT_RATE: Final = 4_000_000

_TILE: Final = 640, 360
_ZOOM: Final = 1.15
_SWAY: Final = 44.0, 8.0
_SWAY_S: Final = 3.0
_KEY_EVERY_S: Final = 2.0
_NOISE: Final = 2
_EMPTY: Final = 90
_FOUR: Final = "again", "milk", "book", "eat"
_HERE_S, _TURN_S, _TURNS = 8.0, 11.0, 5
ROUND_S: Final = _TURN_S * _TURNS
_PRESET: Final = {"preset": "veryfast", "tune": "zerolatency"}
"""Without frames that look ahead, as cameras encode."""

_VARYING: Final = {"crf": "23", "maxrate": str(BIT_RATE), "bufsize": str(BIT_RATE)}


def media() -> Path:
    """Return the folder of footage.

    Raises:
        BenchError: `FACERELAY_MEDIA` names none.
    """
    named = os.environ.get("FACERELAY_MEDIA", "")
    if not named or not (Path(named) / "clips").is_dir():
        raise BenchError("skipped, nothing measured: FACERELAY_MEDIA names no folder of test footage")
    return Path(named)


def signers(folder: Path) -> list[Path]:
    """Return the clips of one person each."""
    return sorted((folder / "clips").glob("intel_asl_*.mkv"))


def images(clip: Path) -> Iterator[Image]:
    """Yield a clip's pictures, height x width x 3, BGR."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            yield cast("Image", frame.to_ndarray(format="bgr24"))


def rate(clip: Path) -> Fraction:
    """Return a clip's frames a second."""
    with av.open(str(clip)) as container:
        return Fraction(container.streams.video[0].average_rate or 25)


def encode(
    to: Path,
    pictures: Iterable[Image],
    fps: Fraction,
    *,
    noise: bool = False,
    full_range: bool = False,
    varying: bool = False,
) -> Path:
    """Write pictures as H.264 at about 4 Mbit/s, 4:2:0, a key frame each two seconds.

    Args:
        to: the file, Matroska.
        pictures: BGR, all of one size, both sides even.
        fps: frames a second.
        noise: add what a sensor adds, -2 to 2 on each sample, new in each frame.
        varying: of constant quality and 4 Mbit/s at most, not of constant rate: what cameras call VBR.
        full_range: samples from 0 to 255, as many cameras have it, not from 16 to 235.
    """
    rng, form = np.random.default_rng(1), "yuvj420p" if full_range else "yuv420p"
    with av.open(str(to), "w") as container:
        stream: av.video.stream.VideoStream | None = None
        for image in pictures:
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=fps, options=_PRESET | (_VARYING if varying else {})
                )
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = form
                if not varying:
                    stream.bit_rate = BIT_RATE
                stream.codec_context.gop_size = round(fps * _KEY_EVERY_S)
                stream.codec_context.thread_count = 1
            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).astype(np.int16)
            if noise:
                planes += rng.integers(-_NOISE, _NOISE + 1, planes.shape, dtype=np.int16)
            if full_range:
                planes = _stretched(planes, image.shape[0])
            frame = av.VideoFrame.from_ndarray(planes.clip(0, 255).astype(np.uint8), format=form)
            container.mux(stream.encode(frame))
        assert stream is not None
        container.mux(stream.encode(None))
    return to


def _stretched(planes: NDArray[np.int16], height: int) -> NDArray[np.int16]:
    """Return planes of limited range, brightness above colours, in full range (ITU-T H.273, 8.3)."""
    spread = np.float32(255) / np.where(np.arange(len(planes)) < height, 219, 224).astype(np.float32)
    zero = np.where(np.arange(len(planes)) < height, 16, 128)
    base = np.where(np.arange(len(planes)) < height, 0, 128)
    full = (planes - zero[:, None]) * spread[:, None] + base[:, None]
    return full.round().astype(np.int16)


def busy(folder: Path, frames: int) -> Iterator[Image]:
    """Yield a 720p scene at 30 fps: four people in a two by two mosaic, all of them moving all the time."""
    clips = [folder / "clips" / f"intel_asl_{name}.mkv" for name in _FOUR]
    tiles = [_sway(clip, 30.0, number) for number, clip in enumerate(clips)]
    for parts in islice(zip(*tiles, strict=True), frames):
        yield _mosaic(parts)


def visitors(folder: Path, fps: int) -> Iterator[Image]:
    """Yield a 720p scene of 55 seconds that can be played in a circle: people come for 8 s and go for 3.

    There are four places, and the next person of the twenty comes to each; never are all four empty.
    """
    clips, step = signers(folder), round(30 / fps)
    tiles = [islice(_place(clips, n, fps, step), round(_TURN_S * _TURNS * fps)) for n in range(4)]
    for parts in zip(*tiles, strict=True):
        yield _mosaic(parts)


def arrivals(seconds: float) -> int:
    """Return how many visits of `visitors`, played in a circle, have begun by a time."""
    shifts = [number * _TURN_S / 4 for number in range(4)]
    starts = [turn * _TURN_S - shift for shift in shifts for turn in range(math.ceil(seconds / _TURN_S) + 1)]
    return sum(-_HERE_S < start < seconds for start in starts)


def repeated(clip: Path, to: Path, seconds: float) -> Path:
    """Write a clip again and again, as it is encoded, until it is so long."""
    with av.open(str(clip)) as source, av.open(str(to), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        base = float(stream.time_base or 0)
        frame = 1 / float(stream.average_rate or 1)
        turn = float(packets[-1].dts or 0) * base + frame
        for number in range(math.ceil(seconds / turn)):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts = again.dts = round((float(packet.dts or 0) * base + number * turn) / base)
                again.time_base, again.is_keyframe = packet.time_base, packet.is_keyframe
                again.stream = copy
                target.mux(again)
    return to


def side_by_side(clips: Sequence[Path]) -> Iterator[Image]:
    """Yield clips beside one another, at the height of the first, until the shortest ends."""
    for parts in zip(*map(images, clips), strict=False):
        height = parts[0].shape[0]
        scaled = [cv2.resize(p, (_even(p.shape[1] * height / p.shape[0]), height)) for p in parts]
        yield cast("Image", np.hstack(scaled))


def _even(side: float) -> int:
    return 2 * round(side / 2)


def _mosaic(parts: Sequence[Image]) -> Image:
    return cast("Image", np.vstack((np.hstack(parts[:2]), np.hstack(parts[2:]))))


def _sway(clip: Path, fps: float, number: int, step: int = 1) -> Iterator[Image]:
    """Yield a clip forth and back without end, as a camera that sways would see it."""
    frames = list(islice(images(clip), 0, None, step))
    turn = 2 * (len(frames) - 1)
    at = 0
    while True:
        place = at % turn
        angle = 2 * math.pi * (at / fps / _SWAY_S + number / 4)
        across, down = _SWAY[0] * (1 + math.sin(angle)), _SWAY[1] * (1 + math.cos(angle))
        move = np.array([[_ZOOM, 0, -across], [0, _ZOOM, -down]])
        yield cast("Image", cv2.warpAffine(frames[min(place, turn - place)], move, _TILE))
        at += 1


def _place(clips: Sequence[Path], number: int, fps: int, step: int) -> Iterator[Image]:
    """Yield one place of `visitors`, without end."""
    empty = np.full((_TILE[1], _TILE[0], 3), _EMPTY, np.uint8)
    here, turn, shift = (round(s * fps) for s in (_HERE_S, _TURN_S, number * _TURN_S / 4))
    who, at = -1, shift
    swaying: Iterator[Image] = iter(())
    while True:
        if at // turn % _TURNS != who:
            who = at // turn % _TURNS
            swaying = _sway(clips[(4 * who + number) % len(clips)], fps, number, step)
        yield next(swaying) if at % turn < here else empty
        at += 1
