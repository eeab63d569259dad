"""What today's edge and store make of messages of a version to come: nothing is lost, and it is said."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
from conftest import Make
from facerelay import face, topics
from facerelay.cloud.store import serve_store
from facerelay.commands.resend import resend
from facerelay.commands.running import connector
from facerelay.config import Broker, Bucket, Config
from facerelay.edge import again
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.parked import Asked
from facerelay.edge.relaying import relaying
from facerelay.edge.schema import OutboxError
from facerelay.face import FaceError, Frozen, Limits
from facerelay.messages import Account, Hello, Ledger, Receipt, Receipts, WireError
from facerelay.mqtt import Session
from waiting import running, until


@pytest.fixture
def broker() -> Iterator[Broker]:
    with servers.mosquitto() as server:
        yield Broker(url=server.url)


@pytest.fixture
def config(tmp_path: Path, broker: Broker) -> Config:
    """Return the settings of an edge and a cloud on one broker."""
    return Config(
        site=tmp_path.name.replace("_", "-")[:60].lower(), broker=broker, direct=True,
        bucket=Bucket(url=f"file://{tmp_path}/bucket"), outbox={"path": tmp_path / "o.db", "overdue_s": 2},
    )  # fmt: skip


def later(data: bytes) -> bytes:
    """Return a picture as a later version would have it: its comment tells that, and has grown."""
    assert data.count(b'"v":1,') == 1
    return data.replace(b'"v":1,"site"', b'"v":2,"site"').replace(b'"box":[', b'"bix":[')


def put(outbox: Outbox, make: Make, site: str, *, newer: bool = False) -> Frozen:
    frozen = make(outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=site)
    if newer:
        data = later(frozen.data)
        frozen = Frozen(frozen.face, data, hashlib.sha256(data).hexdigest(), "jpg")
    outbox.put(frozen, chosen=time.time()).result()
    return frozen


def account(outbox: Outbox) -> Account:
    (found,) = outbox.ledger().result().cameras.values()
    assert found.closes
    return found


def parked(outbox: Outbox, reason: str) -> int:
    return account(outbox).reasons.get(reason, 0)


def test_a_later_face_is_known_by_what_every_version_has(make_face: Make) -> None:
    frozen = make_face()
    with pytest.raises(FaceError, match="a face of version 2, and this program reads 1") as raised:
        face.parse(later(frozen.data), Limits())
    assert raised.value.reason == "version"
    owner = raised.value.face
    assert owner is not None
    for name in ("id", "site", "camera", "outbox", "time"):
        assert getattr(owner, name) == getattr(frozen.face, name)
    for wrong in (b'"v":0,', b'"v":"", '[:6], b'"v":-1'):
        with pytest.raises(FaceError) as raised:
            face.parse(frozen.data.replace(b'"v":1,', wrong[:6].ljust(6)), Limits())
        assert raised.value.reason == "malformed"


@pytest.mark.parametrize("kind", [Receipts, Hello, Ledger])
def test_a_later_message_is_refused_in_words_and_a_new_field_is_passed_over(
    kind: type[Receipts | Hello | Ledger],
) -> None:
    values = {
        "v": 1, "store": "main", "start": "c" * 16, "outbox": "a" * 32, "cameras": {}, "receipts": [],
        "weather": {"rain": True},
    }  # fmt: skip
    kind.from_bytes(json.dumps(values).encode())
    with pytest.raises(
        WireError, match=f"{kind.__name__}: of another version than 1, which this program reads"
    ):
        kind.from_bytes(json.dumps(values | {"v": 2}).encode())


def test_a_store_answers_a_later_face_and_its_edge_keeps_it(
    config: Config, tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def scenario() -> None:
        with open_outbox(config) as outbox:
            async with (
                running(serve_store(config, connector(config))),
                relaying(config, outbox, connector(config)),
            ):
                newer = put(outbox, make_face, config.site, newer=True)
                older = put(outbox, make_face, config.site)
                await until(lambda: not outbox.waiting().result())
                found = account(outbox)
                assert (found.captured, found.stored, found.refused) == (2, 1, 1)
                assert found.reasons == {"version": 1}
                assert (tmp_path / "bucket" / older.key).exists()
                (kept,) = outbox.resend(0, 9).result()
                assert (kept.sha256, kept.size) == (newer.sha256, len(newer.data))

    asyncio.run(scenario())
    assert "upgrade it" in caplog.text


async def say(session: Session, outbox: Outbox, frozen: Frozen, outcome: str, *, v: int = 1) -> None:
    """Say a receipt, as a store of another version would."""
    receipt = Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome=outcome)
    batch = json.loads(Receipts(store="other", receipts=(receipt,)).to_bytes()) | {"v": v}
    await session.publish(topics.receipts(frozen.face.site, outbox.id), json.dumps(batch).encode(), qos=1)


def test_what_an_older_store_refused_goes_by_itself_to_one_that_reads_it(
    config: Config, tmp_path: Path, make_face: Make
) -> None:
    async def scenario() -> None:
        with open_outbox(config) as outbox:
            async with (
                relaying(config, outbox, connector(config)) as relay,
                connector(config)(client_id="older", subscribe=[], clean=True, window=8) as older,
            ):
                await until(lambda: older.connected and relay.link)
                faces = [put(outbox, make_face, config.site) for _ in range(70)]
                for frozen in faces[:69]:
                    await say(older, outbox, frozen, "refused:version")
                await say(older, outbox, faces[69], "refused:conflict")
                await until(lambda: parked(outbox, "version") == 69 and parked(outbox, "conflict") == 1)
                await older.publish(
                    topics.hello("older"), b'{"v": 2, "store": "older", "start": "ab12ab12"}', qos=1
                )
                async with running(serve_store(config, connector(config))):
                    await until(lambda: account(outbox).stored == 69)
                found = account(outbox)
                assert (found.captured, found.refused, found.reasons) == (70, 1, {"conflict": 1})
                assert all((tmp_path / "bucket" / frozen.key).exists() for frozen in faces[:69])

    asyncio.run(scenario())


def test_receipts_of_a_later_version_are_ignored_and_the_face_waits(
    config: Config, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def scenario() -> None:
        with open_outbox(config) as outbox:
            async with (
                relaying(config, outbox, connector(config)) as relay,
                connector(config)(client_id="newer", subscribe=[], clean=True, window=8) as newer,
            ):
                await until(lambda: newer.connected and relay.link)
                frozen = put(outbox, make_face, config.site)
                await say(newer, outbox, frozen, "stored", v=2)
                await until(lambda: "of another version than 1" in caplog.text)
                assert account(outbox).waiting == 1
                await say(newer, outbox, frozen, "stored")
                await until(lambda: account(outbox).stored == 1)

    asyncio.run(scenario())


def test_a_ledger_of_a_later_version_is_not_kept_and_said(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with (
            running(serve_store(config, connector(config))),
            connector(config)(client_id="newer", subscribe=[], clean=True, window=8) as newer,
        ):
            await until(lambda: newer.connected)
            books = json.loads(Ledger(outbox="ab" * 16, cameras={}).to_bytes())
            topic = topics.ledger(config.site, "ab" * 16)
            kept = tmp_path / "bucket" / f"ledger/site={config.site}" / f"{'ab' * 16}.json"
            while not kept.exists():  # as an edge says it again and again
                await newer.publish(topic, json.dumps(books | {"lost": 1}).encode(), qos=1)
                await asyncio.sleep(0.2)
            await newer.publish(topic, json.dumps(books | {"v": 2, "lost": 2}).encode(), qos=1)
            await until(lambda: "not a ledger that can be read" in caplog.text)
        assert json.loads(kept.read_bytes())["lost"] == 1

    asyncio.run(scenario())


# an operator's word


def refuse(outbox: Outbox, make: Make, site: str, *reasons: str) -> list[Frozen]:
    faces = [put(outbox, make, site) for _ in reasons]
    outbox.answer(
        [
            Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome=f"refused:{reason}")
            for frozen, reason in zip(faces, reasons, strict=True)
        ]
    ).result()
    return faces


def test_resend_has_parked_faces_wait_in_an_outbox_at_rest(
    config: Config, make_face: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_outbox(config) as outbox:
        refuse(outbox, make_face, config.site, "bucket", "bucket", "truncated", "too-large")
    assert asyncio.run(resend(config, "bucket", as_json=False)) == 0
    assert capsys.readouterr().out == "2 parked faces go again: 2 bucket\n"
    assert asyncio.run(resend(config, "bucket", as_json=False)) == 0
    assert "No parked face with the reason bucket" in capsys.readouterr().out
    assert asyncio.run(resend(config, None, as_json=True)) == 0
    assert json.loads(capsys.readouterr().out) == {"again": 2, "reasons": {"too-large": 1, "truncated": 1}}
    with open_outbox(config) as outbox:
        assert (account(outbox).waiting, account(outbox).refused, account(outbox).reasons) == (4, 0, {})
        assert len(outbox.backlog(0, 9).result()) == 4


def test_resend_asks_whoever_holds_the_outbox_and_all_arrive(
    config: Config, tmp_path: Path, make_face: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        with open_outbox(config) as outbox:
            faces = refuse(outbox, make_face, config.site, *["unanswered"] * 150, "conflict")
            async with (
                relaying(config, outbox, connector(config)),
                running(serve_store(config, connector(config))),
            ):
                put(outbox, make_face, config.site)
                await until(lambda: account(outbox).stored == 1)
                await resend(config, "unanswered", as_json=False)
                await until(lambda: account(outbox).stored == 151)
            found = account(outbox)
            assert (found.captured, found.refused, found.reasons) == (152, 1, {"conflict": 1})
            assert all((tmp_path / "bucket" / frozen.key).exists() for frozen in faces[:150])

    asyncio.run(scenario())
    assert "150 parked faces go again: 150 unanswered" in capsys.readouterr().out


def test_resend_says_so_where_nobody_hears_and_leaves_no_word(
    config: Config, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerelay.commands.resend._HEARD_S", 0.3)
    with open_outbox(config) as outbox:
        refuse(outbox, make_face, config.site, "bucket")
        with pytest.raises(OutboxError, match="did not answer in 0 s: end capture"):
            asyncio.run(resend(config, None, as_json=False))
    assert not config.outbox.path.with_name("o.db.resend").exists()


def test_a_picture_that_is_gone_stays_parked(config: Config, make_face: Make) -> None:
    with open_outbox(config) as outbox:
        refuse(outbox, make_face, config.site, "bucket", "bucket")
        outbox.clear_old(time.time() + 1, 1).result()
        assert asyncio.run(again.resend(outbox, Asked())) == 1
        assert (account(outbox).waiting, account(outbox).refused) == (1, 1)
        assert len(outbox.backlog(0, 9).result()) == 1
