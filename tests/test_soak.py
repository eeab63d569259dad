"""The soak, its parts, and that its audit finds what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chains import HERE, eventually
from conftest import IN_CI, lacking, need
from facerelay.edge.outbox import Outbox
from facerelay.messages import Receipt
from faults.audit import Findings, answered_after, audit
from faults.bucket_proxy import BucketProxy
from faults.clock import Clock
from faults.link_proxy import LinkProxy
from faults.numbered import LARGEST, SMALLEST, Offered, Writing, freeze, read_journal
from faults.parts import Part
from faults.run import Outcome, Plan, wrong
from faults.schedule import KINDS, schedule, without
from faults.soak import toothless
from faults.usage import Look, Usage, growth
from faults.weed import folder_bucket, remove_sockets, there_is_weed

SEED = 9  # of those whose two minutes have every kind of fault


def soak(*words: str) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "faults.soak", "--seed", str(SEED), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def named(words: str) -> list[int]:
    """Return the processes whose command lines hold some words."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if words in _command(int(path.name))]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:  # it ended meanwhile
        return ""


@pytest.mark.timeout(600)
def test_a_chain_broken_by_a_schedule_loses_nothing(tmp_path: Path) -> None:
    need("mosquitto")
    if not there_is_weed():
        lacking("SeaweedFS is not installed")
    words = ["--seconds", "120"] if IN_CI else ["--seconds", "15", "--combination", "mosquitto"]
    process = soak(*words, "--keep", str(tmp_path / "soak"))
    out, said = process.communicate(timeout=580)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert (process.returncode, found["clean"]) == (0, True), f"{found}\n{said}"
    assert found["captured"] == found["stored"] + found["dropped"] > 500
    assert found["offered"] == (12_000 if IN_CI else 1500)
    wanted = {kind.name for kind in KINDS} - set(found["left_out"])
    assert found["faults"].keys() == wanted if IN_CI else len(found["faults"]) >= 3
    assert not named(str(tmp_path / "soak"))
    assert not list((tmp_path / "soak" / "disk").glob("*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_soak_that_is_ended_leaves_no_process(tmp_path: Path, number: int) -> None:
    need("mosquitto")
    folder = str(tmp_path / "soak")
    process = soak("--seconds", "60", "--combination", "mosquitto", "--keep", folder)
    try:
        eventually(lambda: len(named(folder)) > 5, 60)
        ports = re.findall(r"port=(\d+)", " ".join(_command(pid) for pid in named(folder)))
        process.send_signal(number)
        process.communicate(timeout=60)
        eventually(lambda: not named(folder))
    finally:
        process.kill()
    if number == signal.SIGKILL:  # nobody was left to do it
        remove_sockets(map(int, ports))
    assert not [left for port in ports for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]  # noqa: S108


def test_a_schedule_follows_from_its_seed_and_has_every_kind() -> None:
    one = list(schedule(SEED, "embedded", 600))
    assert one == list(schedule(SEED, "embedded", 600))
    assert one != list(schedule(SEED + 1, "embedded", 600))
    assert one != list(schedule(SEED, "bridge", 600))
    early = [fault for fault in one if fault.at + fault.seconds < 100]
    assert early == [f for f in schedule(SEED, "embedded", 100) if f.at + f.seconds < 100]
    assert {fault.kind for fault in one} == {kind.name for kind in KINDS}


def test_a_schedule_without_a_kind_has_all_others() -> None:
    some = without(["kill", "disk-full"])
    found = {fault.kind for fault in schedule(SEED, "embedded", 600, some)}
    assert found == {kind.name for kind in KINDS if kind.target != "disk" and "kill" not in kind.name}


def test_a_schedule_never_breaks_what_is_broken() -> None:
    healed: dict[str, float] = {}
    for fault in schedule(SEED, "mosquitto", 3000):
        assert fault.at > healed.get(fault.target, 0)
        assert fault.at + fault.seconds <= 3000.01
        healed[fault.target] = fault.at + fault.seconds


# what the audit finds


def bucket_file(folder: Path) -> Path:
    return next(path for path in sorted((folder / "bucket" / "faces").rglob("*")) if path.is_file())


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """An outbox of ten faces that are all stored, the bucket, and the journal."""
    journal = Writing(tmp_path / "journal")
    with Outbox(tmp_path / "outbox.db", max_bytes=10**8, max_message=10**6) as outbox:
        for number in range(10):
            one = Offered(number, outbox.id, outbox.run, outbox.number(), time.time_ns() // 1000)
            journal.offered(one)
            frozen = freeze(SEED, one)
            assert SMALLEST - 100 <= len(frozen.data) <= LARGEST + 100
            outbox.put(frozen, chosen=time.time()).result()
            journal.kept(number)
            path = tmp_path / "bucket" / frozen.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(frozen.data)
            outbox.answer([Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome="stored")]).result()
    return tmp_path


def look(folder: Path) -> Findings:
    journal = read_journal(folder / "journal")
    full = [(100.0, 110.0), (200.0, 210.0)]
    return asyncio.run(audit(folder_bucket(folder / "bucket"), folder / "outbox.db", journal, SEED, full))


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "outbox.db")) as db, db:
        for statement in statements:
            db.execute(statement)


def test_an_audit_of_a_sound_run_is_clean(books: Path) -> None:
    found = look(books)
    assert found == Findings(offered=10, captured=10, stored=10)
    assert found.clean


def _flip(folder: Path) -> None:
    path = bucket_file(folder)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def _twice(folder: Path) -> None:
    path = bucket_file(folder)
    other = path.with_name(path.name.replace(path.name[-12:], "00000000.jpg"))
    other.write_bytes(path.read_bytes())


def _stranger(folder: Path) -> None:
    bucket_file(folder).with_name("unknown.jpg").write_bytes(b"x")


def _drop(folder: Path, reason: str, *, lost: bool = True) -> None:
    """Have the books say that a face was dropped, and the bucket not have it if it is lost."""
    gone = bucket_file(folder)
    if lost:
        gone.unlink()
    change(
        folder,
        f"UPDATE faces SET state = 'dropped', reason = '{reason}' WHERE key LIKE '%{gone.name}'",  # noqa: S608 - ours
        "UPDATE counts SET n = n - 1 WHERE name = 'stored'",
        "INSERT INTO counts SELECT outbox, site, camera, 'dropped', 1 FROM counts WHERE name = 'stored'",
    )


def _offer_another(folder: Path, begin: float, end: float) -> None:
    """Have the journal say that a face was turned away, between two times."""
    journal = Writing(folder / "journal")
    journal.offered(Offered(10, "a" * 32, "b" * 8, 11, 1))
    journal.turned_away(10, begin, end)


def _replaced(folder: Path) -> None:
    for end in ("", "-wal"):
        (folder / f"outbox.db.broken-20261121T100000Z{end}").touch()


def _put_aside(folder: Path) -> None:
    (folder / "bucket" / "quarantine").mkdir()
    (folder / "bucket" / "quarantine" / "x.bin").write_bytes(b"x")


CHANGES: dict[str, tuple[Callable[[Path], None], dict[str, int | bool]]] = {
    "an object is gone": (lambda f: bucket_file(f).unlink(), {"missing": 1, "stored": 9}),
    "an object is altered": (_flip, {"unequal": 1, "missing": 1, "stored": 9}),
    "an object is there twice": (_twice, {"duplicates": 1, "unequal": 1}),
    "an object is nobody's": (_stranger, {"strangers": 1}),
    "a picture was put aside": (_put_aside, {"strangers": 1}),
    "the outbox forgot a face": (
        lambda f: change(f, "DELETE FROM faces WHERE seq = 3"),
        {"missing": 1, "captured": 9, "strangers": 1, "stored": 9, "closes": False},
    ),
    "the books have another hash": (
        lambda f: change(f, "UPDATE faces SET sha256 = '0' WHERE seq = 3"), {"unequal": 1}
    ),
    "a face waits for ever": (
        lambda f: change(f, "UPDATE faces SET state = 'waiting' WHERE seq = 3"),
        {"waiting": 1, "closes": False},
    ),
    "a face was parked": (
        lambda f: change(f, "UPDATE faces SET state = 'refused' WHERE seq = 3"),
        {"parked": 1, "closes": False},
    ),
    "a face is in the books that was turned away": (
        lambda f: Writing(f / "journal").turned_away(3, 101, 102),
        {"denied": 1, "turned_away": 1},
    ),
    "a face was turned away though there was room": (
        lambda f: _offer_another(f, 120, 199),
        {"offered": 11, "turned_away": 1, "unwarranted": 1},
    ),
    "a face was dropped that the budget had room for": (
        lambda f: _drop(f, "damaged"), {"stored": 9, "dropped": 1, "spoilt": 1}
    ),
    "the outbox took its file for a broken one": (
        _replaced, {"replaced": 1}
    ),
    "the outbox took its file for a copy": (
        lambda f: change(f, "INSERT INTO counts VALUES ('abcdef12', 'home', 'door', 'bytes', 0)"),
        {"replaced": 1},
    ),
    "a count is wrong": (
        lambda f: change(f, "UPDATE counts SET n = n + 1 WHERE name = 'captured'"), {"closes": False}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_an_audit_finds_that(books: Path, name: str) -> None:
    do, wanted = CHANGES[name]
    do(books)
    found = look(books)
    values: dict[str, Any] = {"offered": 10, "captured": 10, "stored": 10} | wanted
    assert found == Findings(**values)
    assert not found.clean


def test_a_face_that_was_dropped_and_counted_is_not_missing(books: Path) -> None:
    _drop(books, "evicted")
    found = look(books)
    assert found == Findings(offered=10, captured=10, stored=9, dropped=1)
    assert found.clean


def test_a_face_that_was_dropped_before_its_receipt_came_is_counted_as_dropped(books: Path) -> None:
    _drop(books, "evicted", lost=False)
    found = look(books)
    assert found == Findings(offered=10, captured=10, stored=9, dropped=1, spared=1)
    assert found.clean


@pytest.mark.parametrize(("begin", "end"), [(90, 101), (109, 300), (112, 113), (206, 207)])
def test_a_face_may_be_turned_away_while_the_disk_is_full_and_hardly_free(
    books: Path, begin: float, end: float
) -> None:
    _offer_another(books, begin, end)
    found = look(books)
    assert found == Findings(offered=11, captured=10, stored=10, turned_away=1)
    assert found.clean


def test_a_face_that_died_with_the_feeder_is_counted(books: Path) -> None:
    Writing(books / "journal").offered(Offered(10, "a" * 32, "b" * 8, 11, 1))
    found = look(books)
    assert found == Findings(offered=11, captured=10, stored=10, unsaid=1)
    assert found.clean


def test_answers_are_timed_from_the_end_of_the_last_fault(books: Path) -> None:
    change(books, "UPDATE faces SET answered = 1000 + 2 * seq")
    assert answered_after(books / "outbox.db", 1005) == (1, 15)
    assert answered_after(books / "outbox.db", 1020) == (0, 0)


# what a run is blamed for

STEADY = {"peak_rss_mb": 60.0, "peak_handles": 90.0, "early_rss_mb": 50.0, "late_rss_mb": 55.0,
          "before_handles": 90.0, "late_handles": 90.0}  # fmt: skip
PLAN = Plan(seed=1, seconds=600, rate=100, combination="embedded", disk=None, budget=1)
CLEAN = Outcome(
    findings=Findings(offered=60_000, captured=59_000, stored=59_000, turned_away=600, unsaid=400),
    faults={"kill-feeder": 2, "link-dead": 6}, bitten={"kill-feeder": 2}, left_out=set(),
    usage={"store": STEADY}, falls={}, drained=True, rate=98.3,
    resumed_s=2, drain_s=9,
)  # fmt: skip


def test_a_clean_run_is_blamed_for_nothing() -> None:
    assert not list(wrong(PLAN, CLEAN))


BLAMES: dict[str, tuple[dict[str, Any], str]] = {
    "a face is missing": ({"findings": replace(CLEAN.findings, missing=1)}, "audit"),
    "a face has no answer": ({"drained": False}, "answer"),
    "faces were not offered": ({"findings": replace(CLEAN.findings, offered=59_999)}, "59999"),
    "more is gone than kills took": ({"findings": replace(CLEAN.findings, unsaid=401)}, "401"),
    "a process fell": ({"falls": {"store": 1}}, "store: fell 1"),
    "memory grew": ({"usage": {"store": STEADY | {"late_rss_mb": 70.0}}}, "from 50.0 to 70.0 MB"),
    "handles grew": ({"usage": {"store": STEADY | {"late_handles": 104.0}}}, "from 90 to 104"),
    "memory is too much": ({"usage": {"store": STEADY | {"peak_rss_mb": 300.0}}}, "300.0 MB"),
    "handles are too many": ({"usage": {"store": STEADY | {"peak_handles": 900.0}}}, "900 handles"),
    "handles are too many for others": ({"usage": {"feeder": STEADY}}, "90 handles"),
    "a process was never there": ({"usage": {"store": {}}}, "never seen"),
}  # fmt: skip


@pytest.mark.parametrize("name", BLAMES)
def test_a_run_is_blamed_where(name: str) -> None:
    changes, word = BLAMES[name]
    (why,) = wrong(PLAN, replace(CLEAN, **changes))
    assert word in why


def test_a_kind_of_fault_that_hits_nothing_in_all_combinations_is_named() -> None:
    assert not list(toothless({"link-dead": 6, "link-reset": 5}, {"link-dead": 1}))
    (why,) = toothless({"link-dead": 6, "link-reset": 5}, {"link-reset": 1})
    assert why.startswith("link-dead: played 6 times")


def test_a_short_run_is_not_judged_by_its_thirds() -> None:
    grown = STEADY | {"late_rss_mb": 200.0, "late_handles": 190.0}
    assert len(list(growth({"store": grown}, 600))) == 2
    assert not list(growth({"store": grown}, 120))


def test_usage_compares_the_last_third_with_what_was_before() -> None:
    usage = Usage()
    usage.looks = [Look(at, at, 300 if at < 30 else 50 + at / 10, 10 + (at > 400)) for at in range(600)]
    found = usage.report()
    assert (found["peak_rss_mb"], found["peak_handles"]) == (300, 11)
    assert 60 < found["early_rss_mb"] < 63
    assert 98 < found["late_rss_mb"] < 102
    assert (found["before_handles"], found["late_handles"]) == (10, 11)


def test_usage_sees_open_files_and_a_second_life(tmp_path: Path) -> None:
    program = "import sys, time; held = [open(sys.executable) for _ in range(50)]; time.sleep(60)"
    part, usage = Part("one", [sys.executable, "-c", program], tmp_path / "log"), Usage()

    def all_open() -> bool:
        usage.sample(part)
        return bool(usage.looks) and usage.looks[-1].handles > 50

    try:
        for life in range(2):
            usage.looks.clear()
            part.start()
            eventually(all_open)
            assert usage.looks[-1].handles < 70
            assert usage.looks[-1].rss_mb > 4
            part.kill()
            seen = len(usage.looks)
            usage.sample(part)
            assert len(usage.looks) == seen
            assert usage.report()["lives"] == life + 1
    finally:
        part.kill()


# what the proxies do


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def _says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes) -> bytes:
    """Return what comes back within a moment; nothing where nothing does."""
    try:
        writer.write(word)
        return await asyncio.wait_for(reader.read(100), 1)
    except TimeoutError:
        return b""


def test_the_line_stalls_and_goes_on_dies_for_good_and_is_reset() -> None:
    async def check() -> None:
        echo = await asyncio.start_server(_echo, "127.0.0.1", 0)
        line = LinkProxy(echo.sockets[0].getsockname()[1])
        await line.start()
        one = await asyncio.open_connection("127.0.0.1", line.port)
        assert await _says(*one, b"a") == b"a"
        line.set("stall")
        assert await _says(*one, b"b") == b""
        line.set("up")
        assert await _says(*one, b"c") in {b"b", b"bc"}
        two = await asyncio.open_connection("127.0.0.1", line.port)
        line.set("dead")
        line.set("up")
        assert await _says(*two, b"d") == b""
        three = await asyncio.open_connection("127.0.0.1", line.port)
        assert await _says(*three, b"e") == b"e"
        line.set("reset")
        with pytest.raises(ConnectionResetError):
            await three[0].read(100)
        await line.close()
        for _, writer in (one, two, three):
            writer.transport.abort()
        echo.close()

    asyncio.run(check())


def test_a_bucket_that_answers_500_has_done_every_second_request_and_none_at_503() -> None:
    async def check() -> None:
        asked: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.split(b" ")[1] + await reader.readexactly(2))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        proxy = BucketProxy(server.sockets[0].getsockname()[1])
        await proxy.start()
        put = b"PUT /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
        proxy.set("500")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for n in range(4):
            writer.write(put % n)
            assert (await reader.readuntil(b"</Error>")).startswith(b"HTTP/1.1 500 ")
        assert asked == [b"/0ok", b"/2ok"]
        proxy.set("503")
        writer.write(put % 4)
        assert (await reader.readuntil(b"</Error>")).startswith(b"HTTP/1.1 503 ")
        assert asked == [b"/0ok", b"/2ok"]
        proxy.set("up")
        writer.write(put % 4)
        assert (await reader.read(100)).startswith(b"HTTP/1.1 200 ")
        assert asked[-1] == b"/4ok"
        await proxy.close()
        writer.transport.abort()
        server.close()

    asyncio.run(check())


def test_a_clock_is_wrong_in_the_process_that_takes_it_alone(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    clock.set(-3600)
    program = (
        "import sys, time; from pathlib import Path; from faults.clock import Clock;"
        "from facerelay.cloud import tombstones; from datetime import UTC;"
        "Clock(Path(sys.argv[1])).take(); print(time.time(), tombstones.datetime.now(UTC).timestamp())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "clock")]
    environ = os.environ | {"PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=True)
    for said in done.stdout.split():
        assert 3500 < datetime.now(UTC).timestamp() - float(said) < 3700
