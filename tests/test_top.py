from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import termios
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from chains import chain, eventually, facerelay
from conftest import Make
from facerelay import topics
from facerelay.alarms import Alarm, Report, find
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import open_bucket
from facerelay.commands.observed import Observed
from facerelay.commands.screen import screen, short
from facerelay.commands.top import plain
from facerelay.config import Bucket
from facerelay.edge import listing, reading
from facerelay.edge.outbox import Outbox
from facerelay.edge.pulse import NOTE
from facerelay.messages import Account, Latency, Ledger, LinkHealth
from terminal import terminal

TOP = [sys.executable, "-m", "facerelay", "top"]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WELL = Account(
    frames=864_000, inspected=90_000, captured=1234, stored=1230, waiting=4,
    latency_ms=Latency(p50=38.2, p99=1400.0),
)  # fmt: skip


def _outbox(path: Path, make_face: Make, *, told: datetime, faces: int = 3) -> Path:
    """Make an outbox with some faces that wait, and what capture told of its link."""
    with Outbox(path, max_bytes=1_000_000, max_message=100_000) as outbox:
        for _ in range(faces):
            frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
            outbox.put(frozen, chosen=time.time()).result()
        outbox.note(NOTE, LinkHealth(time=told, window=500_000).to_bytes().decode()).result()
    return path


def _observed(cameras: dict[str, Account], **link: float) -> Observed:
    health = LinkHealth.model_validate({"time": NOW, "window": 500_000, **link})
    report = Report("home", Ledger(outbox="a" * 32, cameras=cameras, link=health), heard=NOW)
    return Observed(
        time=NOW, place="s3://faces", local=False, reports=(report,), alarms=tuple(find([report], now=NOW))
    )


def _drawn(seen: Observed, width: int = 80, height: int | None = None) -> list[str]:
    console = Console(width=width, height=height, highlight=False, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(seen, width=width, height=height))
    return captured.get().splitlines()


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_what_is_well_is_said_in_a_sentence() -> None:
    lines = _drawn(_observed({"home/door": WELL}, round_trip_s=0.04))
    assert lines[1] == "Nothing is lost, late or dark."
    header, row = lines[2].split(), lines[3].split()
    assert header == ["camera", "seen", "insp.", "capt.", "wait", "stored", "drop", "recv.", "p50/p99", "ms"]
    assert row == ["home/door", "864k", "90000", "1234", "4", "1230", "0", "99.7%", "38/1400"]
    assert all(len(line) <= 80 for line in lines)


def test_what_is_wrong_is_said_in_words_and_the_camera_comes_first() -> None:
    ill = WELL.model_copy(update={"dark_since": NOW - timedelta(minutes=9)})
    lines = _drawn(_observed({"home/door": WELL, "home/yard": ill}))
    assert lines[1] == "Nothing is lost; nothing is late; home/yard is dark."
    assert lines[3].startswith("home/yard")
    [alarm] = _observed({"home/yard": ill}).alarms
    assert f"!! {alarm.words}" in _flat("\n".join(lines))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 12), (132, 50)])
def test_it_goes_into_the_terminal_however_many_there_are(width: int, height: int) -> None:
    dark = WELL.model_copy(update={"dark_since": NOW - timedelta(minutes=9)})
    cameras = {f"home/cam-{n:03}": dark if n < 40 else WELL for n in range(300)}
    lines = _drawn(_observed(cameras, oldest_s=900.0, silent_s=300.0), width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    said = "\n".join(lines)
    assert "more cameras" in said
    assert "more alarms" in said
    assert "home/cam-000" in said


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (99_999, "99999"),
        (100_000, "100k"),
        (864_000, "864k"),
        (12_345_678, "12.3M"),
        (2e12, "2e+12"),
    ],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text
    assert len(text) <= 5


def test_as_json_it_says_the_same() -> None:
    ill = WELL.model_copy(update={"dropped": 2, "captured": 1236, "reasons": {"evicted": 2}})
    values = json.loads(json.dumps(plain(_observed({"home/door": ill}))))
    assert values["cameras"]["home/door"]["received"] == pytest.approx(1230 / 1236)
    assert values["links"]["home/" + "a" * 32]["window"] == 500_000
    assert values["verdict"] == {
        "level": "critical",
        "words": "Faces of home/door were lost; nothing is late; nothing is dark.",
    }
    [alarm] = values["alarms"]
    assert (alarm["kind"], alarm["severity"], alarm["camera"]) == ("dropped", "critical", "door")


def test_at_a_level_without_receipts_nothing_is_said_of_received() -> None:
    sent = Account(captured=5, sent=5)
    seen = _observed({"home/door": sent})
    assert plain(seen)["cameras"]["home/door"]["received"] is None
    assert any(" sent " in line for line in _drawn(seen)[2:5])


def test_on_a_real_chain_edge_and_cloud_say_the_same(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        c.finished(c.feed(4, rate=100))
        eventually(lambda: c.objects("ledger"))
        edge = c.command("top", "--once", "--json")
        cloud = c.command("top", "--once", "--json", "--bucket", f"file://{tmp_path}/bucket")
        for done in (edge, cloud):
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout)
            door = said["cameras"]["home/door"]
            assert (door["captured"], door["stored"], door["received"]) == (4, 4, 1)
            assert said["alarms"] == []
        assert json.loads(cloud.stdout)["from"].startswith("file://")


def test_an_alarm_that_is_critical_is_exit_code_1(tmp_path: Path, make_face: Make) -> None:
    path = _outbox(tmp_path / "o.db", make_face, told=datetime.now(UTC) - timedelta(minutes=5))
    done = facerelay("top", "--once", "--set", f"outbox.path={path}")
    assert done.returncode == 1, done.stderr
    assert "Nothing is lost; home is not heard; nothing is dark." in done.stdout
    assert "!! Capture at home " in _flat(done.stdout)
    assert "3 faces waited there" in _flat(done.stdout)


def test_what_was_dropped_long_ago_is_no_alarm_any_more(tmp_path: Path, make_face: Make) -> None:
    path = tmp_path / "o.db"
    with Outbox(path, max_bytes=1_000_000, max_message=100_000) as outbox:
        frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
        outbox.put(frozen, chosen=time.time()).result()
        outbox.note(NOTE, LinkHealth(time=datetime.now(UTC)).to_bytes().decode()).result()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE faces SET state = 'dropped', reason = 'evicted', answered = ?", (time.time(),))
        db.execute("INSERT INTO counts SELECT outbox, site, camera, 'dropped', 1 FROM faces")
        db.commit()
    done = facerelay("top", "--once", "--set", f"outbox.path={path}")
    assert done.returncode == 1
    assert "1 face of home/door" in _flat(done.stdout)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE faces SET answered = answered - 90000")
        db.commit()
    done = facerelay("top", "--once", "--set", f"outbox.path={path}")
    assert done.returncode == 0
    assert "Nothing is lost, late or dark." in done.stdout
    with closing(reading.open_books(path)) as db:
        long = listing.lately(db, reading.owner(db), datetime.now(UTC) - timedelta(days=2))
    assert (long["home/door"].dropped, long["home/door"].reasons) == (1, {"evicted": 1})


def test_what_a_copied_outbox_drops_of_its_inheritance_is_told(tmp_path: Path, make_face: Make) -> None:
    path = _outbox(tmp_path / "o.db", make_face, told=datetime.now(UTC))
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    with Outbox(copy, max_bytes=3 * len(make_face().data), max_message=100_000) as outbox:
        new = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
        outbox.put(new, chosen=time.time()).result()  # an older one gives way
        own = outbox.ledger().result().cameras["home/door"]
        assert (own.captured, own.waiting, own.dropped) == (1, 1, 0)
    done = facerelay("top", "--once", "--json", "--set", f"outbox.path={copy}")
    seen = json.loads(done.stdout)
    assert [alarm["kind"] for alarm in seen["alarms"]] == ["dropped"]
    counts = seen["cameras"]["home/door"]
    assert (counts["captured"], counts["waiting"], counts["dropped"]) == (4, 3, 1)
    assert done.returncode == 1


def test_it_lives_in_a_terminal_and_leaves_it_as_it_was(tmp_path: Path, make_face: Make) -> None:
    path = _outbox(tmp_path / "o.db", make_face, told=datetime.now(UTC))
    with terminal([*TOP, "--every", "0.3", "--set", f"outbox.path={path}"]) as seen:
        seen.until("Nothing is lost, late or dark.")
        before = termios.tcgetattr(seen.screen)
        assert not before[3] & termios.ICANON
        _outbox(tmp_path / "o.db", make_face, told=datetime.now(UTC), faces=4)
        seen.until("     7 ")
        seen.type("q")
        assert seen.ended() == 0
        assert "\x1b[?1049h" in seen.seen
        assert seen.seen.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?25h\x1b[?1049l", "\x1b[?25h"))


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path, make_face: Make) -> None:
    path = _outbox(tmp_path / "o.db", make_face, told=datetime.now(UTC))
    with terminal([*TOP, "--every", "0.3", "--set", f"outbox.path={path}"], kind="dumb") as seen:
        seen.until("home/door")
        seen.until("\nNothing is lost, late or dark.\r\ncamera")
        seen.type("\x03")
        assert seen.ended() == 0
    assert "\x1b" not in seen.seen
    assert all(len(line) <= 80 for line in seen.seen.splitlines())


def test_in_a_pipe_without_unicode_it_is_text(tmp_path: Path, make_face: Make) -> None:
    path = _outbox(tmp_path / ("o" * 90 + ".db"), make_face, told=datetime.now(UTC))
    done = subprocess.run(
        [*TOP, "--once", "--set", f"outbox.path={path}"],
        capture_output=True, timeout=60, check=False, env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"\x1b" not in done.stdout


def test_what_cannot_be_read_for_now_is_said_beside_the_last_look(tmp_path: Path, make_face: Make) -> None:
    path = _outbox(tmp_path / "o.db", make_face, told=datetime.now(UTC))
    command = [*TOP, "--json", "--every", "0.2", "--set", f"outbox.path={path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "error" not in json.loads(child.stdout.readline())
        path.write_bytes(b"no outbox any more" * 100)
        while "error" not in (said := json.loads(child.stdout.readline())):
            pass
        child.terminate()
        assert child.wait(20) == 0
    assert "nothing can be read" in said["error"]
    assert said["cameras"]["home/door"]["captured"] == 3


def test_nothing_to_see_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    done = facerelay("top", "--set", "outbox.path=none", "--set", f"bucket.url=file://{tmp_path}/bucket")
    assert done.returncode == 1
    assert "set outbox.path" in done.stderr
    done = facerelay("top", "--set", f"outbox.path={tmp_path}/none")
    assert done.returncode == 2
    assert "no bucket" in done.stderr


def test_two_outboxes_of_one_camera_are_summed_in_the_cloud(tmp_path: Path) -> None:
    bucket = open_bucket(Bucket(url=f"file://{tmp_path}/bucket"))
    books = Books(bucket)
    for outbox, account in (
        ("a" * 32, WELL),
        ("b" * 32, WELL.model_copy(update={"waiting": 9, "stored": 1225})),
    ):
        ledger = Ledger(
            outbox=outbox, cameras={"home/door": account}, link=LinkHealth(time=datetime.now(UTC))
        )
        assert books.take(topics.ledger("home", outbox), ledger.to_bytes())
    asyncio.run(books.flush())
    flags = ["--set", "outbox.path=none", "--set", f"bucket.url=file://{tmp_path}/bucket"]
    said = json.loads(facerelay("top", "--once", "--json", *flags).stdout)
    assert said["cameras"]["home/door"]["captured"] == 2 * 1234
    assert said["cameras"]["home/door"]["waiting"] == 13
    assert len(said["links"]) == 2


def test_an_alarm_without_a_camera_marks_none() -> None:
    seen = _observed({"home/door": WELL})
    alarm = Alarm(
        kind="late", severity="warning", site="home", outbox="a" * 32, camera=None, since=None, words="Late."
    )
    lines = _drawn(replace(seen, alarms=(alarm,)))
    assert lines[1] == "Nothing is lost; home is late; nothing is dark."
    assert lines[-1] == "!  Late."
