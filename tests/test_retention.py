"""Nothing stays longer than was said: at the edge in any state, in the bucket by a clock handed in."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from buckets import Weed
from chains import eventually
from conftest import Make
from facerelay import config, settings
from facerelay.cloud import proofs, retention
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.erase import erase
from facerelay.cloud.quarantine import Quarantine
from facerelay.edge.expiry import Expiry
from facerelay.edge.outbox import Outbox
from facerelay.messages import Receipt
from facerelay.settings import ConfigError

HOUR = 3600.0


def test_it_is_on_as_it_is() -> None:
    found = settings.load(None, environ={})
    assert (found.outbox.expire_s, found.store.retention) == (72 * HOUR, timedelta(days=30))


@pytest.mark.parametrize("name", ["outbox.expire_hours", "store.retention_days"])
def test_for_ever_must_be_said(name: str) -> None:
    found = settings.load(None, flags=[f"{name}=forever"], environ={})
    assert None in {found.outbox.expire_s, found.store.retention}
    for wrong in ("0", "-1", "nan", "inf", "never", "", "1e9"):
        with pytest.raises(ConfigError, match='to keep them for ever say "forever"'):
            settings.load(None, flags=[f"{name}={wrong}"], environ={})


def test_the_template_says_so(tmp_path: Path) -> None:
    for side, names, line in (
        ("edge", settings.EDGE, "# expire_hours = 72"),
        ("cloud", settings.CLOUD, "# retention_days = 30"),
    ):
        path = tmp_path / f"{side}.toml"
        path.write_text(settings.template(names, {}))
        assert line in path.read_text()
        path.write_text(path.read_text().replace(line, line[2:].partition("=")[0] + '= "forever"'))
        found = settings.load(path, environ={})
        assert None in {found.outbox.expire_s, found.store.retention}


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:  # type: ignore[misc]
    with Outbox(tmp_path / "outbox.db", max_bytes=10_000_000, max_message=1_000_000) as found:
        yield found


def pictures(outbox: Outbox) -> list[int]:
    db = sqlite3.connect(outbox.path)
    try:
        return [row for (row,) in db.execute("SELECT row FROM pictures ORDER BY row")]
    finally:
        db.close()


def expiry(outbox: Outbox, *, hours_later: float) -> Expiry:
    return Expiry(
        outbox, after_s=72 * HOUR, clock=time.monotonic, now=lambda: time.time() + hours_later * HOUR
    )


def test_no_picture_outlives_the_edges_retention_in_any_state(outbox: Outbox, make_face: Make) -> None:
    faces = [make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()) for _ in range(5)]
    _waiting, refused, unanswered, stored, ahead = faces
    for one in faces:
        outbox.put(one, chosen=time.time() + (100 * HOUR if one is ahead else 0)).result()
    young = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
    outbox.put(young, chosen=time.time() + 70 * HOUR).result()
    answers = [(refused, "refused:conflict"), (stored, "stored")]
    outbox.answer([Receipt(id=f.face.id, sha256=f.sha256, outcome=o) for f, o in answers]).result()
    outbox.park(unanswered.face.id, "unanswered").result()
    asyncio.run(expiry(outbox, hours_later=71).look())
    assert len(pictures(outbox)) == 5
    asyncio.run(expiry(outbox, hours_later=73).look())
    assert len(pictures(outbox)) == 2  # the young one, and the one from a clock that ran ahead
    books = outbox.ledger().result().cameras["home/door"]
    assert (books.waiting, books.stored, books.dropped, books.refused) == (2, 1, 1, 2)
    assert books.reasons == {"expired": 1, "conflict": 1, "unanswered": 1}
    assert outbox.ledger().result().closes
    assert outbox.bytes == len(young.data) + len(ahead.data)
    asyncio.run(expiry(outbox, hours_later=200).look())
    assert (pictures(outbox), outbox.bytes) == ([], 0)
    assert outbox.ledger().result().closes


def test_an_old_face_behind_one_of_a_clock_that_ran_ahead_goes_too(outbox: Outbox, make_face: Make) -> None:
    for chosen in (time.time() + 1000 * HOUR, time.time()):
        outbox.put(make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()), chosen=chosen).result()
    asyncio.run(expiry(outbox, hours_later=73).look())
    books = outbox.ledger().result().cameras["home/door"]
    assert (books.waiting, books.dropped) == (1, 1)


def test_broken_outboxes_go_too(outbox: Outbox) -> None:
    names = [
        "outbox.db.broken-20261120T120000Z",
        "outbox.db.broken-20261120T120000Z-1",
        "outbox.db.broken-mine",
    ]
    for name in (*names, f"{names[0]}-wal"):
        (outbox.path.parent / name).write_bytes(b"faces")
    asyncio.run(expiry(outbox, hours_later=71).look())
    assert {path.name for path in outbox.path.parent.glob("*.broken-*")} == {*names, f"{names[0]}-wal"}
    asyncio.run(expiry(outbox, hours_later=73).look())
    assert [path.name for path in outbox.path.parent.glob("*.broken-*")] == ["outbox.db.broken-mine"]


def test_no_byte_of_an_expired_picture_stays_in_the_file_or_its_log(outbox: Outbox, make_face: Make) -> None:
    one = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
    outbox.put(one, chosen=time.time()).result()
    piece = one.data[len(one.data) // 2 :][:32]

    def held() -> bool:
        return any(piece in path.read_bytes() for path in outbox.path.parent.glob("outbox.db*"))

    assert held()
    asyncio.run(expiry(outbox, hours_later=73).look())
    eventually(lambda: outbox.waiting().result() == 0 and not held())


def test_an_outbox_that_keeps_for_ever_does(outbox: Outbox, make_face: Make) -> None:
    outbox.put(make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()), chosen=0.0).result()
    asyncio.run(Expiry(outbox, after_s=None, clock=time.monotonic).look())
    assert len(pictures(outbox)) == 1


PLACES = ("foreign/topic=x/a.png", "ledger/site=home/ab.json", "history/site=home/x.json")
STAY = (
    "tombstones/00000000-0000-7000-8000-000000000000.json",
    "tombstones-foreign/aa.json",
    "proofs/000000000001.json",
)


def opened(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Bucket:
    if kind == "folder":
        return open_bucket(config.Bucket(url=f"file://{tmp_path}"))
    weed: Weed = request.getfixturevalue("weed")
    return open_bucket(weed.bucket("retention"))


@pytest.mark.parametrize("kind", ["folder", "weed"])
def test_past_retention_all_is_gone_but_what_must_stay(
    tmp_path: Path, make_face: Make, kind: str, request: pytest.FixtureRequest
) -> None:
    """Three stores sweep at once; the clock is theirs, arrival is the bucket's own."""

    async def scenario() -> None:
        bucket = opened(kind, tmp_path, request)
        now = datetime.now(UTC)
        taken = [now, now - timedelta(days=40), now + timedelta(days=400)]
        faces = [make_face(time=at, camera=camera) for at in taken for camera in ("door", "yard")]
        for one in faces:
            await bucket.put_new(one.key, one.data)
        for key in (*PLACES, *STAY):
            await bucket.put_new(key, b"{}")
        set_aside = Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=7))
        await set_aside.put("faces", b"nonsense", "not-a-picture")

        async def sweep(days: float) -> int:
            later = now + timedelta(days=days)
            keep = timedelta(days=30)
            at_once = [retention.expire(bucket, keep=keep, now=lambda: later) for _ in range(3)]
            return max(await asyncio.gather(*at_once))

        assert await sweep(29.9) == 0
        assert await set_aside.sweep(now=lambda: now + timedelta(days=6.9)) == 0
        assert await sweep(30.1) >= 1
        assert await set_aside.sweep(now=lambda: now + timedelta(days=7.1)) == 2
        assert {entry.key async for entry in bucket.list()} == {*STAY}
        assert await sweep(10_000) == 0

    asyncio.run(scenario())


def test_a_message_in_quarantine_without_its_note_goes_after_an_hour(tmp_path: Path) -> None:
    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
        set_aside = Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=7))
        await set_aside.put("faces", b"nonsense", "not-a-picture")
        await bucket.put_new("quarantine/date=2026-11-20/120000.000000-aaaaaaaa-x.bin", b"a face, perhaps")
        now = datetime.now(UTC)
        assert await set_aside.sweep(now=lambda: now + timedelta(minutes=50)) == 0
        assert await set_aside.sweep(now=lambda: now + timedelta(minutes=70)) == 1
        assert len([entry async for entry in bucket.list("quarantine")]) == 2

    asyncio.run(scenario())


def test_erasure_and_retention_at_once_agree(tmp_path: Path, make_face: Make) -> None:
    async def scenario() -> None:
        bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}"))
        for _ in range(50):
            one = make_face()
            await bucket.put_new(one.key, one.data)
        later = datetime.now(UTC) + timedelta(days=31)
        await asyncio.gather(
            erase(bucket, site="home", longest_put=0),
            *(retention.expire(bucket, keep=timedelta(days=30), now=lambda: later) for _ in range(3)),
        )
        assert not [entry async for entry in bucket.list("faces")]
        assert (await proofs.verify(bucket)).well

    asyncio.run(scenario())


def by_clocks(outbox: Outbox, clock: dict[str, float]) -> Expiry:
    return Expiry(
        outbox,
        after_s=72 * HOUR,
        clock=lambda: clock["steady"],
        now=lambda: clock["wall"],
        since_boot=lambda: clock["boot"],
    )


@pytest.mark.parametrize("days", [30, -30])
def test_a_clock_that_is_set_expires_nothing_that_is_young(
    outbox: Outbox, make_face: Make, days: int
) -> None:
    clock = {"wall": time.time(), "boot": 100.0, "steady": 0.0}
    looking = by_clocks(outbox, clock)

    def pass_by(hours: float, *, set_by: float = 0.0) -> list[int]:
        for name in clock:
            clock[name] += hours * HOUR
        clock["wall"] += set_by * 24 * HOUR
        asyncio.run(looking.look())
        return pictures(outbox)

    def put(run: str) -> None:
        one = make_face(outbox=outbox.id, run=run, seq=outbox.number())
        outbox.put(one, chosen=clock["wall"]).result()

    put(outbox.run)
    assert len(pass_by(1)) == 1
    put(outbox.run)
    assert len(pass_by(0.1, set_by=days)) == 2, "both are an hour old at most, whatever the clock says"
    put(outbox.run)
    assert len(pass_by(70)) == 3
    assert len(pass_by(1.5)) == 2, "the first is past 72 hours"
    assert len(pass_by(0.45)) == 1, "the second, too"
    assert not pass_by(1)


def test_what_is_from_an_earlier_opening_goes_by_the_clock_as_it_is(outbox: Outbox, make_face: Make) -> None:
    clock = {"wall": time.time(), "boot": 100.0, "steady": 0.0}
    looking = by_clocks(outbox, clock)
    for run in ("0badcafe", outbox.run):
        one = make_face(outbox=outbox.id, run=run, seq=outbox.number())
        outbox.put(one, chosen=clock["wall"]).result()
    clock["steady"] += 10
    clock["wall"] += 30 * 24 * HOUR
    asyncio.run(looking.look())
    assert len(pictures(outbox)) == 1, "a machine that was off for a month, and now knows it"
