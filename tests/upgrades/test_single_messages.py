"""Single messages between two versions: at the wire, and by the first version's own parsers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from versions import TODAY, Version, first_version, pair

from conftest import Make
from facerelay import topics
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.tombstones import Tombstone, bury, now
from facerelay.commands.running import connector
from facerelay.config import Broker, Bucket, Config
from facerelay.edge import reading
from facerelay.face import Thinned
from facerelay.messages import Account, Hello, Ledger, LinkHealth, Receipts
from facerelay.mqtt import Session
from waiting import until

OWNER = "a" * 32
PARSE = """
import base64, json, sys
from facerelay import face, topics
for kind, payload in json.load(sys.stdin):
    data = base64.b64decode(payload)
    if kind == "face":
        sealed = face.unseal(data, face.Limits())
        print(json.dumps({"id": sealed.face.id, "key": sealed.key, "sha256": sealed.sha256}))
    else:
        print(getattr(topics, kind).from_bytes(data).model_dump_json())
"""


@pytest.fixture(scope="module")
def first() -> Version:
    return first_version()


def listening(url: str, topic: str, scenario: Callable[[Session, list[Any]], Any]) -> None:
    """Run a scenario beside a client that hears a topic, once a store is there."""

    async def run() -> None:
        heard: list[Any] = []
        hello = asyncio.Event()
        connect = connector(Config(broker=Broker(url=url)))
        filters = [(topic, 1), (topics.HELLOS, 1)]
        async with (
            connect(client_id="somebody", subscribe=filters, clean=True, window=64) as session,
            asyncio.TaskGroup() as tasks,
        ):

            async def listen() -> None:
                async for message in session:
                    if message.topic.startswith("stores/"):
                        hello.set()
                    else:
                        heard.append(json.loads(message.payload))
                    message.ack()

            ear = tasks.create_task(listen())
            await hello.wait()
            await scenario(session, heard)
            ear.cancel()

    asyncio.run(run())


def outcomes(heard: list[Any]) -> dict[str, str]:
    return {receipt["id"]: receipt["outcome"] for batch in heard for receipt in batch["receipts"]}


def test_golden_faces_and_books_of_the_first_version_at_todays_store(first: Version, tmp_path: Path) -> None:
    known = json.loads((first.golden / "faces.json").read_bytes())
    books = (first.golden / "ledger.json").read_bytes()
    outbox = Ledger.from_bytes(books).outbox

    with pair(tmp_path, edge=first, cloud=TODAY, brokers="mosquitto") as both:

        async def scenario(session: Session, heard: list[Any]) -> None:
            for name in known:
                await session.publish("faces/golden/door", (first.golden / name).read_bytes(), qos=1)
            await session.publish(topics.ledger("golden", outbox), books, qos=1, retain=True)
            await until(lambda: len(outcomes(heard)) == 3)
            assert outcomes(heard) == {face["id"]: "stored" for face in known.values()}
            for name, face in known.items():
                assert (tmp_path / "bucket" / face["key"]).read_bytes() == (first.golden / name).read_bytes()
            await until(lambda: both.objects("ledger"))
            assert both.reported() == [json.loads(books)]

        listening(both.urls["cloud"], f"receipts/golden/{OWNER}", scenario)


def test_the_golden_outbox_goes_out_by_todays_edge(first: Version, tmp_path: Path) -> None:
    shutil.copy(first.golden / "outbox.db", tmp_path / "outbox.db")
    with pair(tmp_path, edge=TODAY, cloud=TODAY, brokers="mosquitto", site="golden") as both:
        both.finished(both.feed(3, 50))
        with closing(reading.open_books(tmp_path / "outbox.db")) as db:
            inherited = reading.ledger(db, reading.inherited(db)[0])
        account = inherited.cameras["golden/door"]
        assert (account.captured, account.stored, account.waiting, account.closes) == (6, 3, 0, True)
        assert len(both.objects()) == 5


def test_what_is_said_today_is_read_by_the_first_version(first: Version, make_face: Make) -> None:
    golden = TODAY.golden
    account = Account(frames=9, captured=2, stored=1, waiting=1, gaps=1, dark_since=datetime.now(UTC))
    books = Ledger(
        outbox=OWNER, cameras={"home/door": account}, part=0, parts=2, link=LinkHealth(time=datetime.now(UTC))
    )
    faces = [
        make_face().data,
        make_face(thinned=Thinned(quality=50, side=300)).data,
        (golden / "sealed" / "face.png").read_bytes(),
    ]
    said = [
        ("Receipts", (golden / "receipts-signed.json").read_bytes()),
        ("Receipts", (golden / "erasures-signed.json").read_bytes()),
        ("Hello", (golden / "hello-signed.json").read_bytes()),
        ("Hello", Hello(store="main", start="c" * 16).to_bytes()),
        ("Ledger", books.to_bytes()),
        *(("face", data) for data in faces),
    ]
    told = json.dumps([(kind, base64.b64encode(data).decode()) for kind, data in said])
    done = first.run("-c", PARSE, told=told)
    assert done.returncode == 0, done.stderr
    read = [json.loads(line) for line in done.stdout.splitlines()]
    signed = Receipts.from_bytes(said[0][1])
    assert [r["outcome"] for r in read[0]["receipts"]] == [r.outcome for r in signed.receipts]
    assert read[1]["receipts"] == []
    assert [hello["start"] for hello in read[2:4]] == ["c" * 16, "c" * 16]
    assert (read[4]["outbox"], read[4]["cameras"]["home/door"]["stored"]) == (OWNER, 1)
    assert [found["sha256"] for found in read[5:]] == [hashlib.sha256(data).hexdigest() for data in faces]


def test_sealed_and_later_faces_at_the_first_versions_store(
    first: Version, tmp_path: Path, make_face: Make
) -> None:
    """A sealed one is a face as any other; one of a later version is set aside, and not answered.

    What today's program erases does not come back by the first version's store either.
    """
    sealed = (TODAY.golden / "sealed" / "face.png").read_bytes()
    later = make_face(site="golden").data.replace(b'"v":1,', b'"v":2,')
    gone = make_face(site="golden")

    with pair(tmp_path, edge=TODAY, cloud=first, brokers="mosquitto") as both:

        async def scenario(session: Session, heard: list[Any]) -> None:
            await bury(
                open_bucket(Bucket(url=f"file://{tmp_path}/bucket")),
                Tombstone(made=now(), ids=(gone.face.id,)),
            )
            for data in (later, gone.data, sealed):
                await session.publish("faces/golden/door", data, qos=1)
            await until(lambda: len(outcomes(heard)) == 2)
            assert set(outcomes(heard).values()) == {"stored", "erased"}
            assert outcomes(heard)[gone.face.id] == "erased"
            (kept,) = both.objects()
            assert kept.read_bytes() == sealed
            (note,) = (p for p in both.objects("quarantine") if p.suffix == ".json")
            assert json.loads(note.read_bytes())["reason"] == "malformed"

        listening(both.urls["cloud"], "receipts/golden/#", scenario)
