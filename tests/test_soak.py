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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chains import HERE, eventually
from conftest import IN_CI, lacking, need
from facerelay.edge.outbox import Outbox
from facerelay.topics import Receipt
from faults.audit import Findings, audit
from faults.bucket_proxy import BucketProxy
from faults.clock import Clock
from faults.link_proxy import LinkProxy
from faults.numbered import LARGEST, SMALLEST, Offered, Writing, read_journal, seal
from faults.schedule import KINDS, schedule
from faults.weed import folder_bucket, remove_sockets, there_is_weed

SEED = 131  # of those whose two minutes have every kind of fault


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
            sealed = seal(SEED, one)
            assert SMALLEST - 100 <= len(sealed.data) <= LARGEST + 100
            outbox.put(sealed, chosen=time.time()).result()
            journal.kept(number)
            path = tmp_path / "bucket" / sealed.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sealed.data)
            outbox.answer([Receipt(id=sealed.face.id, sha256=sealed.sha256, outcome="stored")]).result()
    return tmp_path


def look(folder: Path) -> Findings:
    journal = read_journal(folder / "journal")
    return asyncio.run(audit(folder_bucket(folder / "bucket"), folder / "outbox.db", journal, SEED))


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
        lambda f: Writing(f / "journal").turned_away(3),
        {"denied": 1, "turned_away": 1},
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
    gone = bucket_file(books)
    gone.unlink()
    change(
        books,
        f"UPDATE faces SET state = 'dropped', reason = 'evicted' WHERE key LIKE '%{gone.name}'",  # noqa: S608 - ours
        "UPDATE counts SET n = n - 1 WHERE name = 'stored'",
        "INSERT INTO counts SELECT outbox, site, camera, 'dropped', 1 FROM counts WHERE name = 'stored'",
    )
    found = look(books)
    assert found == Findings(offered=10, captured=10, stored=9, dropped=1)
    assert found.clean


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
