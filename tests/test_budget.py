from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from conftest import Make
from facerelay import settings
from facerelay.edge.budget import NOTE, Budget
from facerelay.edge.outbox import Outbox
from test_relay import bench

DAY = date(2026, 3, 1)


class Now:
    """A clock and a calendar that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.day = DAY

    def clock(self) -> float:
        return self.now

    def today(self) -> date:
        return self.day

    def budget(self, *, per_second: int | None = None, per_day: int | None = None) -> Budget:
        return Budget(per_second=per_second, per_day=per_day, clock=self.clock, day=self.today)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        yield outbox


def test_without_a_budget_all_may_be_sent() -> None:
    budget = Now().budget()
    budget.spend(10**12)
    assert budget.open
    assert budget.news() is None


@pytest.mark.parametrize("size", [300, 9_000])
def test_over_a_minute_no_more_is_sent_than_a_second_allows(size: int) -> None:
    now = Now()
    budget = now.budget(per_second=3_000)
    sent = 0
    for _ in range(600):
        while budget.open:
            budget.spend(size)
            sent += size
        now.now += 0.1
    assert 0.95 * 60 * 3_000 <= sent <= 61 * 3_000 + size


def test_an_idle_hour_saves_up_no_more_than_a_second() -> None:
    now = Now()
    budget = now.budget(per_second=3_000)
    now.now += 3600
    sent = 0
    while budget.open:
        budget.spend(100)
        sent += 100
    assert sent == 3_000


def test_a_day_that_is_spent_begins_anew_at_midnight() -> None:
    now = Now()
    budget = now.budget(per_day=1_000)
    budget.spend(999)
    assert budget.open
    budget.spend(500)
    assert not budget.open
    now.day = date(2026, 3, 2)
    assert budget.open


def test_a_clock_set_back_over_midnight_begins_no_new_day() -> None:
    now = Now()
    budget = now.budget(per_day=1_000)
    budget.spend(1_000)
    now.day = date(2026, 2, 28)
    assert not budget.open
    now.day = date(2026, 2, 20)
    assert budget.open, "a clock that was far ahead must not close the line for weeks"


def test_a_spent_day_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    budget = Now().budget(per_day=1_000)
    budget.tell()
    assert not caplog.text
    budget.spend(1_000)
    budget.tell()
    budget.tell()
    assert caplog.text.count("uplink.bytes_per_day = 1000") == 1


def test_a_note_that_cannot_be_read_is_said_and_counts_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    budget = Now().budget(per_day=1_000)
    budget.restore(None)
    assert not caplog.text
    for note in ("", "2026-03-01", "2026-03-01 much", "2026-99-01 5", "1 2 3"):
        budget.restore(note)
        assert budget.open
    assert "begins anew" in caplog.text


def test_a_restart_does_not_forget_what_the_day_has_spent(
    outbox: Outbox, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    now = Now()
    size = len(make_face().data)

    async def first() -> None:
        async with bench(outbox, make_face, budget=now.budget(per_day=2 * size)) as b:
            for _ in range(5):
                await b.capture()
            await b.until(2)
            await b.pass_time(0)
            assert len(b.wire.sent) == 2
            await b.answer(*b.wire.sent)
            await b.pass_time(0)

    async def second() -> None:
        async with bench(outbox, make_face, budget=now.budget(per_day=2 * size)) as b:
            await b.pass_time(0)
            assert b.wire.sent == []
            now.day = date(2026, 3, 2)
            await b.until(2)
            await b.pass_time(0)
            assert len(b.wire.sent) == 2

    asyncio.run(first())
    noted = outbox.noted(NOTE).result()
    assert noted == f"2026-03-01 {len_of(outbox)}"
    asyncio.run(second())
    assert outbox.ledger().result().cameras["home/door"].waiting == 3
    assert "are spent" in caplog.text


def len_of(outbox: Outbox) -> int:
    return outbox.ledger().result().cameras["home/door"].bytes


def test_what_is_sent_again_is_paid_for_and_live_faces_go_before_it(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        now = Now()
        budget = now.budget(per_second=len(make_face().data))
        async with bench(outbox, make_face, budget=budget) as b:
            old = [await b.capture() for _ in range(2)]
            now.now += 5
            await b.until(1)
            now.now += 5
            await b.until(2)
            budget.spend(10**9)
            await b.pass_time(7)
            live = await b.capture()
            await b.pass_time(0)
            assert len(b.wire.sent) == 2, "both are overdue, and nothing may be sent"
            for sends in (3, 4, 5):
                now.now += 10**9
                await b.until(sends)
                budget.spend(10**9)
                b.wire.now += 60  # nothing is answered: one at a time
            assert b.wire.sent[2].face.id == live.face.id
            assert b.wire.times == {old[0].face.id: 2, old[1].face.id: 2, live.face.id: 1}

    asyncio.run(check())


def test_after_an_outage_the_backlog_takes_what_live_faces_leave_of_the_budget(
    outbox: Outbox, make_face: Make
) -> None:
    async def check() -> None:
        now = Now()
        async with bench(outbox, make_face, budget=now.budget(per_second=2 * len(make_face().data))) as b:
            b.relay.on_link(False)
            old = [await b.capture() for _ in range(4)]
            await b.pass_time(3600)
            b.relay.on_link(True)
            await b.until(2)
            live = []
            for _ in range(2):
                live.append(await b.capture())
                await b.pass_time(0)
                now.now += 1
                await b.until(2 + 2 * len(live))
            wanted = [old[0], old[1], live[0], old[2], live[1], old[3]]
            assert [s.face.id for s in b.wire.sent] == [f.face.id for f in wanted]

    asyncio.run(check())


def test_a_face_that_waited_too_long_is_dropped_and_counted(outbox: Outbox, make_face: Make) -> None:
    async def check() -> None:
        async with bench(outbox, make_face, up=False, expire_s=3600) as b:
            for age in (7200, 5000, 60):
                frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
                await asyncio.wrap_future(outbox.put(frozen, chosen=time.time() - age))
            await b.pass_time(10)
            books = outbox.ledger().result().cameras["home/door"]
            assert (books.waiting, books.dropped, books.reasons) == (1, 2, {"expired": 2})
            assert books.closes

    asyncio.run(check())


def test_faces_are_expired_however_many_there_are(outbox: Outbox, make_face: Make) -> None:
    for n in range(7):
        frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
        outbox.put(frozen, chosen=float(n)).result()
    assert [outbox.expire(6.0, 2).result() for _ in range(5)] == [2, 2, 2, 0, 0]
    assert outbox.expire(6.5, 2).result() == 1
    outbox.put(make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()), chosen=7.0).result()
    assert outbox.expire(8.0, 2).result() == 1
    assert outbox.waiting().result() == 0


def test_the_settings_of_the_line_are_limited() -> None:
    with pytest.raises(settings.ConfigError, match=r"uplink\.bytes_per_second"):
        settings.load(None, flags=["uplink.bytes_per_second=10"], environ={})
    config = settings.load(None, flags=["uplink.bytes_per_day=5000000"], environ={})
    assert config.uplink.bytes_per_day == 5_000_000
