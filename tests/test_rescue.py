"""An outbox whose file is damaged: what can be read is recovered, the rest is counted, the file is kept."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest

from conftest import Make, lacking
from facerelay.edge import reading, rescue, schema
from facerelay.edge.outbox import Outbox, Waiting
from facerelay.edge.schema import PAGE, OutboxError
from facerelay.face import Frozen
from facerelay.messages import Receipt

FACES = 200


def open_outbox(path: Path) -> Outbox:
    return Outbox(path, max_bytes=10**8, max_message=10**6)


def backlog(outbox: Outbox) -> dict[str, Waiting]:
    """Return all that wait, each id once."""
    found: dict[str, Waiting] = {}
    after = 0
    while page := outbox.backlog(after, 64).result():
        assert not found.keys() & {face.id for face in page}
        found |= {face.id: face for face in page}
        after = page[-1].row
    return found


def receipt(frozen: Frozen, outcome: str = "stored") -> Receipt:
    return Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome=outcome)


class Case:
    """An outbox of 200 faces: forty stored, ten refused, the rest wait; closed, or as a crash left it."""

    def __init__(self, folder: Path, make: Make, *, clean: bool) -> None:
        self.path = folder / "o.db"
        self.wal = folder / "o.db-wal"
        rng = random.Random(7)  # noqa: S311 - damage is no secret
        with open_outbox(self.path) as outbox:
            self.id = outbox.id
            self.faces = []
            self.extra = {}
            for _ in range(FACES):
                # A JPEG comment makes them small and large: in a page, or in a chain of them.
                extra = rng.randbytes(rng.choice((10, 700, 2500, 9000, 30_000)))
                jpeg = _jpeg(extra)
                frozen = make(jpeg, outbox=outbox.id, run=outbox.run, seq=outbox.number())
                self.faces.append(frozen)
                self.extra[frozen.face.id] = len(extra)
            futures = [outbox.put(frozen, chosen=time.time()) for frozen in self.faces]
            [future.result() for future in futures]
            outbox.answer([receipt(frozen) for frozen in self.faces[:40]]).result()
            outbox.answer([receipt(frozen, "refused:broken") for frozen in self.faces[40:50]]).result()
            outbox.count("home", "door", frames=1000).result()
            outbox.note("budget", "spent 7").result()
            files = [
                path for path in folder.iterdir() if path.suffix != ".db-shm" and path.name != "o.db-shm"
            ]
            left = {path: path.read_bytes() for path in files}
        if not clean:
            for path, data in left.items():
                path.write_bytes(data)

    @property
    def waiting(self) -> dict[str, Frozen]:
        return {frozen.face.id: frozen for frozen in self.faces[50:]}

    def pages(self, frozen: Frozen) -> set[int]:
        """Return the pages of the file (not of its log) that hold a waiting face."""
        data = self.path.read_bytes()
        row = f"{frozen.face.id}homedoor{frozen.sha256}{frozen.key}".encode()
        # What differs from picture to picture is the id, and the random bytes at the end.
        own = len(frozen.data) - 2 - self.extra[frozen.face.id]
        pieces = [frozen.data[at : at + 8] for at in range(own, len(frozen.data) - 10, 1000)]
        ends = frozen.face.id.replace("-", "").encode(), frozen.data[-10:-2]
        return {place // PAGE for piece in (row, *ends, *pieces) if (place := data.find(piece)) >= 0}

    def damage(self, flips: Iterable[tuple[int, int]]) -> None:
        data = bytearray(self.path.read_bytes())
        for place, mask in flips:
            data[place] ^= mask
        self.path.write_bytes(data)

    def check(self, outbox: Outbox, intact: Iterable[str]) -> None:
        """See that the intact ones wait, that all who wait are themselves, and that the books close."""
        found = backlog(outbox)
        assert set(intact) - found.keys() == set()
        assert found.keys() <= self.waiting.keys()
        for face_id, face in found.items():
            assert face.data == self.waiting[face_id].data
            assert (face.site, face.camera, face.outbox) == ("home", "door", self.id)
        assert outbox.ledger().result().closes
        with closing(reading.open_books(self.path)) as db:
            assert all(reading.ledger(db, owner).closes for owner in [outbox.id, *reading.inherited(db)])


def _jpeg(comment: bytes) -> bytes:
    import cv2  # noqa: PLC0415 - as above
    import numpy as np  # noqa: PLC0415 - one small picture

    plain = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    body = comment.replace(b"\xff", b"\xfe")
    return plain[:-2] + body + plain[-2:]


@pytest.fixture(params=["closed", "crashed"])
def case(tmp_path: Path, make_face: Make, request: pytest.FixtureRequest) -> Case:
    return Case(tmp_path, make_face, clean=request.param == "closed")


@pytest.mark.parametrize("seed", range(5))
def test_no_face_is_lost_whose_pages_are_intact(case: Case, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - as above
    size = case.path.stat().st_size
    places = [rng.randrange(size) for _ in range(rng.choice((1, 3, 10, 40)))]
    broken = {place // PAGE for place in places}
    intact = [i for i, frozen in case.waiting.items() if not case.pages(frozen) & broken]
    case.damage((place, rng.randrange(1, 256)) for place in places)
    with open_outbox(case.path) as outbox:
        case.check(outbox, intact)
        outbox.answer([receipt(frozen) for frozen in case.faces[:60]]).result()
        case.check(outbox, set(intact) - {frozen.face.id for frozen in case.faces[50:60]})
    with open_outbox(case.path) as outbox:
        case.check(outbox, set(intact) - {frozen.face.id for frozen in case.faces[50:60]})


@pytest.mark.parametrize("seed", range(3))
def test_a_file_that_was_cut_off_gives_what_is_left(case: Case, seed: int) -> None:
    size = random.Random(seed).randrange(1, case.path.stat().st_size)  # noqa: S311 - as above
    gone = set(range(size // PAGE, case.path.stat().st_size // PAGE + 1))
    intact = [i for i, frozen in case.waiting.items() if not case.pages(frozen) & gone]
    os.truncate(case.path, size)
    with open_outbox(case.path) as outbox:
        case.check(outbox, intact)


def zero_header(case: Case) -> None:
    case.damage((at, byte) for at, byte in enumerate(case.path.read_bytes()[:PAGE]) if byte)


def wrong_version(case: Case) -> None:
    case.damage([(63, 0x40)])


def other_tables(case: Case) -> None:
    case.damage([(case.path.read_bytes().index(b"CREATE TABLE pictures") + 14, 0x01)])


@pytest.mark.parametrize("spoil", [zero_header, wrong_version, other_tables])
def test_a_file_whose_header_is_damaged_gives_every_face(
    tmp_path: Path, make_face: Make, spoil: Callable[[Case], None], caplog: pytest.LogCaptureFixture
) -> None:
    case = Case(tmp_path, make_face, clean=True)
    spoil(case)
    with open_outbox(case.path) as outbox:
        case.check(outbox, case.waiting)
        assert outbox.id != case.id
        assert outbox.owners().result() == [("home", case.id)]
        assert outbox.noted("budget").result() == "spent 7"
    with closing(reading.open_books(case.path)) as db:
        books = reading.ledger(db, case.id).cameras["home/door"]
    assert (books.captured, books.stored, books.refused, books.waiting) == (FACES, 40, 10, 150)
    assert (books.dropped, books.frames) == (0, 1000)
    (aside,) = [path for path in case.path.parent.glob("o.db.broken-*") if not path.name.endswith("-wal")]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert str(case.path) in said[0]
    assert aside.name in said[-1]
    assert "150 faces" in said[-1]


@pytest.mark.parametrize("left", [b"", b"nothing of ours, and long enough to be looked at" * 500])
def test_an_outbox_of_which_nothing_is_left_is_begun_anew(
    tmp_path: Path, make_face: Make, left: bytes
) -> None:
    case = Case(tmp_path, make_face, clean=True)
    case.path.write_bytes(left)
    with open_outbox(case.path) as outbox:
        assert backlog(outbox) == {}
        frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
        outbox.put(frozen, chosen=time.time()).result()
        assert outbox.ledger().result().closes
    assert [path.read_bytes() for path in tmp_path.glob("o.db.broken-*")] == [left]


def test_an_empty_file_beside_its_log_gives_what_the_log_holds(tmp_path: Path, make_face: Make) -> None:
    case = Case(tmp_path, make_face, clean=False)
    held = case.wal.read_bytes()
    in_log = [i for i, frozen in case.waiting.items() if frozen.data in held]
    assert in_log
    case.path.write_bytes(b"")
    with open_outbox(case.path) as outbox:
        case.check(outbox, in_log)


def test_faces_behind_a_damaged_page_of_the_log_are_not_passed_over(tmp_path: Path, make_face: Make) -> None:
    path, wal = tmp_path / "o.db", tmp_path / "o.db-wal"
    with open_outbox(path) as outbox:
        faces = []
        for _ in range(30):
            frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
            outbox.put(frozen, chosen=time.time()).result()
            faces.append(frozen)
        left = {file: file.read_bytes() for file in (path, wal, tmp_path / "o.db.lock")}
    log = bytearray(left[wal])
    log[log.index(faces[0].data[-200:]) + 100] ^= 1
    for file, data in (left | {wal: bytes(log)}).items():
        file.write_bytes(data)
    with open_outbox(path) as outbox:
        assert backlog(outbox).keys() == {frozen.face.id for frozen in faces[1:]}


def test_a_log_that_is_lost_loses_no_more_than_it_held(tmp_path: Path, make_face: Make) -> None:
    case = Case(tmp_path, make_face, clean=False)
    held = case.path.read_bytes()
    in_file = [i for i, frozen in case.waiting.items() if frozen.data in held]
    case.wal.unlink()
    with open_outbox(case.path) as outbox:
        case.check(outbox, in_file if len(in_file) < len(case.waiting) else ())


def test_damage_in_the_middle_of_work_is_mended_and_the_outbox_stays_the_same(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    case = Case(tmp_path, make_face, clean=True)
    with open_outbox(case.path) as outbox:
        name, run = outbox.id, outbox.run
        broken = set(range(10, case.path.stat().st_size // PAGE, 9))
        intact = [i for i, frozen in case.waiting.items() if not case.pages(frozen) & broken]
        case.damage((page * PAGE + at, 0xFF) for page in broken for at in range(64))
        case.check(outbox, intact)
        frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
        outbox.put(frozen, chosen=time.time()).result()
        assert (outbox.id, outbox.run, frozen.face.seq) == (name, run, FACES + 1)
        outbox.answer([receipt(frozen)]).result()
    assert "is damaged" in caplog.text
    with open_outbox(case.path) as outbox:
        assert outbox.id == name
        assert outbox.number() == FACES + 2


def test_where_the_disk_has_no_room_the_faces_stay_in_the_broken_file_and_are_counted(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case = Case(tmp_path, make_face, clean=True)
    wrong_version(case)
    monkeypatch.setattr(rescue, "_MARGIN", 1 << 60)
    with open_outbox(case.path) as outbox:
        assert backlog(outbox) == {}
    assert "for 160 sound faces the disk had no room" in caplog.text
    with closing(reading.open_books(case.path)) as db:
        books = reading.ledger(db, case.id).cameras["home/door"]
        assert (books.captured, books.waiting, books.dropped) == (FACES, 0, 150)


def test_a_replacement_that_fails_leaves_the_broken_file_where_it_was(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, make_face, clean=True)
    wrong_version(case)
    before = case.path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rescue, "_sync", fails)
        with pytest.raises(OutboxError, match=r"o\.db is damaged.*No space left.*make room"):
            open_outbox(case.path)
    assert case.path.read_bytes() == before
    with open_outbox(case.path) as outbox:
        case.check(outbox, case.waiting)


@pytest.mark.parametrize("step", range(1, 5))
def test_a_crash_in_the_middle_of_a_replacement_loses_nothing(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    case = Case(tmp_path, make_face, clean=False)
    log = bytearray(case.wal.read_bytes())
    log[32 + 16] ^= 1  # the checksum of its first page
    case.wal.write_bytes(log)
    steps = iter(range(1, 100))

    class Crashed(BaseException):
        pass

    def dying(of: Callable[..., object]) -> Callable[..., object]:
        def die(*args: object, **more: object) -> object:
            if next(steps) == step:
                raise Crashed
            return of(*args, **more)

        return die

    with monkeypatch.context() as patch:
        patch.setattr(rescue, "_sync", dying(rescue._sync))
        patch.setattr(Path, "rename", dying(Path.rename))
        with pytest.raises(Crashed):
            open_outbox(case.path)
    with open_outbox(case.path) as outbox:
        case.check(outbox, case.waiting)


def test_few_broken_files_are_kept(tmp_path: Path, make_face: Make) -> None:
    case = Case(tmp_path, make_face, clean=True)
    for _ in range(4):
        wrong_version(case)
        with open_outbox(case.path) as outbox:
            case.check(outbox, case.waiting)
    assert len(list(tmp_path.glob("o.db.broken-*"))) == 2


def test_an_older_outbox_gets_the_indices_of_today(tmp_path: Path, make_face: Make) -> None:
    case = Case(tmp_path, make_face, clean=True)
    with closing(sqlite3.connect(case.path)) as db:
        db.executescript(
            "DROP INDEX faces_line; DROP INDEX faces_answered;"
            "CREATE INDEX faces_camera ON faces (outbox, site, camera, row);"
        )
    with open_outbox(case.path) as outbox:
        assert outbox.id == case.id
        case.check(outbox, case.waiting)
    with closing(sqlite3.connect(case.path)) as db:
        indices = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    assert {"faces_line", "faces_answered"} <= indices
    assert "faces_camera" not in indices


def test_a_face_whose_row_was_damaged_unnoticed_is_found_by_its_picture(
    tmp_path: Path, make_face: Make
) -> None:
    case = Case(tmp_path, make_face, clean=True)
    with closing(sqlite3.connect(case.path)) as db, db:
        db.execute("UPDATE faces SET id = '9' || substr(id, 2), site = 'hole' WHERE row % 50 = 0")
    with open_outbox(case.path) as outbox:
        case.check(outbox, case.waiting)
    with closing(reading.open_books(case.path)) as db:
        books = reading.ledger(db, case.id)
    assert {name: account.waiting for name, account in books.cameras.items()} == {"home/door": 150}


def test_counts_that_cannot_be_right_are_made_of_the_faces(tmp_path: Path, make_face: Make) -> None:
    case = Case(tmp_path, make_face, clean=True)
    with closing(sqlite3.connect(case.path)) as db, db:
        db.execute("UPDATE counts SET n = -n * 1000000000000")
    with open_outbox(case.path) as outbox:
        case.check(outbox, case.waiting)
    with closing(reading.open_books(case.path)) as db:
        books = reading.ledger(db, case.id).cameras["home/door"]
    assert (books.captured, books.stored, books.refused, books.waiting) == (FACES, 40, 10, 150)


READ_ONLY = """
import subprocess, sys
from pathlib import Path
from facerelay.edge.outbox import Outbox
from facerelay.edge.schema import OutboxError
from faults.disk import mount

disk = mount(Path(sys.argv[1]), 64_000_000)
if disk is None:
    sys.exit("no small filesystem can be mounted")
path = disk.folder / "o.db"
Outbox(path, max_bytes=10**9, max_message=10**6).close()
subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
try:
    Outbox(path, max_bytes=10**9, max_message=10**6)
except OutboxError as error:
    print(error)
subprocess.run(["mount", "-o", "remount,rw", str(disk.folder)], check=True)
Outbox(path, max_bytes=10**9, max_message=10**6).close()
print("opened again")
"""


def test_a_read_only_disk_is_named_and_nothing_of_it_is_taken_for_damage(tmp_path: Path) -> None:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", READ_ONLY, str(tmp_path / "disk")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
    if "can be mounted" in done.stderr:
        lacking("no small filesystem can be mounted: that needs root on Linux")
    assert done.returncode == 0, done.stderr
    said, again = done.stdout.splitlines()
    assert "Read-only file system: the outbox's folder must be writable: see outbox.path" in said
    assert again == "opened again"


def test_a_replacement_that_cannot_be_opened_at_once_is_opened_later(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, make_face, clean=True)

    def fails(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("no room")

    with open_outbox(case.path) as outbox:
        case.damage((page * PAGE, 0xFF) for page in range(3, case.path.stat().st_size // PAGE))
        frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
        with monkeypatch.context() as patch:
            patch.setattr(schema, "prepare", fails)
            for _ in range(2):
                with pytest.raises(sqlite3.OperationalError, match="no room"):
                    outbox.backlog(0, FACES).result()
                with pytest.raises(sqlite3.OperationalError, match="no room"):
                    outbox.put(frozen, chosen=0).result()
        outbox.put(frozen, chosen=0).result()
        assert frozen.face.id in backlog(outbox)
        assert outbox.ledger().result().closes
