"""What the operator's view must not claim: times in which it would be easy to say that all is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import servers
from conftest import Make
from facerelay import config
from facerelay.cloud import history, retention
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.counters import Counters
from facerelay.cloud.gallery import health
from facerelay.cloud.history.diary import Diary
from facerelay.cloud.history.losses import judge_past
from facerelay.cloud.measures import Measures
from facerelay.cloud.read_books import read_books
from facerelay.cloud.store import serve_store
from facerelay.commands import books, day
from facerelay.commands.running import connector
from facerelay.edge.capture import open_outbox
from facerelay.edge.relaying import relaying
from facerelay.messages import Account, Ledger, LinkHealth
from facerelay.metrics import Reading
from facerelay.verdict import Verdict
from nights import Edge, Store

DAY = date(2024, 11, 20)
MIDNIGHT = datetime(2024, 11, 20, tzinfo=UTC)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def memory() -> Bucket:
    return open_bucket(config.Bucket(url="memory://bucket"))


async def of_page(bucket: Bucket, begin: float, end: float) -> Verdict:
    """Return what the health page says of some hours that are just over."""
    period = await history.read_period(
        bucket, at(begin), round(end - begin), now=at(end) + timedelta(minutes=4)
    )
    return judge_past(period, [report async for report in read_books(bucket)])


async def of_report(bucket: Bucket) -> Verdict:
    found = await day.read(bucket, DAY, camera=None, pictures=False, pixels=10**6)
    return day.verdict(found)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (2, 3)])
def test_a_machine_that_was_off_is_said_and_a_link_that_was_cut_is_no_doubt(before: int, after: int) -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge(link={"cuts": before})
        store = Store(bucket, at(-1))
        edge.count("door", frames=9, captured=5, stored=5)
        await store.pass_time(at(2.5), edge, write_every=10)
        await store.pass_time(at(7), write_every=10)
        edge.link["cuts"] = after
        await store.pass_time(at(24.1), edge, write_every=10)
        await store.write(everything=True)
        for found in (await of_page(bucket, 0, 10), await of_report(bucket)):
            assert found.words.startswith("No face was lost: ")
            assert ("perhaps off" in found.words) == (after <= before)
            assert any(long in found.words for long in ("4 h 30 min", "4.5 h")) == (after <= before)
            assert found.level == ("warning" if after <= before else "good")

    run(scenario())


def test_faces_without_receipts_are_not_called_received() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at(-1))
        await store.pass_time(at(0.2), edge)
        edge.count("door", frames=9, captured=5, sent=5)
        await store.pass_time(at(24.1), edge, write_every=30)
        await store.write(everything=True)
        page = await of_page(bucket, 0, 3)
        assert page.level == "unknown"
        assert page.words == (
            "No face is known to be lost: 5 captured, 0 received. 5 faces went without receipts: whether they"
            " came is not known."
        )
        told = await of_report(bucket)
        assert told.level == "unknown"
        assert "5 went without receipts" in told.words

    run(scenario())


def test_what_one_camera_takes_back_does_not_hide_what_another_lost() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at(-1))
        edge.count("yard", captured=5, dropped=5, reasons={"evicted": 5})
        edge.count("door", captured=5)
        await store.pass_time(at(0), edge, write_every=10)
        edge.count("yard", dropped=-5, stored=5, reasons={"evicted": -5})
        edge.count("door", dropped=5, reasons={"evicted": 5})
        await store.pass_time(at(24.1), edge, write_every=30)
        await store.write(everything=True)
        page = await of_page(bucket, 0, 3)
        assert page.level == "critical"
        assert page.words.startswith("Yes: 5 faces were lost: 5 gave way")
        told = await of_report(bucket)
        assert told.level == "critical"
        assert told.words.startswith("5 faces were dropped")

    run(scenario())


def test_a_day_on_which_an_outbox_was_replaced_closes_with_what_waited_in_it() -> None:
    async def scenario() -> None:
        bucket, old, new = memory(), Edge(), Edge(outbox="b" * 32)
        store = Store(bucket, at(-1))
        old.count("door", captured=5, stored=2)
        await store.pass_time(at(12.5), old, write_every=30)
        new.count("door", captured=4, stored=4)
        await store.pass_time(at(13.5), new, write_every=30)
        new.count("door", captured=4, stored=4)
        await store.pass_time(at(24.1), new, write_every=30)
        await store.write(everything=True)
        told = await of_report(bucket)
        assert told.words.startswith(
            "No face was lost: each one that was captured is accounted for. 3 waited"
        )

    run(scenario())


def test_a_store_whose_clock_was_ahead_for_a_while_writes_on() -> None:
    async def scenario() -> None:
        bucket, edge = memory(), Edge()
        store = Store(bucket, at(24))
        edge.count("door", captured=5, stored=5)
        await store.pass_time(at(24.1), edge)
        store.now = at(1)
        edge.count("door", captured=4, stored=4)
        await store.pass_time(at(3.1), edge)
        period = await history.read_period(bucket, at(1), 2, now=at(3.1))
        assert period.total("home/door").captured == 4
        assert not period.bands

    run(scenario())


def test_an_edge_that_counts_what_it_likes_takes_the_view_from_nobody() -> None:
    async def scenario() -> None:
        bucket, now = memory(), datetime.now(UTC)
        store, well = Store(bucket, now - timedelta(minutes=3)), Edge()
        well.count("door", captured=1, stored=1)
        store.hear(well)
        for number in range(3):
            edge = Edge(site="evil", outbox=f"{number + 1:x}" * 32)
            why = {f"x{number}-{n}": 2**52 for n in range(60)}
            edge.count("door", reasons=why, captured=2**53, dropped=2**53)
            store.hear(edge)
        await store.write(everything=True)
        reports = [report async for report in read_books(bucket)]
        assert books.together(report.books for report in reports).cameras.keys() == {"home/door", "evil/door"}
        assert [one["name"] for one in (await health._View(bucket)._look())["cameras"]] == [
            "evil/door",
            "home/door",
        ]
        period = await history.read_period(bucket, now - timedelta(hours=3), 4)
        assert judge_past(period, reports).level == "critical"

    run(scenario())


# an edge that was retired, and the broker that remembers it


def test_what_a_broker_retained_of_an_edge_whose_books_have_gone_does_not_bring_them_back() -> None:
    async def scenario() -> None:
        bucket, now = memory(), datetime.now(UTC)
        heard: list[str] = []
        kept = Books(bucket, heed=lambda site, _: heard.append(site), keep=timedelta(days=30))
        old, live = (ledger(name, "door", now - timedelta(days=n)) for name, n in (("a", 31), ("b", 29)))
        assert not kept.take(f"ledger/home/{'a' * 32}", old.to_bytes(), retained=True)
        assert kept.take(f"ledger/home/{'b' * 32}", live.to_bytes(), retained=True)
        await kept.flush()
        assert [report.books.outbox async for report in read_books(bucket)] == ["b" * 32]
        assert kept.take(f"ledger/home/{'a' * 32}", old.to_bytes())  # alive, with a clock that is wrong
        assert heard == ["home", "home"]
        assert await retention.expire(bucket, keep=timedelta(days=30)) == 0

    run(scenario())


# the store's metrics


def told(measures: Measures) -> dict[tuple[str, ...], float]:
    readings: list[Reading] = list(asyncio.run(measures.read()))
    return {
        (one.metric.name, *one.labels): one.value for one in readings if isinstance(one.value, int | float)
    }


def ledger(outbox: str, camera: str, at: datetime, **link: Any) -> Ledger:  # noqa: ANN401 - any figures
    health = LinkHealth(time=at, **link)
    return Ledger(outbox=outbox * 32, cameras={f"home/{camera}": Account(captured=1, stored=1)}, link=health)


def test_one_of_two_outboxes_that_falls_silent_is_not_hidden_by_the_other() -> None:
    now = datetime.now(UTC)
    measures = Measures(Counters(), limit=7, now=lambda: now)
    for outbox, camera in (("a", "door"), ("b", "yard")):
        measures.hear("home", ledger(outbox, camera, now))
    now += timedelta(seconds=300)
    measures.hear("home", ledger("b", "yard", now))
    found = told(measures)
    assert found["facerelay_books_age_seconds", "home"] == 300
    assert found["facerelay_alarms", "critical", "silent"] == 1


def test_an_outbox_whose_place_another_took_says_nothing_more_of_the_link() -> None:
    now = datetime.now(UTC)
    measures = Measures(Counters(), limit=7, now=lambda: now)
    measures.hear("home", ledger("a", "door", now, oldest_s=500, silent_s=400))
    assert told(measures)["facerelay_oldest_waiting_seconds", "home"] == 500
    now += timedelta(seconds=300)
    measures.hear("home", ledger("b", "door", now))
    found = told(measures)
    assert found["facerelay_oldest_waiting_seconds", "home"] == 0
    assert found["facerelay_link_silent_seconds", "home"] == 0
    assert found["facerelay_books_age_seconds", "home"] == 0


def test_faces_that_were_dropped_while_no_store_was_at_work_alarm_when_one_is() -> None:
    async def scenario() -> None:
        bucket, edge, now = memory(), Edge(), datetime.now(UTC)
        edge.count("door", captured=9, stored=4, dropped=5, reasons={"evicted": 5})
        before = Store(bucket, now - timedelta(hours=2))
        before.hear(edge)
        await before.write(everything=True)
        edge.count("door", captured=100, dropped=100, reasons={"evicted": 100})
        measures = Measures(Counters(), limit=7)
        store = Store(bucket, now, measures=measures)
        store.hear(edge)
        list(await measures.read())  # a scrape may come first
        await store.write()
        found = {(one.metric.name, *one.labels): one.value for one in await measures.read()}
        assert found["facerelay_alarms", "critical", "dropped"] == 1

    run(scenario())


def test_an_edge_that_was_retired_is_told_of_as_long_as_its_books_are_kept() -> None:
    now = datetime.now(UTC)
    measures = Measures(Counters(), limit=7, keep=timedelta(days=30), now=lambda: now)
    measures.hear("home", ledger("a", "door", now))
    now += timedelta(days=29)
    assert told(measures)["facerelay_alarms", "critical", "silent"] == 1
    now += timedelta(days=2)
    assert told(measures)["facerelay_alarms", "critical", "silent"] == 0
    assert ("facerelay_books_age_seconds", "home") not in told(measures)


# what is nobody's promise holds up nobody


def test_a_fault_of_the_history_ends_no_store_and_holds_up_no_receipt(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Diary, "take", fail)
    monkeypatch.setattr(Diary, "flush", fail)

    async def scenario(url: str) -> None:
        here = config.Config.model_validate({
            "site": "home", "direct": True, "broker": {"url": url},
            "outbox": {"path": tmp_path / "outbox.db"},
        })  # fmt: skip
        there = config.Config.model_validate({
            "broker": {"url": url}, "bucket": {"url": f"file://{tmp_path / 'bucket'}"}
        })  # fmt: skip
        ready = asyncio.Event()
        store = asyncio.create_task(serve_store(there, connector(there), ready=ready.set))
        await asyncio.wait_for(ready.wait(), 20)
        with open_outbox(here) as outbox:
            async with relaying(here, outbox, connector(here)):
                face = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
                await asyncio.wrap_future(outbox.put(face, chosen=time.time()))
                async with asyncio.timeout(20):
                    while await asyncio.wrap_future(outbox.waiting()):
                        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):  # its books, told at the end, are taken
            while not list((tmp_path / "bucket" / "ledger").rglob("*.json")):
                await asyncio.sleep(0.05)
        assert not store.done()
        store.cancel()
        await asyncio.gather(store, return_exceptions=True)

    with servers.nats() as broker:
        asyncio.run(scenario(broker.url))
    assert "a fault of ours: the history is not written now" in caplog.text
