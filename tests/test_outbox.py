from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from conftest import Make
from facerelay.edge import reading, schema
from facerelay.edge.claim import OutboxLockedError
from facerelay.edge.outbox import News, Outbox
from facerelay.edge.schema import OutboxError
from facerelay.face import Frozen
from facerelay.messages import Account, Receipt


def open_outbox(path: Path, max_bytes: int = 10_000_000) -> Outbox:
    return Outbox(path, max_bytes=max_bytes, max_message=1_000_000)


def put(outbox: Outbox, make: Make, **known: object) -> Frozen:
    frozen = make(outbox=outbox.id, run=outbox.run, seq=outbox.number(), **known)
    outbox.put(frozen, chosen=time.time()).result()
    return frozen


def receipt(frozen: Frozen, outcome: str = "stored", **more: object) -> Receipt:
    return Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome=outcome, **more)


def account(outbox: Outbox) -> Account:
    return outbox.ledger().result().cameras["home/door"]


def test_a_face_waits_until_it_is_answered(tmp_path: Path, make_face: Make) -> None:
    with open_outbox(tmp_path / "o.db") as outbox:
        first, second = put(outbox, make_face), put(outbox, make_face)
        assert [w.data for w in outbox.backlog(0, 10).result()] == [first.data, second.data]
        outbox.answer([receipt(first), receipt(second, duplicate=True)]).result()
        assert outbox.backlog(0, 10).result() == []
        books = account(outbox)
        assert (books.captured, books.stored, books.waiting, books.duplicates) == (2, 2, 0, 1)
        assert books.closes
        assert books.latency_ms.p50 is not None


@pytest.mark.parametrize(
    ("outcome", "column", "reasons"),
    [
        ("refused:truncated", "refused", {"truncated": 1}),
        ("erased", "erased", {}),
        ("expired", "dropped", {"expired": 1}),
        ("held", "waiting", {}),
    ],
)
def test_each_outcome_has_its_column(
    tmp_path: Path, make_face: Make, outcome: str, column: str, reasons: dict[str, int]
) -> None:
    with open_outbox(tmp_path / "o.db") as outbox:
        outbox.answer([receipt(put(outbox, make_face), outcome)]).result()
        books = account(outbox)
        assert getattr(books, column) == 1
        assert books.reasons == reasons
        assert books.closes


def test_a_receipt_for_other_bytes_changes_nothing(tmp_path: Path, make_face: Make) -> None:
    with open_outbox(tmp_path / "o.db") as outbox:
        frozen = put(outbox, make_face)
        outbox.answer([receipt(frozen).model_copy(update={"sha256": "0" * 64})]).result()
        assert account(outbox).waiting == 1


def test_past_the_disk_budget_the_least_valuable_goes_and_is_counted(tmp_path: Path, make_face: Make) -> None:
    news: list[News] = []
    with open_outbox(tmp_path / "o.db", max_bytes=3 * len(make_face().data) + 500) as outbox:
        outbox.listener = news.append
        kept = [put(outbox, make_face, quality=q) for q in (0.9, 0.2, 0.8)]
        put(outbox, make_face, quality=0.7)
        assert [n.gone for n in news if n.gone] == [[kept[1].face.id]]
        assert account(outbox).reasons == {"evicted": 1}
        outbox.answer([receipt(kept[1])]).result()
        books = account(outbox)
        assert (books.stored, books.dropped, books.waiting) == (1, 0, 3)
        assert books.closes
        assert books.reasons == {}


def test_refused_pictures_make_room_before_any_that_waits(tmp_path: Path, make_face: Make) -> None:
    with open_outbox(tmp_path / "o.db", max_bytes=3 * len(make_face().data) + 500) as outbox:
        faces = [put(outbox, make_face) for _ in range(3)]
        outbox.answer([receipt(faces[2], "refused:truncated")]).result()
        put(outbox, make_face)
        books = account(outbox)
        assert (books.waiting, books.refused, books.dropped) == (3, 1, 0)
        assert books.closes


def test_a_larger_picture_than_the_brokers_take_is_refused(tmp_path: Path, make_face: Make) -> None:
    with (
        Outbox(tmp_path / "o.db", max_bytes=10**6, max_message=10_000) as outbox,
        pytest.raises(OutboxError, match=r"limits\.message_bytes"),
    ):
        outbox.put(make_face(), chosen=0)


def test_damage_on_the_disk_is_noticed_dropped_and_counted(tmp_path: Path, make_face: Make) -> None:
    path = tmp_path / "o.db"
    with open_outbox(path) as outbox:
        put(outbox, make_face)
        good = put(outbox, make_face)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE pictures SET data = x'ffd8ff' WHERE row = 1")
    db.close()
    with open_outbox(path) as outbox:
        assert [w.id for w in outbox.backlog(0, 1).result()] == [good.face.id]
        assert account(outbox).reasons == {"damaged": 1}
        assert account(outbox).closes


def test_the_books_survive_and_numbers_go_on(tmp_path: Path, make_face: Make) -> None:
    path = tmp_path / "o.db"
    with open_outbox(path) as outbox:
        put(outbox, make_face)
        outbox.count("home", "door", frames=7).result()
        name, run = outbox.id, outbox.run
    with open_outbox(path) as outbox:
        assert outbox.id == name
        assert outbox.run != run
        assert outbox.number() == 2
        assert account(outbox).frames == 7


def test_one_process_has_it(tmp_path: Path) -> None:
    with open_outbox(tmp_path / "o.db"), pytest.raises(OutboxLockedError, match=str(os.getpid())):
        open_outbox(tmp_path / "o.db")


@pytest.mark.parametrize("way", ["copied elsewhere", "older copy put back"])
def test_a_copy_begins_books_of_its_own(tmp_path: Path, make_face: Make, way: str) -> None:
    path, copy = tmp_path / "o.db", tmp_path / "copy.db"
    with open_outbox(path) as outbox:
        first, original = put(outbox, make_face), outbox.id
    shutil.copy(path, copy)
    with open_outbox(path) as outbox:
        put(outbox, make_face)
    if way == "older copy put back":
        path.write_bytes(copy.read_bytes())
        copy = path
    with open_outbox(copy) as outbox:
        assert outbox.id != original
        put(outbox, make_face)
        assert account(outbox).captured == 1
        assert outbox.waiting().result() == 2
        assert set(outbox.owners().result()) == {("home", original), ("home", outbox.id)}
        outbox.answer([receipt(first)]).result()
        assert (account(outbox).captured, account(outbox).stored) == (1, 0)
    db = reading.open_books(copy)
    assert reading.inherited(db) == [original]
    assert reading.ledger(db, original).closes
    db.close()


def test_the_books_close_in_the_same_commit_as_a_put(tmp_path: Path, make_face: Make) -> None:
    with open_outbox(tmp_path / "o.db") as outbox:
        for _ in range(50):
            frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
            put_, books = outbox.put(frozen, chosen=0), outbox.ledger()
            put_.result()
            assert books.result().closes


def test_the_books_close_for_a_reader_beside_the_owner(tmp_path: Path, make_face: Make) -> None:
    with open_outbox(tmp_path / "o.db") as outbox:
        put(outbox, make_face)
        pending = []
        for _ in range(200):
            frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
            pending.append(outbox.put(frozen, chosen=0))
            with closing(reading.open_books(outbox.path)) as db:
                assert reading.ledger(db).closes
        for future in pending:
            future.result()


def test_a_wait_that_is_given_up_stops_nothing(tmp_path: Path, make_face: Make) -> None:
    with open_outbox(tmp_path / "o.db") as outbox:
        frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
        assert not outbox.put(frozen, chosen=0).cancel()
        put(outbox, make_face)
        assert account(outbox).captured == 2


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to look at" * 50)
    with pytest.raises(OutboxError, match=r"text\.db"):
        open_outbox(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(OutboxError, match="not an outbox"):
        open_outbox(tmp_path / "other.db")


def test_books_of_no_outbox_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match="facerelay capture"):
        reading.open_books(tmp_path / "none.db")


def test_a_drained_backlog_gives_the_disk_back(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.edge.outbox._SHRINK_EVERY_S", 0)
    monkeypatch.setattr(schema, "_SPARE_PAGES", 50)
    path = tmp_path / "o.db"
    with open_outbox(path) as outbox:
        faces = [put(outbox, make_face) for _ in range(200)]
        outbox.answer([receipt(frozen) for frozen in faces]).result()
        for _ in range(20):
            outbox.count("home", "door", frames=1).result()
        assert account(outbox).stored == 200
    assert path.stat().st_size < sum(len(frozen.data) for frozen in faces) / 3


def test_what_sync_says_is_what_sqlite_does(tmp_path: Path) -> None:
    def level(db: sqlite3.Connection) -> int:
        return int(db.execute("PRAGMA synchronous").fetchone()[0])

    with Outbox(tmp_path / "full.db", max_bytes=1, max_message=1) as outbox:
        assert outbox._writer.submit(level).result() == 2
    with Outbox(tmp_path / "normal.db", max_bytes=1, max_message=1, sync="normal") as outbox:
        assert outbox._writer.submit(level).result() == 1


def test_what_waits_is_counted_without_a_look_at_each_face(tmp_path: Path, make_face: Make) -> None:
    with open_outbox(tmp_path / "o.db") as outbox:
        faces = [put(outbox, make_face) for _ in range(20)]
        steps = []

        def watched(db: sqlite3.Connection) -> int:
            db.set_progress_handler(lambda: steps.append(1), 1)
            return outbox._jobs.ledger(db, outbox.id).cameras["home/door"].waiting

        first = outbox._writer.submit(watched).result()
        few = len(steps)
        faces += [put(outbox, make_face) for _ in range(180)]
        steps.clear()
        assert (first, outbox._writer.submit(watched).result()) == (20, 200)
        assert len(steps) < few + 20
        outbox._writer.submit(lambda db: db.set_progress_handler(None, 0)).result()
        with pytest.raises(sqlite3.IntegrityError):
            outbox.put(faces[0], chosen=0).result()
        assert outbox.waiting().result() == 200
        assert account(outbox).closes


KILLED = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from facerelay import face
from facerelay.edge.outbox import Outbox
from datetime import datetime, UTC
outbox = Outbox(Path({path!r}), max_bytes=10**9, max_message=10**6)
for _ in range(100_000):
    known = face.Face(id=face.new_id(), outbox=outbox.id, run=outbox.run, seq=outbox.number(), site="home",
        camera="door", time=datetime.now(UTC), box=(1, 2, 3, 4), frame=(5, 6), score=.5, quality=.5)
    outbox.put(face.freeze(known, {jpeg!r}), chosen=time.time()).result()
    print(known.id, flush=True)
"""


def test_kill_9_loses_nothing_that_was_captured(tmp_path: Path, jpeg: bytes) -> None:
    path = tmp_path / "o.db"
    code = textwrap.dedent(KILLED.format(paths=sys.path, path=str(path), jpeg=jpeg))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        captured = [child.stdout.readline().strip() for _ in range(50)]
        child.send_signal(signal.SIGKILL)
        captured += [line.strip() for line in child.stdout if line.endswith("\n")]
    with open_outbox(path) as outbox:
        waiting = {w.id for w in outbox.backlog(0, 100_000).result()}
        assert set(captured) <= waiting
        assert account(outbox).captured == len(waiting)
        assert account(outbox).closes
