from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from buckets import seaweed
from chains import Chain, chain, eventually, facerelay
from facerelay.edge import reading, schema

COMBINATIONS = [
    {},
    {"edge_broker": "mosquitto", "cloud_broker": "mosquitto"},
    {"edge_broker": "mosquitto", "cloud_broker": "embedded", "link": "bridge"},
]


def hashes(outbox: Path) -> dict[str, str]:
    """Return id and hash of all faces in an outbox; none while it is not made yet."""
    try:
        with closing(reading.open_books(outbox)) as db:
            return dict(db.execute("SELECT id, sha256 FROM faces"))
    except schema.OutboxError:
        return {}


def all_there_once_and_equal(c: Chain, count: int) -> dict[str, Any]:
    books = c.books()
    door = books["cameras"]["home/door"]
    assert (door["captured"], door["stored"], door["waiting"]) == (count, count, 0)
    assert (books["lost"], books["code"]) == (0, 0)
    wanted = hashes(c.edge.outbox.path)
    stored = {path.name.split("-", 1)[1].rsplit("-", 1)[0]: path for path in c.objects()}
    assert len(c.objects()) == len(stored) == count
    for face_id, sha256 in wanted.items():
        assert hashlib.sha256(stored[face_id].read_bytes()).hexdigest() == sha256
    return books


@pytest.mark.timeout(240)
@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda c: "-".join(c.values()) or "embedded")
def test_kill_9_of_each_part_in_turn_its_state_wiped_loses_nothing(
    tmp_path: Path, combination: dict[str, Any]
) -> None:
    with chain(tmp_path, **combination) as c:
        feeder = c.feed(600, rate=60)
        for name in ("forward", "edge-broker", "store", "cloud-broker"):
            if name in c.parts:
                time.sleep(1.5)
                c[name].kill()
                time.sleep(0.3)
                c[name].restart(wipe=True)
        c.finished(feeder, timeout=150)
        all_there_once_and_equal(c, 600)


def test_kill_9_of_the_store_in_the_middle_of_a_put(tmp_path: Path) -> None:
    with seaweed() as weed:
        settings = {"url": "s3://faces", "endpoint": weed.endpoint, "access_key": weed.access_key,
                    "secret_key": weed.secret_key}  # fmt: skip
        with chain(tmp_path, bucket=settings) as c:
            assert weed.process is not None
            feeder = c.feed(200, rate=50)
            eventually(lambda: c.command("ls").stdout.count("faces/") > 10)
            os.kill(weed.process.pid, signal.SIGSTOP)
            time.sleep(1)
            c["store"].kill()
            os.kill(weed.process.pid, signal.SIGCONT)
            c["store"].restart()
            c.finished(feeder, timeout=120)
            books = c.books()
            door = books["cameras"]["home/door"]
            assert (door["stored"], books["lost"], books["code"]) == (200, 0, 0), (
                door,
                c["store"].text(),
                c["feeder"].text(),
            )
            assert c.command("ls").stdout.count("faces/") == 200


def test_kill_9_of_capture_keeps_what_was_in_the_outbox(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        feeder = c.feed(10_000, rate=200)
        eventually(lambda: len(c.objects()) > 100)
        feeder.kill()
        captured = len(hashes(c.edge.outbox.path))
        c.finished(c.feed(0, rate=1))
        all_there_once_and_equal(c, captured)


def test_a_copied_outbox_sends_the_same_faces_once_and_keeps_books_of_its_own(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        c["store"].kill()
        feeder = c.feed(20, rate=100)
        eventually(lambda: len(hashes(c.edge.outbox.path)) == 20)
        feeder.kill()
        original = c.edge.outbox.path
        shutil.copy(original, tmp_path / "original.db")
        shutil.copy(f"{original}-wal", tmp_path / "original.db-wal")
        shutil.copy(original.with_name("outbox.db.lock"), tmp_path / "original.db.lock")
        c["store"].restart()
        c.finished(c.feed(5, rate=100))
        first = c.books()
        for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
            original.with_name(name).unlink(missing_ok=True)
        shutil.move(tmp_path / "original.db", original)
        shutil.move(tmp_path / "original.db-wal", tmp_path / "outbox.db-wal")
        c.finished(c.feed(7, rate=100))
        second = c.books()
        assert first["cameras"]["home/door"]["captured"] == 25
        assert second["cameras"]["home/door"]["captured"] == 7
        assert (first["lost"], second["lost"]) == (0, 0)
        assert len(c.objects()) == 32


def test_a_second_capture_on_the_same_outbox_is_refused(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        c.feed(1000, rate=10)
        eventually(lambda: len(c.objects()) > 2)
        done = facerelay(
            "capture",
            "-c",
            str(tmp_path / "edge.toml"),
            "--set",
            "camera.0.name=x",
            "--set",
            "camera.0.source=scene",
        )
        assert done.returncode == 1
        assert "one capture at a time" in done.stderr
