from __future__ import annotations

import ctypes
import logging
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import av._core
import numpy as np
import pytest

from facerelay.edge.cameras import health, memory, video
from facerelay.edge.cameras.health import Freeze, Journal, Patience
from facerelay.edge.cameras.opening import CameraError
from facerelay.edge.cameras.raster import Raster
from facerelay.edge.cameras.stream import Haste, StreamClock


def frames_of(values: Iterable[int], form: str = "gray") -> Iterator[av.VideoFrame]:
    for value in values:
        image = np.full((48, 64, 3), value, np.uint8)
        yield av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=form)


def test_the_time_until_a_still_picture_is_taken_for_a_frozen_one_doubles_and_falls_back() -> None:
    freeze, (same, other) = Freeze(10), frames_of([5, 6])
    limits = []
    for start in (0, 100, 200):
        freeze.open(start)
        frozen = next(n for n in range(start, start + 90) if freeze.seconds(same, n)) - start
        limits.append(frozen)
    assert limits == [10, 20, 40]
    freeze.open(300)
    assert not any(freeze.seconds(same if n < 381 else other, n) for n in (300, 350, 381))
    assert freeze.limit == 10


@pytest.mark.parametrize("form", ["gray", "yuv420p", "yuyv422", "bgr24", "yuv420p10le"])
def test_pictures_differ_in_their_fingerprints_alone_where_they_differ(form: str) -> None:
    first, second, other = frames_of([7, 7, 9], form)
    assert video.fingerprint(first) == video.fingerprint(second) != video.fingerprint(other)


def bottom_up(path: Path, code: bytes, bits: int, data: bytes, size: tuple[int, int]) -> Path:
    """Write an AVI of one raw frame whose rows lie from the bottom up."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    extra = b"BottomUp\0" if code.strip(b"\0") else b""
    form = struct.pack("<IiiHH4s5I", 40 + len(extra), *size, 1, bits, code, len(data), 0, 0, 0, 0) + extra
    stream = struct.pack("<4s4s10I4H", b"vids", code, 0, 0, 0, 1, 25, 0, 1, len(data), 0, 0, 0, 0, *size)
    head = struct.pack("<14I", 40_000, 0, 0, 16, 1, 0, 1, len(data), *size, 0, 0, 0, 0)
    lists = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    frames = chunk(b"LIST", b"movi" + chunk(b"00db", data))
    path.write_bytes(
        chunk(b"RIFF", b"AVI " + chunk(b"LIST", b"hdrl" + chunk(b"avih", head) + lists) + frames)
    )
    return path


@pytest.mark.parametrize(("code", "bits"), [(b"\0\0\0\0", 24), (b"I420", 12), (b"Y800", 8)])
def test_rows_from_the_bottom_up_are_turned(tmp_path: Path, code: bytes, bits: int) -> None:
    marks = []
    for value in (50, 90):
        low, high = bytes([value]) * (64 * 24), bytes([200]) * (64 * 24)
        data = (low * 3 + high * 3) if bits == 24 else low + high + bytes([128]) * (64 * 48 * (bits - 8) // 8)
        path = bottom_up(tmp_path / "a.avi", code, bits, data, (64, 48))
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        assert frame.planes[0].line_size < 0
        image = video.to_raster(frame).small(64)
        assert image.shape == (48, 64, 3)
        assert image[0].mean() > image[-1].mean() + 60
        marks.append((video.fingerprint(frame), video.fingerprint(frame)))
    assert marks[0][0] == marks[0][1] != marks[1][0]


@pytest.mark.parametrize("form", ["yuv420p", "yuyv422", "bgr24"])
def test_a_copied_picture_has_nothing_of_the_frames_memory(form: str) -> None:
    (frame,) = frames_of([70], form)
    raster = video.copied(frame, "0")()
    before = raster.luma().copy()
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    assert np.array_equal(raster.luma(), before)
    assert before.mean() > 50


def test_a_picture_that_cannot_be_copied_is_an_error_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> Raster:
        raise ValueError("Conversion to numpy array with format `none` is not supported")

    monkeypatch.setattr(video, "to_raster", refuse)
    take = video.copied(next(frames_of([70])), "0")
    with pytest.raises(CameraError, match="cannot be converted"):
        take()


def test_ffmpeg_takes_no_more_memory_at_once_than_it_may() -> None:
    library = ctypes.CDLL(av._core.__file__)
    library.av_malloc.restype, library.av_free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    assert library.av_malloc(ctypes.c_size_t(memory.MOST_BYTES + 1)) is None
    held = library.av_malloc(ctypes.c_size_t(1000))
    assert held
    library.av_free(held)


def test_the_clock_of_a_stream_is_put_on_ours_by_the_least_delay() -> None:
    clock = StreamClock()
    lags, times = [], []
    for stamp, now in ((5.0, 100.3), (5.1, 100.15), (5.2, 100.9), (5.3, 100.91), (5.4, 100.92)):
        lags.append(clock.lag(stamp, now))
        times.append(clock.at(stamp, now))
    assert lags == pytest.approx([0, 0, 0.65, 0.56, 0.47])
    assert times == pytest.approx([100.3, 100.3, 100.3, 100.35, 100.45])


@pytest.mark.parametrize("stamps", [(9.0, 0.0, 0.1), (9.0, 1e9, 1e9 + 0.1), (9.0, -1e9, 1.0)])
def test_a_stream_whose_clock_leaps_is_placed_anew(stamps: tuple[float, ...]) -> None:
    clock = StreamClock()
    for stamp, now in zip(stamps, (50.0, 50.1, 50.2), strict=True):
        lag = clock.lag(stamp, now)
        assert lag == pytest.approx(0.0)
        assert clock.at(stamp, now) == pytest.approx(now)


def test_stamps_that_are_none_or_nonsense_leave_the_time_of_arrival() -> None:
    clock = StreamClock()
    for stamp in (float("nan"), float("inf"), 3.0):
        assert clock.lag(stamp, 10.0) == 0.0
    assert [clock.at(stamp, now) for stamp, now in ((None, 11.0), (float("nan"), 12.0))] == [11.0, 12.0]


def test_a_clock_that_runs_a_little_slow_does_not_look_like_a_queue() -> None:
    clock = StreamClock()
    lags = [clock.lag(now * 0.999, now) for now in range(10_000)]
    assert max(lags) < 0.1


def test_only_key_frames_are_decoded_until_a_queue_is_gone() -> None:
    haste = Haste()
    lags = [0.0, 0.5, 1.2, 1.1, 0.9, 0.6, 0.4, 0.2, 0.1, 0.0, 0.0]
    keys = [True, False, False, False, True, False, False, False, False, True, False]
    wanted = [
        haste.wants(lag, number / 10, key=key)
        for number, (lag, key) in enumerate(zip(lags, keys, strict=True))
    ]
    assert wanted == [True, True, False, False, True, False, False, False, False, True, True]


def test_where_leaving_out_does_not_help_the_stream_is_placed_anew() -> None:
    haste, vain = Haste(), []
    for number in range(100):
        haste.wants(1.5, number / 10, key=number % 10 == 0)
        vain.append(haste.vain)
    assert max(vain) >= 2
    assert vain.index(1) <= 25


def test_a_silence_that_was_but_slowness_is_borne_from_the_second_time_on() -> None:
    patience = Patience()
    assert patience.seconds(1, 0.0) == health.FIRST_S
    assert patience.seconds(2, 0.0) == health.STALL_S
    for since, limit in ((20.0, health.STALL_S), (1.0, health.STALL_S), (1.0, 24.0)):
        patience.doubt(8.0, 100.0)
        patience.opened(100.0 + since)
        assert patience.seconds(2, 110.0) == limit
    assert patience.seconds(2, 300.0) == health.STALL_S


def test_one_long_silence_does_not_make_a_camera_a_slow_one() -> None:
    patience = Patience()
    patience.note(9.0, 10.0)
    for now in range(11, 50):
        patience.note(0.1, now)
    assert patience.seconds(50, 50.0) == health.STALL_S


def test_the_log_tells_of_each_reason_once_and_that_the_camera_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    journal = Journal("rtsp://someone:secret@cam/1")
    for reason in ("refused", "refused", "unauthorised", "refused"):
        journal.lost(reason)
    assert journal.gone
    journal.flows("640x480 h264", (640, 480))
    assert not journal.gone
    for _ in range(50):
        journal.lost("refused")
        journal.flows("640x480 h264", (640, 480))
    assert [record.message.split(": ", 1)[1].split(",")[0] for record in caplog.records] == [
        "refused; trying again", "unauthorised", "back after 0 s: 640x480 h264",
    ]  # fmt: skip
    assert "secret" not in caplog.text
