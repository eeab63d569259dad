from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

import days
from conftest import Make
from facerelay.cloud import audit as auditing
from facerelay.cloud import erase as erasing
from facerelay.cloud import keys
from facerelay.cloud.audit import Wanted
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.contract import Bucket
from facerelay.config import Bucket as Settings
from facerelay.edge.outbox import Outbox
from terminal import terminal

FACERELAY = [sys.executable, "-m", "facerelay"]
COUNT = 70


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    made = open_bucket(Settings(url=f"file://{tmp_path}/bucket"))
    asyncio.run(days.put_faces(made, COUNT, cameras=("home/door",)))
    return made


def _keys(tmp_path: Path) -> list[str]:
    return [str(p.relative_to(tmp_path / "bucket")) for p in (tmp_path / "bucket").rglob("*.jpg")]


def _flags(tmp_path: Path) -> list[str]:
    return ["--set", f"bucket.url=file://{tmp_path}/bucket", "--set", f"outbox.path={tmp_path}/outbox.db"]


def test_an_erasure_tells_how_far_it_is(bucket: Bucket) -> None:
    told: list[tuple[str, float, float | None]] = []
    done = asyncio.run(
        erasing.erase(bucket, site="home", longest_put=0, watch=lambda *step: told.append((*step, None)[:3]))
    )
    assert len(done.deleted) == COUNT
    assert max(n for step, n, _ in told if step == "looking") == COUNT
    erased = [(n, total) for step, n, total in told if step == "erasing"]
    assert erased == [(0, COUNT), (32, COUNT), (64, COUNT)]


def test_an_audit_tells_how_far_it_is(bucket: Bucket, tmp_path: Path) -> None:
    facts = [(keys.parse(key), key) for key in _keys(tmp_path)]
    wanted = [Wanted(fact.id, "0" * 64, key) for fact, key in facts if fact]
    told: list[tuple[str, float, float | None]] = []
    asyncio.run(auditing.audit(bucket, wanted, watch=lambda *step: told.append((*step, None)[:3])))
    assert told == [("reading faces", n, COUNT) for n in (32, 64, COUNT)]


def test_a_bar_is_seen_at_a_terminal_and_the_output_stays_clean(bucket: Bucket, tmp_path: Path) -> None:
    assert bucket.url
    out, names = tmp_path / "out", _keys(tmp_path)
    with terminal(
        [*FACERELAY, "get", *names, "-o", str(tmp_path / "got"), *_flags(tmp_path)], stdout=out
    ) as seen:
        assert seen.ended() == 0
    assert "fetching" in seen.seen
    assert f"of {COUNT}" in seen.seen
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == COUNT


@pytest.mark.parametrize(
    ("words", "kind", "shown"),
    [
        ([], "xterm", True),
        (["--quiet"], "xterm", False),
        ([], "dumb", False),
        (["--log", "json"], "xterm", False),
    ],
    ids=["terminal", "quiet", "dumb", "machines"],
)
def test_where_nobody_looks_there_is_no_bar(
    bucket: Bucket, tmp_path: Path, words: list[str], kind: str, *, shown: bool
) -> None:
    assert bucket.url
    command = [*FACERELAY, *words, "erase", "--yes", "--wait", "0", "--site", "home", *_flags(tmp_path)]
    with terminal(command, kind=kind, stdout=tmp_path / "out") as seen:
        assert seen.ended() == 0
    assert ("erasing" in seen.seen) == shown
    assert json.loads((tmp_path / "out").read_text())["deleted"] == COUNT


def test_an_audit_shows_its_bar(tmp_path: Path, make_face: Make) -> None:
    (tmp_path / "bucket").mkdir()
    with Outbox(tmp_path / "outbox.db", max_bytes=1_000_000, max_message=100_000) as outbox:
        for _ in range(3):
            outbox.put(
                make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number()), chosen=time.time()
            ).result()
    bucket = open_bucket(Settings(url=f"file://{tmp_path}/bucket"))
    asyncio.run(days.put_faces(bucket, 5, cameras=("home/door",)))
    with terminal([*FACERELAY, "ledger", "--audit", *_flags(tmp_path)], stdout=tmp_path / "out") as seen:
        seen.ended()
    assert "reading faces" in seen.seen
    assert "5 objects read" in (tmp_path / "out").read_text()
