from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import av
import numpy as np
import pytest

from facerelay.edge.cameras import health, video
from facerelay.edge.cameras.health import Freeze, Journal, Patience
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
