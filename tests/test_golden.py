from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from facerelay import face, messages, sealing
from facerelay.cloud.unseal import Unsealer
from facerelay.devices import Devices
from facerelay.edge import reading
from facerelay.edge.outbox import Outbox
from facerelay.edge.voices import Voices

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
    receipts = messages.Receipts.from_bytes((golden / "receipts.json").read_bytes())
    assert [r.outcome for r in receipts.receipts] == [
        "stored",
        "refused:truncated",
        "erased",
        "expired",
        "held",
    ]
    assert messages.Hello.from_bytes((golden / "hello.json").read_bytes()).start == "c" * 16
    account = messages.Ledger.from_bytes((golden / "ledger.json").read_bytes()).cameras["golden/door"]
    assert (account.captured, account.stored, account.waiting, account.frames) == (6, 1, 2, 100)
    assert account.closes


def test_signed_messages_of_every_version_are_read_and_believed(golden: Path) -> None:
    topic = "receipts/golden/" + "a" * 32
    hello, receipts, erasures = (
        (golden / f"{name}-signed.json").read_bytes() for name in ("hello", "receipts", "erasures")
    )
    plain = messages.Receipts.from_bytes((golden / "receipts.json").read_bytes())
    for authority in (golden / "authority.pem", None):
        voices = Voices(authority)
        assert voices.hello("stores/main", hello).start == "c" * 16
        read = voices.receipts(topic, receipts)
        assert read is not None
        assert read.receipts == plain.receipts
        told = voices.receipts(topic, erasures)
        assert told is not None
        assert told.erasures is not None
        assert [rule.camera for rule in told.erasures.rules] == [None, "door"]
        assert (told.erasures.since, told.erasures.until, told.receipts) == ("", "d" * 16, ())


def test_sealed_faces_of_every_version_are_opened_and_believed(golden: Path) -> None:
    folder = golden / "sealed"
    unsealer = Unsealer(
        face.Limits(),
        opener=sealing.Opener(folder / "reader.key"),
        seals=sealing.Seals(Devices(folder / "authority.pem", folder / "devices")),
    )
    look = asyncio.run(unsealer.look((folder / "face.png").read_bytes()))
    assert look.data == (folder / "inside.jpg").read_bytes()
    assert look.seal is not None
    assert look.seal.told() == {"opened": True, "signed_by": "site golden", "revoked": False}


def test_an_outbox_of_every_version_is_opened_its_faces_sent_its_books_kept(
    golden: Path, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    shutil.copy(golden / "outbox.db", path)
    with closing(reading.open_books(path)) as db:
        books = reading.ledger(db)
        assert books == messages.Ledger.from_bytes((golden / "ledger.json").read_bytes())
    with Outbox(path, max_bytes=10**9, max_message=10**6, keep_days=100_000) as outbox:
        waiting = outbox.backlog(0, 10).result()
        assert [face.parse(w.data, face.Limits()).face.seq for w in waiting] == [1, 6]
        assert outbox.number() == 1, "a copy begins books of its own"
