from __future__ import annotations

import asyncio
import logging
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerelay import config
from facerelay.cloud import history, retention
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.history import marks, reading
from facerelay.cloud.history.diary import Diary
from facerelay.cloud.history.marks import Camera, DayMarks, Mark
from facerelay.cloud.history.period import Band, Counts, Period, by_place, lasted
from facerelay.cloud.read_books import read_books
from facerelay.messages import Account, Ledger
from nights import Edge, Store

EVENING = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
DAY = date(2026, 11, 20)


def at(clock: str, *, days: int = 0) -> datetime:
    hour, minute = map(int, clock.split(":"))
    return EVENING.replace(hour=hour, minute=minute) + timedelta(days=days)


def memory() -> Bucket:
    return open_bucket(config.Bucket(url="memory://bucket"))


async def hours_of(bucket: Bucket, start: datetime, n: int, now: datetime | None = None) -> Period:
    return await history.read_period(bucket, start, n, now=now or start + timedelta(hours=n, minutes=5))


def captured(period: Period, camera: str = "home/door") -> list[int | None]:
    return [hour.captured if hour else None for hour in period.cameras[camera]]


def test_each_hour_has_what_was_counted_in_it() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at("21:30"))
        edge.count("door", frames=100, captured=2, stored=2, bytes=900)
        await store.pass_time(at("22:00"), edge)
        edge.count(
            "door", frames=50, captured=3, stored=1, dropped=1, reasons={"evicted": 1, "gate-small": 9}
        )
        await store.pass_time(at("23:00"), edge)
        edge.count("yard", frames=7, captured=1)
        await store.pass_time(at("01:05", days=1), edge)
        period = await hours_of(bucket, at("20:00"), 5)
        assert captured(period) == [None, 2, 3, 0, 0]
        assert captured(period, "home/yard") == [None, 0, 0, 1, 0]
        there = period.cameras["home/door"][2]
        assert there is not None
        assert (there.stored, there.dropped, there.waiting) == (1, 1, 1)
        assert (there.reasons, there.since) == ({"evicted": 1}, there.start)
        assert [counts and counts.captured for counts in period.hours] == [None, 2, 3, 1, 0]
        assert period.total("home/door").frames == 150
        assert not period.bands
        day = await history.read_day(bucket, DAY, now=at("01:05", days=1))
        assert captured(day)[20:] == [None, 2, 3, 0]

    asyncio.run(scenario())


def test_an_outbox_that_is_older_than_its_history_begins_with_what_the_bucket_knew() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        edge.count("door", frames=1000, captured=500, stored=500)
        before = Store(bucket, at("20:00", days=-9))
        before.hear(edge)
        await before.books.flush()  # a store of an earlier version
        edge.count("door", captured=4, stored=4)
        await Store(bucket, at("22:10")).pass_time(at("22:20"), edge)
        assert captured(await hours_of(bucket, EVENING, 1)) == [4]

    asyncio.run(scenario())


def test_a_store_that_begins_anew_goes_on() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        for minute in range(0, 50, 10):
            edge.count("door", captured=1, stored=1)
            begin = at(f"22:{minute:02}")
            store = Store(bucket, begin)
            await store.pass_time(begin + timedelta(minutes=10), edge)
            await store.write(everything=True)
        period = await hours_of(bucket, EVENING, 1, now=at("22:52"))
        assert captured(period) == [5]
        assert not period.bands

    asyncio.run(scenario())


def test_stores_that_share_an_outbox_add_up() -> None:
    """Each hears every other ledger, and what one writes the other has not read."""

    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        one, other = Store(bucket, at("22:00"), name="one"), Store(bucket, at("22:00"), name="other")
        for _ in range(60):
            edge.count("door", captured=1, stored=1)
            one.hear(edge)
            one.now += timedelta(minutes=1)
            other.now = one.now
            edge.count("door", captured=1)
            other.hear(edge)
            one.now += timedelta(minutes=1)
            other.now = one.now
            await asyncio.gather(one.write(everything=True), other.write(everything=True))
        await one.write(everything=True)  # what the other's last one wrote over
        await other.write(everything=True)
        period = await hours_of(bucket, EVENING, 2)
        assert captured(period) == [60, 60]
        assert not period.bands

    asyncio.run(scenario())


def test_what_was_not_heard_is_counted_afterwards_and_told_as_a_band() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at("21:00"))
        edge.count("door", captured=1, stored=1)
        await store.pass_time(at("22:15"), edge)
        await store.pass_time(at("02:40", days=1))  # the link is cut
        edge.count("door", captured=9, stored=2, dropped=7, reasons={"evicted": 7})
        edge.link["cuts"] = 1
        open_one = await hours_of(bucket, EVENING, 4, now=at("01:30", days=1))
        assert captured(open_one) == [0, None, None, None]
        (band,) = open_one.bands
        assert (band.kind, band.site, band.start, band.lasts) == ("silent", "home", at("22:15"), True)
        assert "has not been heard since" in band.words
        (band,) = (await hours_of(bucket, EVENING, 3)).bands  # as it looks when that time is over
        assert (band.end, band.lasts) == (at("01:00", days=1), True)
        assert "to the end of this time" in band.words
        await store.pass_time(at("04:00", days=1), edge)
        period = await hours_of(bucket, EVENING, 6)
        assert captured(period) == [0, None, None, None, 9, 0]
        first = period.cameras["home/door"][4]
        assert first is not None
        assert (first.dropped, first.reasons, first.since) == (7, {"evicted": 7}, at("22:15"))
        (band,) = period.bands
        assert (band.kind, band.start, band.end, band.lasts) == (
            "silent", at("22:15"), at("02:40", days=1), False,
        )  # fmt: skip
        assert "its link was down" in band.words

    asyncio.run(scenario())


def test_pictures_sent_by_hand_are_counted_and_their_outbox_is_not_missed() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at("21:00"))
        edge.link["brief"] = True
        edge.count("send", captured=1, stored=1)
        await store.pass_time(at("21:01"), edge)
        await store.pass_time(at("23:30"))
        period = await hours_of(bucket, at("21:00"), 2)
        assert captured(period, "home/send") == [1, None]
        assert not period.bands

    asyncio.run(scenario())


def test_a_time_without_a_store_is_told_as_that() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        edge.count("door", captured=1)
        await Store(bucket, at("22:00")).pass_time(at("22:20"), edge)
        await Store(bucket, at("22:50")).pass_time(at("23:00"), edge)
        bands = (await hours_of(bucket, EVENING, 1)).bands
        assert [(band.kind, band.start, band.end) for band in bands] == [("store", at("22:20"), at("22:50"))]

    asyncio.run(scenario())


def test_no_receipts_late_faces_and_dark_cameras_are_bands() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at("22:00"))
        edge.count("door", captured=1)
        await store.pass_time(at("22:10"), edge)
        edge.link |= {"silent_s": 70.0, "oldest_s": 70.0}
        await store.pass_time(at("22:12"), edge)
        edge.link |= {"silent_s": None, "oldest_s": 200.0}
        edge.dark("door", at("22:11"))
        await store.pass_time(at("22:20"), edge)
        edge.link |= {"oldest_s": None}
        edge.dark("door", None)
        await store.pass_time(at("23:00"), edge)
        found = (await hours_of(bucket, EVENING, 1)).bands
        assert [(band.kind, band.camera, band.start, band.end) for band in found] == [
            ("unanswered", None, at("22:10"), at("22:12")),
            ("dark", "door", at("22:11"), at("22:20")),
            ("late", None, at("22:12"), at("22:20")),
        ]

    asyncio.run(scenario())


def test_what_a_broker_tells_anew_is_no_sign_of_life() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at("22:00"))
        edge.count("door", captured=1)
        await store.pass_time(at("22:05"), edge)
        last = at("22:04")
        (before,) = [report async for report in read_books(bucket)]
        for each in (store, Store(bucket, at("22:30"))):  # the forwarder comes back; a store begins anew
            each.now = at("22:30")
            each.hear(edge, told=last)
            await each.write(everything=True)
        (report,) = [report async for report in read_books(bucket)]
        assert report.heard == before.heard
        there = await history.read_marks(bucket, history.outbox_key(DAY, "home", edge.outbox))
        assert there is not None
        assert list(marks.runs(marks.minutes(there.heard))) == [(22 * 60, 22 * 60 + 5)]

    asyncio.run(scenario())


def test_an_outbox_whose_place_another_took_is_not_missed() -> None:
    async def scenario() -> None:
        bucket, old, new = memory(), Edge(), Edge(outbox="b" * 32)
        store = Store(bucket, at("22:00"))
        old.count("door", captured=5, stored=5)
        new.count("door", captured=1)
        await store.pass_time(at("22:10"), old)
        await store.pass_time(at("23:00"), new)
        period = await hours_of(bucket, EVENING, 1)
        assert captured(period) == [6]
        assert not period.bands

    asyncio.run(scenario())


def test_a_face_that_was_dropped_and_came_after_all_is_taken_back() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at("22:00"))
        edge.count("door", captured=1, dropped=1, reasons={"evicted": 1})
        await store.pass_time(at("23:00"), edge)
        edge.count("door", stored=1, dropped=-1, reasons={"evicted": -1})
        await store.pass_time(at("23:30"), edge)
        period = await hours_of(bucket, EVENING, 2)
        total = period.total("home/door")
        assert (total.captured, total.stored, total.dropped) == (1, 1, 0)

    asyncio.run(scenario())


def test_a_bucket_that_fails_loses_no_mark(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket, edge = open_bucket(config.Bucket(url=f"file://{tmp_path / 'bucket'}")), Edge()
        store = Store(bucket, at("22:00"))
        edge.count("door", captured=1)
        await store.pass_time(at("22:05"), edge)
        (tmp_path / "bucket" / "history").rename(tmp_path / "away")
        (tmp_path / "bucket" / "history").write_text("a file where a folder is wanted")
        edge.count("door", captured=2)
        await store.pass_time(at("23:05"), edge)
        assert "history" in caplog.text
        (tmp_path / "bucket" / "history").unlink()
        (tmp_path / "away").rename(tmp_path / "bucket" / "history")
        edge.count("door", captured=4)
        await store.pass_time(at("23:30"), edge)
        assert captured(await hours_of(bucket, EVENING, 2)) == [3, 4]

    asyncio.run(scenario())


def test_what_is_no_history_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        edge.count("door", captured=1)
        await Store(bucket, at("22:00")).pass_time(at("22:20"), edge)
        under = f"history/date={DAY}/site=home"
        for name, data in {
            "c" * 32: b"{", "d" * 32: b'{"heard":"zz"}', "e" * 32: b"x" * (DayMarks.most_bytes + 1),
            "f" * 32: b'{"cameras":{"home/door":{"hours":{"24":{}}}}}', "README": b"",
        }.items():  # fmt: skip
            await bucket.put(f"{under}/{name}.json", data)
        await bucket.put(f"history/date={DAY}/site=Home/{'a' * 32}.json", b"{}")
        with caplog.at_level(logging.WARNING):
            period = await hours_of(bucket, EVENING, 1)
        assert captured(period) == [1]
        assert caplog.text.count("left out") == 4
        assert "bytes" in caplog.text

    asyncio.run(scenario())


def test_what_is_too_much_to_read_is_left_out_the_largest_first(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MOST_BYTES", 100_000)

    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        edge.count("door", captured=1)
        await Store(bucket, at("22:00")).pass_time(at("22:20"), edge)
        many = {f"evil/c{n}": Camera(hours={22: Mark(n=(n,) * 14)}) for n in range(2_000)}
        await bucket.put(f"history/date={DAY}/site=evil/{'e' * 32}.json", DayMarks(cameras=many).to_bytes())
        period = await hours_of(bucket, EVENING, 1)
        assert list(period.cameras) == ["home/door"]
        assert captured(period) == [1]
        assert "the 1 largest objects are left out" in caplog.text

    asyncio.run(scenario())


def test_strangers_cannot_fill_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary(memory(), store="store", now=lambda: EVENING)
    cameras = {f"home/c{n}": Account(captured=1) for n in range(500)}
    for n in range(30):
        diary.take("home", Ledger(outbox=f"{n:032x}", cameras=cameras))
    assert sum(len(known.last) for known in diary._outboxes.values()) == 5_000
    assert "too many" in caplog.text
    for n in range(2_500):
        diary.take("evil", Ledger(outbox=f"{n:032x}", cameras={}))
    assert sum(site == "evil" for site, _ in diary._outboxes) == 1_000
    diary.take("away", Ledger(outbox="a" * 32, cameras={"away/door": Account(captured=1)}))
    assert ("away", "a" * 32) in diary._outboxes  # what one site does leaves room for others
    many = {f"home/c{n}": Camera() for n in range(marks.MOST_CAMERAS + 1)}
    first, second = (dict(list(many.items())[at:][: marks.MOST_CAMERAS]) for at in (0, 1))
    merged = DayMarks(cameras=first).merge(DayMarks(cameras=second))
    assert len(merged.cameras) == marks.MOST_CAMERAS


def test_history_goes_with_the_faces_of_its_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket, edge = open_bucket(config.Bucket(url=f"file://{tmp_path}")), Edge()
        edge.count("door", captured=1)
        await Store(bucket, EVENING).pass_time(at("22:01"), edge)
        assert len([entry async for entry in bucket.list(history.ROOT)]) == 2
        assert await retention.expire(bucket, keep=timedelta(days=1)) == 0
        assert await retention.expire(bucket, keep=timedelta(0)) == 3  # the books as well
        assert not [entry async for entry in bucket.list(history.ROOT)]

    asyncio.run(scenario())


@pytest.mark.parametrize("n", [0, -1, history.MOST_HOURS + 1])
def test_so_many_hours_and_no_more(n: int) -> None:
    with pytest.raises(ValueError, match="hours"):
        asyncio.run(history.read_period(memory(), EVENING, n))


COUNT = st.integers(0, 9)
MARKS = st.builds(
    Mark,
    n=st.tuples(*[COUNT] * (len(marks.COUNTS) + 1)),
    why=st.dictionaries(st.sampled_from(["evicted"]), COUNT),
)
BITS = st.integers(0, 2**40).map(marks.bits)
DAYS = st.builds(
    DayMarks,
    cameras=st.dictionaries(
        st.sampled_from(["home/door", "home/yard"]),
        st.builds(
            Camera, base=MARKS, hours=st.dictionaries(st.integers(0, 23), MARKS, max_size=3), dark=BITS
        ),
    ),
    heard=BITS,
    unanswered=BITS,
    late=BITS,
)


@given(DAYS, DAYS, DAYS)
def test_days_merge_in_any_order_and_as_often_as_one_likes(
    one: DayMarks, two: DayMarks, three: DayMarks
) -> None:
    def ranks(day: DayMarks) -> object:
        cameras = {
            name: (
                camera.base and camera.base.rank,
                {h: m.rank for h, m in camera.hours.items()},
                camera.dark,
            )
            for name, camera in day.cameras.items()
        }
        return cameras, day.heard, day.unanswered, day.late

    assert ranks(one.merge(two)) == ranks(two.merge(one))
    assert ranks(one.merge(two).merge(two)) == ranks(one.merge(two))
    assert ranks(one.merge(two).merge(three)) == ranks(one.merge(two.merge(three)))
    assert DayMarks.from_bytes(one.to_bytes()) == one


@given(st.sets(st.integers(0, 300)))
def test_runs_are_the_minutes(minutes: set[int]) -> None:
    number = sum(1 << minute for minute in minutes)
    found = list(marks.runs(number))
    assert {minute for start, end in found for minute in range(start, end)} == minutes
    assert all(end < start for (_, end), (start, _) in pairwise(found))


def test_counts_as_an_account_are_never_below_nothing() -> None:
    account = Counts(dropped=-1, captured=2, reasons={"evicted": -1}).account()
    assert (account.dropped, account.captured, account.reasons) == (0, 2, {})


def test_bands_of_two_outboxes_that_lie_over_one_another_are_counted_once() -> None:
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def band(start: int, end: int, camera: str = "door") -> Band:
        first, last = (noon + timedelta(minutes=minute) for minute in (start, end))
        return Band(
            kind="dark", site="home", camera=camera, start=first, end=last, lasts=False, words="It was dark."
        )

    bands = [band(10, 20), band(0, 15), band(30, 40), band(12, 14), band(0, 5, "yard")]
    found = by_place(bands)
    assert lasted(found["home/door"]) == timedelta(minutes=30)
    assert lasted(found["home/door"], after=noon + timedelta(minutes=12)) == timedelta(minutes=18)
    assert lasted(found["home/yard"]) == timedelta(minutes=5)
    assert lasted([]) == timedelta()
