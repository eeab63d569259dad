"""Attacks on an edge: by whoever operates a broker that it hears, or has the key of another machine."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from besieged import Besieged, besieged
from cryptography.hazmat.primitives.serialization import Encoding
from raw import Raw

from chains import eventually
from enrolled import Stranger
from facerelay import topics
from facerelay.erasures import Erasure, Erasures
from facerelay.messages import Hello, Receipt, Receipts
from facerelay.signing import Signer


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    with besieged(tmp_path_factory.mktemp("at-the-edge")) as found:
        yield found


@pytest.fixture
def operator(chain: Besieged) -> Iterator[Raw]:
    """Whoever operates the broker that the edge hears: it can say there what it likes."""
    with Raw(chain.enrolled.edge("door").broker, "operator") as found:
        yield found


@pytest.fixture
def waiting(chain: Besieged) -> Iterator[dict[str, Any]]:
    """A face that waits for its receipt, for the store does not answer; afterwards it must be stored."""
    with chain.held("store"):
        yield chain.camera.ask("face")
    # What was said in the meantime has changed nothing: the true receipt is what counts.
    chain.good()


def receipt_of(face: dict[str, Any], outcome: str = "stored") -> Receipts:
    return Receipts(store="main", receipts=(Receipt(id=face["id"], sha256=face["sha256"], outcome=outcome),))


def store_key(chain: Besieged) -> Signer:
    trust = chain.enrolled.folder / "trust"
    return Signer(trust / "store.pem", trust / "store.key")


def key_of(broker: Any) -> Signer:  # noqa: ANN401 - a broker's settings
    return Signer(Path(broker.cert), Path(broker.key))


def hello_of(signer: Signer, store: str = "main") -> bytes:
    der = base64.b64encode(signer.certificate.public_bytes(Encoding.DER)).decode()
    hello = Hello(store=store, start=secrets.token_hex(8), certificate=der)
    return signer.sign_json("hello", topics.hello(store), hello.to_bytes())


def ignored(chain: Besieged, reason: str, before: int) -> None:
    eventually(lambda: chain.camera.ignored(reason) > before)


@pytest.mark.parametrize("outcome", ["stored", "erased", "expired", "refused:forged"])
def test_a_receipt_without_signature(
    chain: Besieged, operator: Raw, waiting: dict[str, Any], outcome: str
) -> None:
    before = chain.camera.ignored("not-signed")
    operator.publish(topics.receipts("door", chain.camera.outbox), receipt_of(waiting, outcome).to_bytes())
    ignored(chain, "not-signed", before)
    assert chain.camera.state(waiting["id"]) == "waiting"


def test_a_receipt_by_a_sites_key(chain: Besieged, operator: Raw, waiting: dict[str, Any]) -> None:
    thief = key_of(chain.enrolled.client("mill"))
    before = chain.camera.ignored("not-admitted")
    operator.publish(topics.hello("main"), hello_of(thief))
    ignored(chain, "not-admitted", before)
    topic = topics.receipts("door", chain.camera.outbox)
    operator.publish(topic, thief.sign_json("receipts", topic, receipt_of(waiting).to_bytes()))
    assert chain.camera.state(waiting["id"]) == "waiting"


def test_a_store_of_another_authority(chain: Besieged, operator: Raw, waiting: dict[str, Any]) -> None:
    chain.enrolled.stranger("door")
    other = Stranger(chain.enrolled.folder.parent / "stranger").client(
        "store.main", chain.enrolled.anonymous()
    )
    before = chain.camera.ignored("not-admitted")
    operator.publish(topics.hello("main"), hello_of(key_of(other)))
    ignored(chain, "not-admitted", before)
    topic = topics.receipts("door", chain.camera.outbox)
    operator.publish(topic, key_of(other).sign_json("receipts", topic, receipt_of(waiting).to_bytes()))
    assert chain.camera.state(waiting["id"]) == "waiting"


def test_a_signature_for_other_words(chain: Besieged, operator: Raw, waiting: dict[str, Any]) -> None:
    """A true signature under a receipt that was changed by one word."""
    topic = topics.receipts("door", chain.camera.outbox)
    signed = store_key(chain).sign_json("receipts", topic, receipt_of(waiting, "refused:x").to_bytes())
    before = chain.camera.ignored("bad-signature")
    operator.publish(topic, signed.replace(b"refused:x", b"stored"))
    ignored(chain, "bad-signature", before)
    assert chain.camera.state(waiting["id"]) == "waiting"


def test_a_receipt_for_another_outbox(chain: Besieged, operator: Raw, waiting: dict[str, Any]) -> None:
    elsewhere = topics.receipts("mill", "f" * 32)
    signed = store_key(chain).sign_json("receipts", elsewhere, receipt_of(waiting).to_bytes())
    before = chain.camera.ignored("bad-signature")
    operator.publish(topics.receipts("door", chain.camera.outbox), signed)
    ignored(chain, "bad-signature", before)
    assert chain.camera.state(waiting["id"]) == "waiting"


def test_a_receipt_for_other_bytes(chain: Besieged, operator: Raw, waiting: dict[str, Any]) -> None:
    """Even a store's own word counts for the bytes alone that it names."""
    topic = topics.receipts("door", chain.camera.outbox)
    other = receipt_of(waiting | {"sha256": "0" * 64})
    logged = chain.log("pump").count("no face of this outbox with that hash")
    operator.publish(topic, store_key(chain).sign_json("receipts", topic, other.to_bytes()))
    eventually(lambda: chain.log("pump").count("no face of this outbox with that hash") > logged)
    assert chain.camera.state(waiting["id"]) == "waiting"


def test_an_old_receipt_again(chain: Besieged, operator: Raw) -> None:
    """A true receipt of a face that was erased since, or of one that is stored: nothing changes."""
    topic = topics.receipts("door", chain.camera.outbox)
    with Raw(chain.enrolled.edge("door").broker, "recorder") as recorder:
        recorder.subscribe(topic)
        stored = chain.good()
        [heard] = [payload for _, payload in recorder.heard(0.5) if stored["id"].encode() in payload]
    for _ in range(20):
        operator.publish(topic, heard)
    chain.good()
    assert chain.camera.state(stored["id"]) == "stored"


def test_a_forged_erasure(chain: Besieged, operator: Raw, waiting: dict[str, Any]) -> None:
    """Nobody but a store can have an edge delete what waits there."""
    topic = topics.receipts("door", chain.camera.outbox)
    erasures = Erasures(until="0" * 16, rules=(Erasure(ids=(waiting["id"],)),))
    before = chain.camera.ignored("not-signed")
    operator.publish(topic, Receipts(store="main", receipts=(), erasures=erasures).to_bytes())
    ignored(chain, "not-signed", before)
    assert chain.camera.state(waiting["id"]) == "waiting"


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x80\x04N.", b"{" * 100_000, b'{"v":1,"receipts":' + b"9" * 50_000, b"\xff" * 1000,
     b'{"key":"0123456789abcdef","signature":"' + b"A" * 86 + b'"}'],
    ids=["empty", "pickle", "deep", "number", "noise", "signature alone"],
)  # fmt: skip
def test_rubbish_as_a_receipt(chain: Besieged, operator: Raw, payload: bytes) -> None:
    before = sum(chain.camera.ask("ignored")["ignored"].values()), chain.log("pump").count("ignored")
    operator.publish(topics.receipts("door", chain.camera.outbox), payload)
    chain.good()
    said = sum(chain.camera.ask("ignored")["ignored"].values()), chain.log("pump").count("ignored")
    assert said > before or before[1] > 0


def test_a_flood_of_stores(chain: Besieged, operator: Raw) -> None:
    memory = resident(chain.camera.process.pid)
    for number in range(3000):
        name = f"store{number}"
        operator.publish(topics.hello(name), Hello(store=name, start="0" * 16).to_bytes(), qos=0)
    chain.good()
    assert resident(chain.camera.process.pid) - memory < 20_000_000


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_link_that_is_said_to_be_down(chain: Besieged, operator: Raw) -> None:
    """Who can publish at the edge's own broker can hold its faces up, and no more."""
    operator.publish(topics.link("door"), topics.DOWN, retain=True)
    taken = chain.camera.ask("face")
    operator.publish(topics.link("door"), topics.UP, retain=True)
    eventually(lambda: chain.camera.state(taken["id"]) == "stored", timeout=40)
    chain.good()


def test_a_malformed_broker(chain: Besieged) -> None:
    """A connection to the edge's broker that sends rubbish is ended; others go on."""
    for rubbish in (b"\x00" * 64, b"GET / HTTP/1.1\r\n\r\n", secrets.token_bytes(4096)):
        with suppress(Exception), Raw(chain.enrolled.edge("door").broker, hello=rubbish) as broken:
            broken.heard(0.1)
    chain.good()


def test_zz_nobody_fell(chain: Besieged) -> None:
    for side in ("edge", "pump", "cloud"):
        assert "Traceback" not in chain.log(side)
        assert "a fault of" not in chain.log(side)
