"""What the soak found: openings cut short, a disk that fails beneath the relay, a clock set back."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from conftest import Make, lacking
from facerelay import face
from facerelay.edge.claim import Claim
from facerelay.edge.outbox import Outbox
from facerelay.edge.relay import Relay
from facerelay.edge.reserve import BYTES
from facerelay.messages import Receipt
from facerelay.topics import FaceTopic


def open_outbox(path: Path) -> Outbox:
    return Outbox(path, max_bytes=10**8, max_message=10**6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "o.db"
    with open_outbox(path):
        pass
    return path


def identity(path: Path) -> str:
    with open_outbox(path) as outbox:
        return str(outbox.id)


def cut_short(path: Path) -> None:
    """Begin to open an outbox that cannot be written."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with Claim(path) as claim, closing(db), pytest.raises(sqlite3.OperationalError):
        claim.open(db)


def test_an_opening_cut_short_before_the_outbox_took_its_mark_leaves_it_the_same_outbox(path: Path) -> None:
    before = identity(path)
    cut_short(path)
    assert identity(path) == before


def test_an_opening_whose_lock_file_cannot_be_written_leaves_it_the_same_outbox(path: Path) -> None:
    before = identity(path)
    claim = Claim(path)
    lock = path.with_name("o.db.lock")
    writable, claim._fd = claim._fd, os.open(lock, os.O_RDONLY)
    with claim, closing(sqlite3.connect(path)) as db, pytest.raises(OSError, match="Bad file descriptor"):
        claim.open(db)
    os.close(writable)
    assert identity(path) == before


def test_a_mark_that_an_opening_left_behind_is_forgotten_at_the_next(path: Path, make_face: Make) -> None:
    before = identity(path)
    old = path.read_bytes()
    cut_short(path)
    with open_outbox(path) as outbox:
        assert outbox.id == before
        outbox.put(make_face(outbox=outbox.id, run=outbox.run), chosen=time.time()).result()
    path.write_bytes(old)
    assert identity(path) != before, "an older copy was put back in place"


def test_books_of_faces_answered_before_they_were_chosen_can_be_read(path: Path, make_face: Make) -> None:
    with open_outbox(path) as outbox:
        frozen = make_face(outbox=outbox.id, run=outbox.run)
        outbox.put(frozen, chosen=time.time() + 3600).result()
        outbox.answer([Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome="stored")]).result()
        account = outbox.ledger().result().cameras["home/door"]
        assert (account.stored, account.latency_ms.p99) == (1, None)


def test_a_relay_that_cannot_read_its_backlog_goes_on_when_it_can(path: Path, make_face: Make) -> None:
    sent: list[str] = []

    async def publish(topic: str, _: bytes) -> None:
        sent.append(topic)

    async def check(outbox: Outbox) -> None:
        def rename(old: str, new: str) -> None:
            statement = f"ALTER TABLE {old} RENAME TO {new}"
            outbox._writer.submit(lambda db: db.execute(statement).close()).result()

        rename("pictures", "away")
        relay = Relay(
            outbox, topic=FaceTopic("faces/#"), publish=publish, delivery="receipt",
            window_bytes=10**6, overdue_s=5.0, max_unanswered=3,
        )  # fmt: skip
        task = asyncio.create_task(relay.run())
        relay.on_link(True)
        relay.on_connected(True)
        await asyncio.sleep(0.3)
        assert not task.done()
        assert not sent
        rename("away", "pictures")
        async with asyncio.timeout(10):
            while not sent:
                await asyncio.sleep(0.02)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with open_outbox(path) as outbox:
        outbox.put(make_face(outbox=outbox.id, run=outbox.run), chosen=time.time()).result()
        asyncio.run(check(outbox))


# a disk that is full


FILLS = """
import os, sqlite3, sys, time
from pathlib import Path
from facerelay.edge.outbox import Outbox
from facerelay.messages import Receipt
from faults.disk import mount
from faults.numbered import Offered, freeze

disk = mount(Path(sys.argv[1]), 48_000_000)
if disk is None:
    sys.exit("no small filesystem can be mounted")
path = disk.folder / "o.db"
child = os.fork()
if not child:
    outbox, kept, number, failures = Outbox(path, max_bytes=10**9, max_message=10**6), [], 0, 0
    while failures < 50:
        one = Offered(number, outbox.id, outbox.run, outbox.number(), time.time_ns() // 1000)
        frozen, number = freeze(1, one), number + 1
        try:
            outbox.put(frozen, chosen=time.time()).result()
            kept.append(frozen)
        except sqlite3.Error:
            failures += 1
    for frozen in kept[:200]:
        outbox.answer([Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome="stored")]).result()
    print(len(kept), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "answers were not written down"
for _ in range(3):
    with Outbox(path, max_bytes=10**9, max_message=10**6) as outbox:
        print(outbox.waiting().result(), flush=True)
"""


def test_an_outbox_that_has_filled_its_disk_takes_answers_and_is_opened_again(tmp_path: Path) -> None:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FILLS, str(tmp_path / "disk")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)
    if "can be mounted" in done.stderr:
        lacking("no small filesystem can be mounted: that needs root on Linux")
    assert done.returncode == 0, done.stderr
    kept, *waiting = map(int, done.stdout.split())
    assert kept > 2000
    assert waiting == [kept - 200] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="room can be kept back on Linux alone")
def test_what_is_kept_back_goes_to_answers_until_there_is_room_again(path: Path, make_face: Make) -> None:
    reserve = path.with_name("o.db.reserve")
    assert reserve.stat().st_size == BYTES
    with open_outbox(path) as outbox:

        def put() -> face.Frozen:
            frozen = make_face(outbox=outbox.id, run=outbox.run)
            outbox.put(frozen, chosen=time.time()).result()
            return frozen

        def limit(pages: int) -> None:
            outbox._writer.submit(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").close()).result()

        outbox._reserve._again_at = float("inf")
        first = put()
        limit(1)  # SQLite takes it as the pages that there are
        with pytest.raises(sqlite3.OperationalError, match="full"):
            [put() for _ in range(10)]
        assert reserve.stat().st_size == 0
        with pytest.raises(sqlite3.OperationalError, match="for answers"):
            put()
        outbox.answer([Receipt(id=first.face.id, sha256=first.sha256, outcome="stored")]).result()
        assert outbox.ledger().result().cameras["home/door"].stored == 1
        limit(10**6)
        outbox._reserve._again_at = 0
        put()
        assert reserve.stat().st_size == BYTES
