from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from facerelay import face, topics
from facerelay.edge import reading
from facerelay.edge.outbox import Outbox

VERSIONS = sorted((Path(__file__).parent / "golden").glob("v*"))


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


def test_faces_of_every_version_are_read(golden: Path) -> None:
    for name, expected in json.loads((golden / "faces.json").read_text()).items():
        frozen = face.parse((golden / name).read_bytes(), face.Limits())
        assert face.describe(frozen.face) | {"key": frozen.key, "sha256": frozen.sha256} == expected


def test_messages_of_every_version_are_read(golden: Path) -> None:
    receipts = topics.Receipts.from_bytes((golden / "receipts.json").read_bytes())
    assert [r.outcome for r in receipts.receipts] == [
        "stored",
        "refused:truncated",
        "erased",
        "expired",
        "held",
    ]
    assert topics.Hello.from_bytes((golden / "hello.json").read_bytes()).start == "c" * 16
    account = topics.Ledger.from_bytes((golden / "ledger.json").read_bytes()).cameras["golden/door"]
    assert (account.captured, account.stored, account.waiting, account.frames) == (6, 1, 2, 100)
    assert account.closes


def test_an_outbox_of_every_version_is_opened_its_faces_sent_its_books_kept(
    golden: Path, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    shutil.copy(golden / "outbox.db", path)
    with closing(reading.open_books(path)) as db:
        books = reading.ledger(db)
        assert books == topics.Ledger.from_bytes((golden / "ledger.json").read_bytes())
    with Outbox(path, max_bytes=10**9, max_message=10**6, keep_days=100_000) as outbox:
        waiting = outbox.backlog(0, 10).result()
        assert [face.parse(w.data, face.Limits()).face.seq for w in waiting] == [1, 6]
        assert outbox.number() == 1, "a copy begins books of its own"
