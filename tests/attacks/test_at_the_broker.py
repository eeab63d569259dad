"""Attacks on the cloud's broker: by strangers on the network, and by whoever holds the key of one site."""

from __future__ import annotations

import hashlib
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from besieged import Besieged, besieged, trouble
from raw import ClosedError, Raw

from chains import eventually
from conftest import Make
from facerelay import messages, topics
from facerelay.link import wire
from facerelay.link.tls import tls_context
from facerelay.mqtt import Will


@pytest.fixture(scope="module", params=["mosquitto", "nats"])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    with besieged(tmp_path_factory.mktemp("at-the-broker"), mosquitto=request.param == "mosquitto") as found:
        yield found


@pytest.fixture
def mill(chain: Besieged) -> Iterator[Raw]:
    """The stolen device, with its own key."""
    with Raw(chain.enrolled.client("mill"), "mill-device") as found:
        assert found.code == 0
        yield found


@pytest.fixture
def witness(chain: Besieged) -> Iterator[Raw]:
    """Whoever hears all that reaches the store."""
    with Raw(chain.enrolled.client("store"), "witness") as found:
        assert all(found.subscribe("faces/+/+", topics.LEDGERS))
        yield found


def refused(chain: Besieged, mill: Raw, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Publish, and see that the broker says that it may not be."""
    before = chain.denied("publish")
    mill.publish(topic, payload, retain=retain)
    eventually(lambda: chain.denied("publish") > before)


def test_no_certificate(chain: Besieged) -> None:
    before = chain.denied("certificate")
    assert "the broker wants a certificate of us" in trouble(chain.enrolled.anonymous())
    eventually(lambda: chain.denied("certificate") > before)
    chain.good()


def test_wrong_authority(chain: Besieged) -> None:
    before = chain.denied("certificate")
    said = trouble(chain.enrolled.stranger("door"))
    assert "does not know the authority of our certificate" in said or "reset by peer" in said
    eventually(lambda: chain.denied("certificate") > before)
    chain.good()


def test_expired_certificate(chain: Besieged) -> None:
    before = chain.denied("certificate")
    assert "it has expired on" in trouble(chain.enrolled.expired("door"))
    eventually(lambda: chain.denied("certificate") > before)
    chain.good()


def test_certificate_that_is_not_valid_yet(chain: Besieged) -> None:
    assert "is the clock right?" in trouble(chain.enrolled.early("door"))
    chain.good()


def test_plain_text_where_tls_is_spoken(chain: Besieged) -> None:
    plain = chain.enrolled.client("mill").model_copy(
        update={"url": f"mqtt://localhost:{chain.enrolled.port}"}
    )
    with pytest.raises((ClosedError, TimeoutError)):
        Raw(plain)
    chain.good()


def test_old_tls(chain: Besieged) -> None:
    context = tls_context(chain.enrolled.client("mill"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("localhost", chain.enrolled.port), 10) as plain, pytest.raises(OSError):  # noqa: PT011 - either
        context.wrap_socket(plain, server_hostname="localhost")
    chain.good()


def test_a_broker_that_is_not_ours(chain: Besieged) -> None:
    stranger = chain.enrolled.stranger("door")
    assert stranger.cert is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stranger.cert, stranger.key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                context.wrap_socket(client, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"mqtts://localhost:{server.getsockname()[1]}"
        said = trouble(chain.enrolled.client("door").model_copy(update={"url": url}))
        thread.join()
    assert "not by the authority in ca" in said
    chain.good()


def test_faces_under_another_sites_name(chain: Besieged, mill: Raw, witness: Raw, make_face: Make) -> None:
    forged = make_face(site="door")
    refused(chain, mill, "faces/door/door", forged.data)
    chain.good()
    assert forged.data not in [payload for _, payload in witness.heard()]
    assert not (chain.bucket / forged.key).exists()


def test_books_of_another_site(chain: Besieged, mill: Raw, witness: Raw) -> None:
    refused(chain, mill, topics.ledger("door", "f" * 32), b'{"v":1,"forged":true}')
    chain.good()
    assert not [topic for topic, _ in witness.heard() if "f" * 32 in topic]


def test_link_state_of_another_site(chain: Besieged, mill: Raw) -> None:
    refused(chain, mill, topics.link("door"), topics.DOWN, retain=True)
    chain.good()


def test_a_forged_receipt(chain: Besieged, mill: Raw) -> None:
    assert chain.pump is not None
    with chain.held("store"):
        face = chain.pump.ask("face")
        receipt = messages.Receipt(id=face["id"], sha256=face["sha256"], outcome="stored")
        batch = messages.Receipts(store="main", receipts=(receipt,))
        refused(chain, mill, topics.receipts("door", chain.pump.outbox), batch.to_bytes())
        assert chain.pump.state(face["id"]) == "waiting"
    chain.good()


def test_a_forged_store(chain: Besieged, mill: Raw) -> None:
    hello = messages.Hello(store="main", start="0123456789abcdef")
    refused(chain, mill, topics.hello("main"), hello.to_bytes(), retain=True)
    chain.good()


OTHERS = (
    "#", "$SYS/#", "faces/#", "faces/door/+", "receipts/+/+", "receipts/door/+", "ledger/#", "+/+/+",
    "$share/g/faces/+/+",
)  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_listening_to_others(chain: Besieged, name: str) -> None:
    with Raw(chain.enrolled.client("mill"), "mill") as ear:
        ear.subscribe(name)
        chain.good()
        assert [topic for topic, _ in ear.heard(0.3) if not topic.startswith("stores/")] == []


def test_a_stores_key_publishes_no_faces(chain: Besieged, make_face: Make) -> None:
    forged = make_face(site="door")
    with Raw(chain.enrolled.client("store"), "stolen-store") as stolen:
        refused(chain, stolen, "faces/door/door", forged.data)
    chain.good()
    assert not (chain.bucket / forged.key).exists()


def test_a_gallerys_key_publishes_nothing(chain: Besieged) -> None:
    assert chain.pump is not None
    with Raw(chain.enrolled.client("gallery"), "stolen-gallery") as stolen:
        refused(chain, stolen, topics.receipts("door", chain.pump.outbox), b"{}")
    chain.good()


@pytest.mark.parametrize("victim", ["facerelay-store-main", "door-forward", "door-forward-out"])
def test_taking_over_a_client_id(chain: Besieged, victim: str) -> None:
    before = chain.log("cloud").count("not connected"), chain.log("edge").count("not connected")
    with Raw(chain.enrolled.client("mill"), client_id=victim) as thief:
        assert thief.code == 0  # a name like any other: whose it seems to be has another one
        chain.good()
        assert not thief.ended(0.2)
    assert (chain.log("cloud").count("not connected"), chain.log("edge").count("not connected")) == before


def test_a_will_that_forges(chain: Besieged) -> None:
    assert chain.pump is not None
    topic = topics.receipts("door", chain.pump.outbox)
    will = Will(topic, b'{"forged":1}', qos=1, retain=True)
    with Raw(chain.enrolled.client("gallery"), "ear") as ear:
        assert ear.subscribe("receipts/+/+") == [True]
        hello = wire.connect(client_id="dying", will=will, keepalive=60)
        with suppress(ClosedError, AssertionError), Raw(chain.enrolled.client("mill"), hello=hello) as dying:
            dying.socket.close()
        chain.good()
        assert b'{"forged":1}' not in [payload for _, payload in ear.heard(0.5)]


BROKEN = {
    "no connect": b"\x30\x05\x00\x01ax1",
    "a length without end": b"\x10\xff\xff\xff\xff\xff\xff",
    "a reserved packet": b"\xf0\x00",
    "a wildcard to publish on": b"\x30\x05\x00\x01#xx",
    "quality of service 3": b"\x36\x07\x00\x01a\x00\x01xx",
    "a topic longer than its packet": b"\x30\x04\xff\xffab",
    "nul in a topic": b"\x30\x06\x00\x03a\x00bx",
    "a topic that is not UTF-8": b"\x30\x05\x00\x02\xc3\x28x",
}


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_packets(chain: Besieged, name: str) -> None:
    with Raw(chain.enrolled.client("mill"), "broken") as broken:
        broken.send(BROKEN[name] * 3)
        broken.heard(0.1)
    chain.good()


def test_a_message_larger_than_allowed(chain: Besieged, mill: Raw, witness: Raw) -> None:
    huge = secrets.token_bytes(2_000_000)
    with suppress(TimeoutError):
        mill.publish("faces/mill/door", huge)
    chain.good()
    assert max((len(payload) for _, payload in witness.heard()), default=0) < 300_000


def test_a_flood_at_quality_2_that_is_never_finished(chain: Besieged, mill: Raw, witness: Raw) -> None:
    for number in range(1, 400):
        with suppress(ClosedError):
            mill.send(wire.publish("faces/mill/door", b"never released", qos=2, packet_id=number))
    chain.good()
    assert b"never released" not in [payload for _, payload in witness.heard(0.3)]


def test_a_flood_of_sessions(chain: Besieged) -> None:
    with ExitStack() as stack:
        for number in range(60):
            with suppress(ClosedError, AssertionError):
                stack.enter_context(Raw(chain.enrolled.client("mill"), f"mill-{number}", clean=False))
        chain.good()


def test_handshakes_that_never_end(chain: Besieged) -> None:
    with ExitStack() as stack:
        for _ in range(60):
            half = stack.enter_context(socket.create_connection(("localhost", chain.enrolled.port), 10))
            half.sendall(b"\x16\x03\x01")
        chain.good()


def test_retained_messages_are_taken_once(chain: Besieged, mill: Raw, make_face: Make) -> None:
    own = make_face(site="mill")
    before = len(chain.objects())
    for _ in range(3):
        assert mill.publish("faces/mill/door", own.data, retain=True)
    eventually((chain.bucket / own.key).exists)
    chain.good()
    assert len(chain.objects()) == before + 2
    assert hashlib.sha256((chain.bucket / own.key).read_bytes()).hexdigest() == own.sha256
    mill.publish("faces/mill/door", b"", retain=True)


OWN = (
    "$JS/API/STREAM/LIST", "$JS/API/STREAM/PURGE/$MQTT_msgs", "$SYS/REQ/SERVER/PING", "$MQTT/sub/x",
    "$MQTT/deliver/pubrel/x", "_INBOX/x",
)  # fmt: skip


@pytest.mark.parametrize("topic", OWN)
def test_the_servers_own_subjects(chain: Besieged, topic: str) -> None:
    with Raw(chain.enrolled.client("mill"), "mill") as inner:
        granted = inner.subscribe("_INBOX/#", "$JS/#", "$MQTT/#")
        assert chain.mosquitto or not any(granted)  # what Mosquitto grants, it does not deliver
    with Raw(chain.enrolled.client("mill"), "mill") as inner:
        refused(chain, inner, topic, b"{}")
    chain.good()


def test_zz_a_revoked_site(chain: Besieged) -> None:
    """Last: Mosquitto starts anew, and with it every connection."""
    chain.enrolled.add("ghost")
    ghost = chain.enrolled.client("ghost")
    eventually(lambda: not trouble(ghost, timeout=2))
    with Raw(ghost, "ghost") as standing:
        chain.enrolled.revoke("ghost")
        assert standing.ended(30)
    eventually(lambda: "revoked" in trouble(ghost) or "not enrolled" in trouble(ghost), timeout=30)
    chain.good()
