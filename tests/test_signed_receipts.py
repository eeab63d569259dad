"""Receipts count only by the word of a store that the site authority vouches for."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import servers
from conftest import Make
from facerelay import alarms, messages, topics
from facerelay.cloud.store import serve_store
from facerelay.cloud.voice import Voice
from facerelay.commands.running import connector
from facerelay.config import Broker, Bucket, Config
from facerelay.edge import erasing, teller
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.edge.voices import IgnoredError, Voices
from facerelay.erasures import Erasure, Erasures
from facerelay.face import Frozen
from facerelay.fleet import Issuer, issuer
from facerelay.messages import Hello, Ledger, LinkHealth, Receipt, Receipts, WireError
from facerelay.sections import Trust
from facerelay.signing import KeyFileError, Owner, Role, Signer
from waiting import running, until

TOPIC = "receipts/home/" + "ab" * 16
RECEIPT = Receipt(id="019a5b00-0000-7000-8000-000000000001", sha256="0" * 64, outcome="stored")


class Authority:
    """A site authority in a folder, and the machines it certified."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._issuer = Issuer.create(folder)
        self.folder = folder
        self.path = folder / "authority.pem"

    def trust(self, name: str, role: Role = "store", file: str = "") -> Trust:
        """Certify a machine's new key."""
        key = issuer.new_key()
        cert = self.folder / f"{file or f'{role}.{name}'}.pem"
        cert.write_bytes(issuer.pem(self._issuer.certify(Owner(role, name), key.public_key())))
        cert.with_suffix(".key").write_bytes(issuer.key_pem(key))
        return Trust(authority=self.path, cert=cert, key=cert.with_suffix(".key"))

    def voice(self, name: str = "main", file: str = "") -> Voice:
        return Voice(name, self.trust(name, file=file))

    def signer(self, name: str, role: Role) -> Signer:
        trust = self.trust(name, role)
        assert trust.cert is not None
        assert trust.key is not None
        return Signer(trust.cert, trust.key)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def batch(voice: Voice) -> tuple[str, bytes]:
    topic, (payload,) = voice.receipts("home", "ab" * 16, [RECEIPT])
    return topic, payload


def refused(voices: Voices, what: str, topic: str, payload: bytes) -> str:
    """Return why a message is ignored."""
    with pytest.raises(IgnoredError) as raised:
        voices.hello(topic, payload) if what == "hello" else voices.receipts(topic, payload)
    return f"{raised.value.reason}: {raised.value}"


def test_a_store_of_the_authority_counts_and_without_an_authority_everybody_does(
    authority: Authority,
) -> None:
    voice = authority.voice()
    for voices in (Voices(authority.path), Voices(None)):
        assert voices.hello(*voice.hello("c" * 16)).store == "main"
        read = voices.receipts(*batch(voice))
        assert read is not None
        assert (read.store, read.receipts) == ("main", (RECEIPT,))
        assert not voices.ignored
    unsigned = Voice("main", Trust())
    assert Voices(None).receipts(*batch(unsigned)) is not None
    assert b"certificate" not in unsigned.hello("c" * 16)[1]


def forgeries(authority: Authority, stranger: Authority) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield why each is ignored, what it says it is, its topic, and itself."""
    plain = Voice("main", Trust())
    yield "not-signed: a hello of store main", "hello", *plain.hello("c" * 16)
    yield "not-signed: receipts of store main", "receipts", *batch(plain)
    yield "not-admitted: .*did not issue", "hello", *stranger.voice().hello("c" * 16)
    main = authority.signer("main", "store")
    other = Hello(store="other", start="c" * 16, certificate=der(main)).to_bytes()
    named = main.sign_json("hello", "stores/other", other)
    yield "not-admitted: .*the certificate of store main", "hello", "stores/other", named
    for role in ("site", "gallery", "broker"):
        signer = authority.signer("main", role)
        said = Hello(store="main", start="c" * 16, certificate=der(signer)).to_bytes()
        signed = signer.sign_json("hello", "stores/main", said)
        yield f"not-admitted: .*certificate of {role}", "hello", "stores/main", signed
    for certificate in ("MAo=", "====", "A" * 4_096, None):
        said = json.dumps({"store": "main", "start": "c" * 16, "certificate": certificate}).encode()
        if certificate != "====":
            yield "not-admitted", "hello", "stores/main", main.sign_json("hello", "stores/main", said)
    said = Hello(store="main", start="c" * 16, certificate=der(main)).to_bytes()
    yield "bad-signature", "hello", "stores/other", main.sign_json("hello", "stores/other", said)
    yield "bad-signature", "hello", "stores/main", main.sign_json("receipts", "stores/main", said)
    another = authority.signer("second", "store")
    yield "bad-signature", "hello", "stores/main", another.sign_json("hello", "stores/main", said)


def der(signer: Signer) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - for this alone

    return base64.b64encode(signer.certificate.public_bytes(Encoding.DER)).decode()


def test_each_forgery_is_ignored_counted_and_named(authority: Authority, tmp_path: Path) -> None:
    voices = Voices(authority.path)
    count = 0
    for count, (why, what, topic, payload) in enumerate(forgeries(authority, Authority(tmp_path)), 1):
        assert re.match(why, said := refused(voices, what, topic, payload)), said
        assert voices.ignored.total() == count
    assert count > 10
    assert voices.receipts(*batch(authority.voice())) is None, "and none of them was believed"


def test_a_known_store_cannot_speak_for_another_nor_to_another(authority: Authority) -> None:
    voices, voice = Voices(authority.path), authority.voice()
    voices.hello(*voice.hello("c" * 16))
    topic, payload = batch(voice)
    for elsewhere in ("receipts/home/" + "cd" * 16, "receipts/away/" + "ab" * 16, "stores/main"):
        assert "bad-signature" in refused(voices, "receipts", elsewhere, payload)
    for at in (12, len(payload) // 2, len(payload) - 4):
        broken = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        with pytest.raises((IgnoredError, WireError)):
            assert voices.receipts(topic, broken) is not None
    trust = authority.trust("liar")
    assert trust.cert is not None
    assert trust.key is not None
    liar = Signer(trust.cert, trust.key)
    voices.hello(*Voice("liar", trust).hello("c" * 16))
    lie = liar.sign_json("receipts", topic, Receipts(store="main", receipts=(RECEIPT,)).to_bytes())
    assert "store main, signed by store liar" in refused(voices, "receipts", topic, lie)
    with pytest.raises(WireError, match="more than the limit"):
        voices.receipts(topic, payload + b" " * messages.MAX_MESSAGE_BYTES)
    assert voices.receipts(topic, payload) is not None


def test_receipts_before_the_hello_wait_for_it_a_minute_and_in_bounds(authority: Authority) -> None:
    now = 0.0
    voices, voice = Voices(authority.path, clock=lambda: now), authority.voice()
    assert voices.receipts(*batch(voice)) is None
    assert voices.strange
    assert voices.released() == []
    voices.hello(*authority.voice("second").hello("c" * 16))
    assert voices.released() == []
    voices.hello(*voice.hello("c" * 16))
    (early,) = voices.released()
    assert voices.receipts(*early) is not None
    assert (voices.strange, voices.released(), voices.ignored.total()) == (False, [], 0)
    unknown = authority.voice("third")
    for _ in range(70):
        assert voices.receipts(*batch(unknown)) is None
    assert voices.ignored["no-hello"] == 6
    now = 61
    assert not voices.strange
    assert voices.ignored["no-hello"] == 70


def test_a_store_with_a_new_key_counts_by_both_and_of_very_many_the_newest(authority: Authority) -> None:
    voices = Voices(authority.path)
    old, new = authority.voice(file="old"), authority.voice(file="new")
    for voice in (old, new):
        voices.hello(*voice.hello("c" * 16))
    assert voices.receipts(*batch(old)) is not None
    assert voices.receipts(*batch(new)) is not None
    for number in range(63):
        voices.hello(*authority.voice(f"s{number}").hello("c" * 16))
    assert voices.receipts(*batch(old)) is None
    assert voices.receipts(*batch(new)) is not None


def test_a_store_with_the_certificate_of_another_does_not_begin(authority: Authority) -> None:
    with pytest.raises(KeyFileError, match=r"is of store main, and store\.name = 'store'"):
        Voice("store", authority.trust("main"))
    with pytest.raises(KeyFileError, match="is of gallery main"):
        Voice("main", authority.trust("main", "gallery"))
    with pytest.raises(KeyFileError, match=r"away\.pem: No such file"):
        Voices(authority.folder / "away.pem")


def test_what_is_ignored_is_an_alarm() -> None:
    link = LinkHealth(time=datetime.now(UTC), ignored=3)
    report = alarms.Report("home", Ledger(outbox="ab" * 16, cameras={}, link=link))
    (alarm,) = alarms.find([report], now=datetime.now(UTC))
    assert (alarm.kind, alarm.severity) == ("forged", "warning")
    assert "3 messages" in alarm.words


# with real brokers


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with servers.mosquitto() if request.param == "mosquitto" else servers.nats() as server:
        yield Broker(url=server.url)


def put(outbox: Outbox, make: Make) -> Frozen:
    frozen = make(outbox=outbox.id, run=outbox.run, seq=outbox.number())
    outbox.put(frozen, chosen=time.time()).result()
    return frozen


def configs(tmp_path: Path, broker: Broker, authority: Authority) -> tuple[Config, Config]:
    """Return the settings of an edge and of a cloud at one broker."""
    edge = Config(
        broker=broker, direct=True, trust=Trust(authority=authority.path),
        outbox={"path": tmp_path / "o.db", "overdue_s": 2},
    )  # fmt: skip
    cloud = Config(
        broker=broker, bucket=Bucket(url=f"file://{tmp_path}/bucket"), trust=authority.trust("store")
    )
    return edge, cloud


def test_a_forged_receipt_moves_nothing_and_the_store_s_own_does(
    tmp_path: Path, broker: Broker, authority: Authority, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    edge, cloud = configs(tmp_path, broker, authority)
    stranger = Authority(tmp_path / "stranger").voice("store")

    async def scenario() -> None:
        with open_outbox(edge) as outbox:
            frozen = put(outbox, make_face)
            receipt = Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome="stored")
            forged = [Voice("store", Trust()), stranger]
            async with (
                relaying(edge, outbox, connector(edge)) as relay,
                connector(edge)(client_id="forger", subscribe=[], clean=True, window=8) as forger,
            ):
                await until(lambda: forger.connected and relay.link)
                for voice in forged:
                    topic, (payload,) = voice.receipts("home", outbox.id, [receipt])
                    await forger.publish(*voice.hello("c" * 16), qos=1)
                    await forger.publish(topic, payload, qos=1)
                    everything = Erasures(until="ab", rules=(Erasure(site="home"),))
                    await forger.publish(*voice.erasures("home", outbox.id, everything), qos=1)
                voices = relay.pulse.voices
                await until(lambda: voices.ignored.total() == 4 and voices.strange)
                assert outbox.waiting().result() == 1
                assert outbox.noted(erasing.MARK).result() is None
                async with running(serve_store(cloud, connector(cloud))):
                    await until(lambda: not outbox.waiting().result())
                health = await relay.pulse.take(resets=0)
                assert health.ignored == 4
            books = outbox.ledger().result().cameras["home/door"]
            assert (books.captured, books.stored, books.closes) == (1, 1, True)

    asyncio.run(scenario())
    assert "a hello of store store that is not signed" in caplog.text
    assert "did not issue" in caplog.text


def test_a_hello_that_was_lost_is_said_again_and_nothing_is_sent_again_for_it(
    tmp_path: Path, authority: Authority, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teller, "_EVERY_S", 0.5)

    async def scenario(broker: Broker) -> None:
        edge, cloud = configs(tmp_path, broker, authority)
        edge = edge.model_copy(update={"outbox": edge.outbox.model_copy(update={"overdue_s": 60})})
        ready = asyncio.Event()
        async with (
            running(serve_store(cloud, connector(cloud), ready=ready.set)),
            connector(edge)(
                client_id="cleaner", subscribe=[(topics.HELLOS, 1)], clean=True, window=8
            ) as cleaner,
        ):
            async for message in cleaner:
                message.ack()
                break
            await cleaner.publish(topics.hello("store"), b"", qos=1, retain=True)
            with open_outbox(edge) as outbox:
                frozen = put(outbox, make_face)
                async with relaying(edge, outbox, connector(edge)) as relay:
                    await until(lambda: not outbox.waiting().result())
                    assert relay.pulse.resent == 0
                    assert not relay.pulse.voices.ignored
                assert (tmp_path / "bucket" / frozen.key).exists()

    with servers.mosquitto() as server:
        asyncio.run(scenario(Broker(url=server.url)))
