from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from buckets import Weed
from conftest import Make
from facerelay import config, face
from facerelay.cli import main
from facerelay.cloud.bucket import Bucket, Entry, open_bucket
from facerelay.cloud.erase import erase
from facerelay.commands.proof import Report, report
from facerelay.config import Config
from facerelay.edge.outbox import Outbox
from facerelay.face import Frozen
from facerelay.messages import Outcome, Receipt
from facerelay.span import MomentError, Span, moment

NIGHT = datetime.now(UTC).replace(hour=22, minute=0, second=0, microsecond=0) - timedelta(days=2)
"""Ten in the evening, the day before yesterday."""


@dataclass
class Edge:
    """An outbox and a bucket, and faces that were put into both."""

    folder: Path
    settings: config.Bucket
    make: Make
    outbox: Outbox = field(init=False)
    bucket: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.path, max_bytes=10**9, max_message=10**6)
        self.bucket = open_bucket(self.settings)

    @property
    def path(self) -> Path:
        return self.folder / "outbox.db"

    @property
    def config(self) -> Config:
        return Config.model_validate({"site": "home", "outbox": {"path": self.path}, "bucket": self.settings})

    def reopen(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self.path, max_bytes=10**9, max_message=10**6)

    def face(self, at: datetime = NIGHT, **known: Any) -> Frozen:  # noqa: ANN401 - any of the face's fields
        owned = {"outbox": self.outbox.id, "run": self.outbox.run, "seq": self.outbox.number()}
        return self.make(time=at, **owned | known)

    def capture(self, *faces: Frozen) -> None:
        for done in [self.outbox.put(one, chosen=one.face.time.timestamp()) for one in faces]:
            done.result()

    def answer(self, outcome: Outcome, *faces: Frozen) -> None:
        receipts = [Receipt(id=one.face.id, sha256=one.sha256, outcome=outcome) for one in faces]
        self.outbox.answer(receipts).result()

    def store(self, *faces: Frozen) -> None:
        """Capture faces, put them into the bucket, and receipt them."""

        async def put() -> None:
            for one in faces:
                await self.bucket.put_new(one.key, one.data)

        self.capture(*faces)
        asyncio.run(put())
        self.answer("stored", *faces)

    def report(self, *, audit: bool = False, **span: Any) -> Report:  # noqa: ANN401 - a span's fields
        return asyncio.run(report(self.config, Span(**span), bucket=self.bucket if audit else None))

    def ledger(self, *words: str) -> Result:
        """Run `facerelay ledger`."""
        flags = {"outbox.path": self.path, "bucket.url": self.settings.url}
        if self.settings.endpoint and self.settings.secret_key:
            flags["bucket.endpoint"] = self.settings.endpoint
            flags["bucket.access_key"] = self.settings.access_key
            flags["bucket.secret_key"] = self.settings.secret_key.get_secret_value()
        said = [word for name, value in flags.items() for word in ("--set", f"{name}={value}")]
        return CliRunner().invoke(main, ["ledger", *said, *words])

    def books(self, *words: str) -> dict[str, Any]:
        """Return the object on the last line of `facerelay ledger --json`."""
        found: dict[str, Any] = json.loads(self.ledger("--json", *words).stdout.splitlines()[-1])
        return found

    def tamper(self, query: str, *values: str | float) -> None:
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute(query, values)


@pytest.fixture
def edge(tmp_path: Path, make_face: Make) -> Iterator[Edge]:
    (tmp_path / "bucket").mkdir()
    found = Edge(tmp_path, config.Bucket(url=f"file://{tmp_path}/bucket"), make_face)
    yield found
    found.outbox.close()


@pytest.fixture(params=["folder", "s3"])
def either(request: pytest.FixtureRequest, tmp_path: Path, make_face: Make) -> Iterator[Edge]:
    """Return an edge with a folder as its bucket, then one with SeaweedFS."""
    if request.param == "folder":
        (tmp_path / "bucket").mkdir()
        settings = config.Bucket(url=f"file://{tmp_path}/bucket")
    else:
        weed: Weed = request.getfixturevalue("weed")
        settings = weed.bucket(f"ledger-{secrets.token_hex(4)}")
    found = Edge(tmp_path, settings, make_face)
    yield found
    found.outbox.close()


def iso(at: datetime) -> str:
    return at.isoformat()


# what is missing


def test_what_was_deleted_changed_cut_or_planted_in_the_bucket_is_named(either: Edge, jpeg: bytes) -> None:
    edge = either
    faces = [edge.face(NIGHT + timedelta(minutes=10 * n)) for n in range(12)]
    deleted, changed, cut = faces[1], faces[4], faces[7]
    planted = edge.face(NIGHT + timedelta(minutes=5), seq=4711, run="c" * 8)
    stranger = edge.face(NIGHT + timedelta(minutes=6), outbox="d" * 32)
    edge.store(*faces)

    async def meddle() -> None:
        for one in (deleted, changed, cut):
            await edge.bucket.delete(one.key)
        other = face.freeze(changed.face, jpeg[:-2] + b"\x00\xff\xd9")
        await edge.bucket.put_new(changed.key, other.data)
        await edge.bucket.put_new(cut.key, cut.data[:-50])
        for one in (planted, stranger):
            await edge.bucket.put_new(one.key, one.data)

    assert edge.ledger("--since", iso(NIGHT), "--audit").exit_code == 0
    asyncio.run(meddle())
    books = edge.books("--since", iso(NIGHT), "--until", iso(NIGHT + timedelta(hours=2)), "--audit")
    whys = {deleted.face.id: "absent", changed.face.id: "other-bytes", cut.face.id: "unreadable"}
    assert {one["id"]: one["why"] for one in books["missing"]} == whys
    assert {one["key"] for one in books["missing"]} == {deleted.key, changed.key, cut.key}
    assert (books["lost"], books["missing_count"], books["cameras"]["home/door"]["stored"]) == (3, 3, 12)
    [unknown] = books["unknown"]
    assert (unknown["id"], unknown["run"], unknown["seq"]) == (planted.face.id, "c" * 8, 4711)
    shown = edge.ledger("--audit")
    assert shown.exit_code == 1
    for one in (deleted, changed, cut):
        assert f"lost: {one.face.id} home/door {one.face.time:%Y-%m-%dT%H:%M:%S}" in shown.stdout
    assert f"unknown: {planted.face.id} number 4711 of run cccccccc" in shown.stdout
    assert "1 that are of other outboxes" in shown.stdout
    elsewhen = edge.books("--since", iso(deleted.face.time + timedelta(microseconds=1)), "--audit")
    assert elsewhen["lost"] == 2


def test_a_row_that_is_gone_is_missing_and_a_number_without_a_face_is_not(edge: Edge) -> None:
    faces = [edge.face(NIGHT + timedelta(minutes=n)) for n in range(4)]
    edge.outbox.number()  # a picture that could not be encoded
    faces += [edge.face(NIGHT + timedelta(minutes=n)) for n in range(4, 10)]
    edge.store(*faces)
    sound = edge.ledger("--since", iso(NIGHT))
    assert sound.exit_code == 0
    assert (
        "1 numbers were given to pictures that never came to the disk, and were not captured (5)"
        in sound.stdout
    )
    assert "No captured face is missing from the books." in sound.stdout
    edge.tamper("DELETE FROM faces WHERE id = ?", faces[6].face.id)
    found = edge.report(start=NIGHT)
    assert found.gaps is not None
    assert (found.missing, found.gaps.count, found.gaps.gone) == (1, 2, 1)
    gone = edge.ledger("--since", iso(NIGHT))
    assert gone.exit_code == 1
    assert "missing: 1 captured faces are in no column of the books (8)" in gone.stdout
    assert edge.books("--faces")["missing"] == [
        {"outbox": edge.outbox.id, "numbers": [8, 8], "gone": 1, "why": "not-in-books"}
    ]
    in_bucket = edge.books("--audit")
    assert (in_bucket["missing_count"], in_bucket["skipped_numbers"]) == (0, 1)
    assert [one["id"] for one in in_bucket["unknown"]] == [faces[6].face.id]


def test_rows_that_an_undone_transaction_left_out_are_not_called_gone(edge: Edge) -> None:
    edge.store(edge.face(), edge.face())
    edge.outbox.number()
    edge.store(edge.face(), edge.face())
    edge.tamper("UPDATE faces SET row = row + 5 WHERE seq > 3")
    found = edge.report()
    assert found.gaps is not None
    assert (found.gaps.count, found.gaps.gone, found.missing) == (1, 0, 0)


def test_a_face_in_no_column_leaves_the_books_open(edge: Edge) -> None:
    edge.store(edge.face(), edge.face())
    edge.tamper("UPDATE faces SET state = 'stolen' WHERE seq = 2")
    done = edge.ledger("--since", iso(NIGHT))
    assert done.exit_code == 1
    assert "The books do not close" in done.stdout


def test_a_damaged_outbox_is_named_and_says_what_to_do(edge: Edge) -> None:
    edge.store(*[edge.face() for _ in range(300)])
    edge.outbox.close()
    data = bytearray(edge.path.read_bytes())
    data[8192:-4096] = b"\xa5" * (len(data) - 12_288)
    edge.path.write_bytes(data)
    done = edge.ledger("--since", iso(NIGHT))
    edge.outbox = Outbox(edge.folder / "other.db", max_bytes=10**9, max_message=10**6)
    assert done.exit_code == 1
    assert "outbox.db: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_last_rows_are_missed_as_well(edge: Edge) -> None:
    edge.store(*[edge.face() for _ in range(5)])
    edge.tamper("DELETE FROM faces WHERE seq > 3")
    found = edge.report()
    assert found.missing == 2
    assert edge.report(end=NIGHT).missing == 0


def test_threads_that_put_their_faces_in_another_order_leave_no_gap(edge: Edge) -> None:
    one, two, three, four = (edge.face() for _ in range(4))
    edge.store(two, one, four, three)
    found = edge.report()
    assert found.gaps is not None
    assert (found.gaps.count, found.missing) == (0, 0)


def test_faces_that_were_forgotten_for_their_age_are_not_called_missing(edge: Edge) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=60)
    old = [edge.face(long_ago + timedelta(minutes=n)) for n in range(5)]
    edge.store(*old)
    edge.tamper("UPDATE faces SET answered = ? WHERE seq != 3", time.time() - 50 * 86_400)
    edge.reopen()
    edge.store(edge.face())
    found = edge.report(audit=True)
    shown = edge.ledger("--since", iso(long_ago), "--audit").stdout
    assert (found.missing, found.unlisted) == (0, 4)
    assert found.audit is not None
    assert (found.audit.strays.count, found.audit.others) == (0, {"forgotten": 4, "stored": 1})
    assert "The books know 4 faces by count alone" in shown
    assert "1 stored faces were not looked for in the bucket" in shown
    assert "4 that are older than the books go back" in shown


def test_a_boot_without_a_clock_makes_nothing_missing(edge: Edge) -> None:
    """Its receipts are dated 1970, and pruned at the next start, among others that are not."""
    for _ in range(3):
        edge.store(edge.face())
    edge.tamper("UPDATE faces SET answered = 300 WHERE seq = 2")
    edge.reopen()
    assert edge.report().missing == 0
    assert edge.ledger("--since", "1d").exit_code == 0


def test_the_last_day_of_the_calendar_is_a_day(edge: Edge) -> None:
    edge.store(edge.face())
    assert "None." in edge.ledger("--day", "9999-12-31").stdout
    assert edge.ledger("--audit", "--until", "0001-01-01").exit_code == 0


# a camera and a time


def test_every_column_is_counted_and_listed_by_the_time_of_the_frame(edge: Edge) -> None:
    hour = timedelta(hours=1)
    before, after = edge.face(NIGHT - timedelta(microseconds=1)), edge.face(NIGHT + hour)
    stored, waiting, refused, erased, expired = (edge.face(NIGHT + n * hour / 10) for n in range(5))
    yard = edge.face(NIGHT, camera="yard")
    edge.store(before, after, stored, yard)
    edge.capture(waiting, refused, erased, expired)
    edge.answer("refused:truncated", refused)
    edge.answer("erased", erased)
    edge.answer("expired", expired)
    words = ("--camera", "home/door", "--since", iso(NIGHT), "--until", iso(NIGHT + hour))
    books = edge.books(*words)
    assert books["cameras"] == {
        "home/door": {
            "captured": 5, "stored": 1, "waiting": 1, "dropped": 1, "refused": 1, "erased": 1,
            "reasons": {"expired": 1, "truncated": 1},
        }
    }  # fmt: skip
    assert (books["since"], books["until"]) == (iso(NIGHT), iso(NIGHT + hour))
    *lines, _ = edge.ledger("--json", "--faces", *words).stdout.splitlines()
    states = {one["id"]: (one["state"], one["reason"]) for one in map(json.loads, lines)}
    assert states == {
        stored.face.id: ("stored", None), waiting.face.id: ("waiting", None),
        erased.face.id: ("erased", None), refused.face.id: ("refused", "truncated"),
        expired.face.id: ("dropped", "expired"),
    }  # fmt: skip
    text = edge.ledger("--faces", *words).stdout
    at = f"{refused.face.time:%Y-%m-%dT%H:%M:%S.%f}Z"
    assert f"{at} {refused.face.id} home/door refused (truncated) {refused.key}" in text
    assert "home/door: 1 truncated" in text
    assert set(edge.books("--since", iso(NIGHT))["cameras"]) == {"home/door", "home/yard"}


def test_a_camera_without_a_time_has_its_whole_books(edge: Edge) -> None:
    edge.store(edge.face(), edge.face(camera="yard"))
    edge.outbox.count("home", "yard", frames=7).result()
    books = edge.books("--camera", "yard")
    assert set(books) == {"cameras", "lost", "link"}
    assert list(books["cameras"]) == ["home/yard"]
    assert (books["cameras"]["home/yard"]["frames"], books["cameras"]["home/yard"]["captured"]) == (7, 1)


def test_a_range_of_twenty_thousand_faces_reads_its_hour_alone(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    dot = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    faces = [edge.face(NIGHT + timedelta(seconds=3.6 * n), encoded=dot) for n in range(20_000)]
    edge.capture(*faces)
    edge.answer("stored", *faces)
    for one in faces:
        path = edge.folder / "bucket" / one.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.data)
    levels: list[str] = []
    gets: list[str] = []
    real_children, real_get = edge.bucket.children, edge.bucket.get

    async def children(prefix: str = "") -> Any:  # noqa: ANN401 - as the bucket's
        levels.append(prefix)
        return await real_children(prefix)

    async def get(key: str, *, max_bytes: int) -> bytes:
        gets.append(key)
        return await real_get(key, max_bytes=max_bytes)

    monkeypatch.setattr(edge.bucket, "children", children)
    monkeypatch.setattr(edge.bucket, "get", get)
    start = NIGHT + timedelta(hours=5)
    gone = faces[5500]
    (edge.folder / "bucket" / gone.key).unlink()
    found = edge.report(audit=True, start=start, end=start + timedelta(hours=1))
    assert found.audit is not None
    assert [one.id for one in found.audit.lost.first] == [gone.face.id]
    assert (found.audit.wanted, found.audit.checked) == (1000, 999)
    camera = "faces/site=home/camera=door"
    day = f"{camera}/date={start:%Y-%m-%d}"
    assert [level for level in levels if level.startswith("faces")] == [
        "faces/site=home", camera, f"{day}/hour={start:%H}"
    ]  # fmt: skip
    assert len([key for key in gets if key.startswith("faces")]) == 999


def test_the_outbox_may_be_at_work_meanwhile(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.store(*[edge.face() for _ in range(3)])
    waits = edge.face()
    edge.capture(waits)
    late = edge.face()
    real = edge.bucket.list

    async def listed(prefix: str = "", *, after: str | None = None) -> AsyncIterator[Entry]:
        if prefix.startswith("faces"):
            await asyncio.wrap_future(edge.outbox.put(late, chosen=time.time()))
            for one in (late, waits):
                await edge.bucket.put_new(one.key, one.data)
        async for entry in real(prefix, after=after):
            yield entry

    monkeypatch.setattr(edge.bucket, "list", listed)
    found = edge.report(audit=True)
    assert found.well
    assert found.audit is not None
    assert (found.audit.strays.count, found.audit.others) == (0, {"waiting": 2})


def test_an_erased_face_is_neither_lost_nor_silent(edge: Edge) -> None:
    stays, goes = edge.face(), edge.face()
    edge.store(stays, goes)
    asyncio.run(erase(edge.bucket, ids=[goes.face.id], longest_put=0))
    shown = edge.ledger("--audit")
    assert shown.exit_code == 0
    assert "1 stored faces were erased since" in shown.stdout


def test_a_copy_of_the_outbox_does_not_accuse_the_original(edge: Edge, tmp_path: Path) -> None:
    edge.store(edge.face())
    (tmp_path / "copy").mkdir()
    edge.reopen()
    shutil.copy(edge.path, tmp_path / "copy" / "outbox.db")
    edge.store(edge.face())
    copy = Edge(tmp_path / "copy", edge.settings, edge.make)
    with copy.outbox:
        copy.store(copy.face())
        found = copy.report(audit=True, start=NIGHT)
    assert found.well
    assert found.books.cameras["home/door"].stored == 2
    assert found.audit is not None
    assert (found.audit.strays.count, found.audit.others) == (0, {"other": 1})


# as it is asked


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2026-11-20", "2026-11-20T00:00+00:00"),
        ("2026-11-20T18:00", "2026-11-20T18:00+00:00"),
        ("2026-11-20 18:00:30.5", "2026-11-20T18:00:30.5+00:00"),
        ("2026-11-20T18:00+01:00", "2026-11-20T17:00+00:00"),
        ("2026-11-20T18:00Z", "2026-11-20T18:00+00:00"),
        ("2h", "2026-11-21T10:00+00:00"),
        ("30m", "2026-11-21T11:30+00:00"),
        ("1.5d", "2026-11-20T00:00+00:00"),
    ],
)
def test_a_time_is_iso_8601_in_utc_or_so_long_ago(said: str, meant: str) -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert moment(said, now=now) == datetime.fromisoformat(meant)


@pytest.mark.parametrize(
    "said", ["", "yesterday", "22:00", "2h30m", "-2h", "999999w", "2026-02-30", "0001-01-01T00:00+01:00"]
)
def test_what_is_no_time_is_refused_with_the_forms_that_are(said: str) -> None:
    with pytest.raises(MomentError, match="write 2026-11-20, "):
        moment(said, now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--camera", "home/dor"], "the books have no such camera; they have home/door"),
        (["--camera", "Door"], "lower case letters"),
        (["--since", "yesterday"], "--since: 'yesterday' is no time"),
        (["--since", "1h", "--until", "2h"], "is not before --until"),
        (["--since", "1h", "--day", "2026-11-20"], "leave out --since and --until"),
    ],
)
def test_what_cannot_be_asked_says_why(edge: Edge, words: list[str], says: str) -> None:
    edge.store(edge.face())
    done = edge.ledger(*words)
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_day_is_a_day_in_utc_and_an_empty_one_says_so(edge: Edge) -> None:
    edge.store(edge.face(NIGHT), edge.face(NIGHT + timedelta(hours=2)))
    assert edge.books("--day", f"{NIGHT:%Y-%m-%d}")["cameras"]["home/door"]["captured"] == 1
    empty = edge.ledger("--day", "2020-02-29")
    assert empty.exit_code == 0
    assert "since 2020-02-29 00:00:00 until 2020-03-01 00:00:00, UTC\nNone.\n" in empty.stdout


def test_faces_and_times_are_asked_where_the_outbox_is(tmp_path: Path) -> None:
    flags = ["--set", f"outbox.path={tmp_path}/none.db", "--bucket", f"file://{tmp_path}"]
    for words in (["--faces"], ["--since", "1h"], ["--audit"]):
        done = CliRunner().invoke(main, ["ledger", *flags, *words])
        assert done.exit_code == 1
        assert "for where it is" in done.stderr
