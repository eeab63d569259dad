"""The embedded broker with the certificates of enrolled machines: who may come, and what each may do."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

import servers
from chains import Part, facerelay
from enrolled import Enrolled
from facerelay.config import Broker
from facerelay.link import wire
from facerelay.link.bridge import mosquitto_bridge
from facerelay.link.broker import BrokerError, EmbeddedBroker
from facerelay.link.greeting import client_id
from facerelay.link.hail import greet
from facerelay.link.session import Session, Will
from facerelay.link.subjects import subject
from facerelay.link.tls import tls_context
from facerelay.permissions import permissions
from facerelay.sections import Trust
from facerelay.signing import Owner
from facerelay.topics import FaceTopic
from test_session import run, session, take_one
from waiting import until

MOST = 1_000_000
OUTBOX = "a" * 32


@asynccontextmanager
async def broker(cloud: Enrolled) -> AsyncIterator[EmbeddedBroker]:
    config = cloud.cloud
    async with EmbeddedBroker(
        config.broker.listening, max_message=MOST, trust=config.trust, faces=config.face_topic
    ) as server:
        yield server


@pytest.fixture
def cloud(tmp_path: Path) -> Enrolled:
    return Enrolled.make(tmp_path, sites=("door", "away"))


def asker(broker: Broker, name: str, *filters: tuple[str, int], will: Will | None = None) -> Session:
    return Session(broker, client_id=name, subscribe=filters, max_message=MOST, will=will)


async def nothing_more(session: Session, publish: Callable[[], Awaitable[None]]) -> None:
    """See that what comes next is what is published now, and nothing that was said before it."""
    await publish()
    message = await take_one(session)
    assert message.payload == b"the last"


def test_a_broker_that_asks_itself_whether_it_is_well_counts_as_nobody(
    cloud: Enrolled,
) -> None:
    async def go() -> None:
        async with broker(cloud) as server:
            keyless = cloud.cloud.broker.listening.model_copy(update={"cert": None, "key": None})
            for _ in range(3):
                await greet(keyless)
            async with asker(cloud.client(), "door") as door:
                await door.wait_connected()
            assert server.refused["certificate"] == 0
            async with asker(keyless, "stranger"):
                await until(lambda: server.refused["certificate"] > 0)

    run(go())


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_belongs_to_a_machine_passes_at_every_quality(cloud: Enrolled, qos: int) -> None:
    async def go() -> None:
        async with (
            broker(cloud),
            asker(cloud.client("store"), "store", ("faces/+/+", qos), ("ledger/#", 1)) as store,
            asker(cloud.client("gallery"), "gallery", ("receipts/+/+", qos)) as gallery,
            asker(
                cloud.client(), "door", ("receipts/door/#", qos), ("stores/+", qos),
                will=Will("link/door", b"0"),
            ) as door,
        ):  # fmt: skip
            for each in (store, gallery, door):
                await each.wait_connected()
            await door.publish("faces/door/cam", b"face", qos=qos)
            await door.publish(f"ledger/door/{OUTBOX}/1", b"books", qos=qos, retain=True)
            await door.publish("link/door", b"1", qos=qos, retain=True)
            assert {(await take_one(store)).payload for _ in range(2)} == {b"face", b"books"}
            await store.publish(f"receipts/door/{OUTBOX}", b"receipt", qos=qos)
            assert (await take_one(door)).payload == b"receipt"
            assert (await take_one(gallery)).payload == b"receipt"
            await store.publish("stores/main", b"hello", qos=qos, retain=True)
            assert (await take_one(door)).payload == b"hello"
            async with asker(cloud.client("away"), "late", ("stores/+", qos)) as late:
                message = await take_one(late)
                assert (message.payload, message.retain) == (b"hello", True)

    run(go())


def test_a_persistent_session_keeps_what_came_while_it_was_away(cloud: Enrolled) -> None:
    async def go() -> None:
        store = partial(
            Session, cloud.client("store"), client_id="store", subscribe=[("faces/+/+", 1)],
            max_message=MOST, clean=False,
        )  # fmt: skip
        async with broker(cloud), asker(cloud.client(), "door") as door:
            async with store() as first:
                await first.wait_connected()
            await door.wait_connected()
            await door.publish("faces/door/cam", b"meanwhile", qos=1)
            async with store() as again:
                assert (await take_one(again)).payload == b"meanwhile"

    run(go())


@pytest.mark.parametrize(
    ("filter_", "wanted"),
    [
        ("faces/+/+", "faces.*.*"), ("ledger/#", "ledger.>"), ("#", ">"), ("a.b/c", "a//b.c"),
        ("/a", "/.a"), ("a//b", "a./.b"), ("a/", "a./"),
    ],
)  # fmt: skip
def test_a_topic_filter_as_nats_has_it(filter_: str, wanted: str) -> None:
    assert subject(filter_) == wanted


def test_a_name_within_a_level_becomes_a_wildcard_of_the_whole_level() -> None:
    may = permissions(Owner("site", "door"), FaceTopic("faces/f.{site}/cam-{camera}"))
    assert subject(may.publish[0]) == "faces.f//door.*"


# Who may come


@pytest.mark.parametrize(
    ("who", "words", "counted"),
    [
        ("anonymous", "wants a certificate of us: set cert and key", "certificate"),
        ("stranger", "does not know the authority of our certificate", "certificate"),
        (
            "expired",
            r"has expired on \d{4}-\d\d-\d\d: `facerelay enrol renew`",
            "certificate",
        ),
        ("early", "this machine's clock says .*: is the clock right", "certificate"),
        ("revoked", "was our certificate .* revoked", "machine"),
        ("unlisted", "is not enrolled at this broker", "machine"),
    ],
)
def test_who_may_not_come_is_told_why_and_counted(
    cloud: Enrolled, who: str, words: str, counted: str
) -> None:
    async def go() -> None:
        async with broker(cloud) as server:
            if who == "revoked":
                cloud.revoke("away")
                asks = cloud.client("away")
                while True:  # until the broker has taken it up
                    await asyncio.sleep(0.2)
                    async with asker(asks, "look") as look:
                        await until(lambda look=look: look.connected or look.trouble)  # type: ignore[misc]
                        if not look.connected:
                            break
            else:
                asks = cloud.certified("door") if who == "unlisted" else getattr(cloud, who)()
            before = server.refused[counted]
            async with asker(asks, "asks") as asking:
                await until(lambda: re.search(words, asking.trouble) is not None)
                assert asking.trouble.startswith("the broker")
            await until(lambda: server.refused[counted] > before)
            async with asker(cloud.client(), "door") as door:
                await door.wait_connected()

    run(go())


def test_a_machine_enrolled_meanwhile_comes_in_and_a_revoked_one_is_put_out(
    cloud: Enrolled, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def go() -> None:
        states: list[bool] = []
        watched = Session(cloud.client(), client_id="door", max_message=MOST, on_state=states.append)
        async with broker(cloud), watched as door, asker(cloud.client("away"), "away") as away:
            await door.wait_connected()
            await away.wait_connected()
            await asyncio.to_thread(cloud.add, "new")
            await until(lambda: "certificates changed: they are taken up" in caplog.text)
            async with asker(cloud.client("new"), "new") as new:
                await new.wait_connected()
            await asyncio.to_thread(cloud.revoke, "away")
            await until(lambda: "revoked" in away.trouble)
            assert states == [True]

    run(go())


def test_a_roll_that_cannot_be_read_any_more_leaves_everything_as_it_was(
    cloud: Enrolled, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        async with broker(cloud):
            devices = cloud.folder / "trust" / "devices"
            (devices / "rubbish.pem").write_bytes(b"\0" * 1_000)
            await until(lambda: "rubbish.pem: not a certificate in PEM: it is left out" in caplog.text)
            authority = cloud.folder / "trust" / "authority.pem"
            kept = authority.read_bytes()
            authority.write_bytes(b"rubbish")
            await until(lambda: "those from before hold" in caplog.text)
            authority.write_bytes(kept)
            async with asker(cloud.client(), "door") as door:
                await door.wait_connected()

    run(go())


def test_a_certificate_that_does_not_name_its_key_is_left_out(
    cloud: Enrolled, caplog: pytest.LogCaptureFixture
) -> None:
    trust = cloud.folder / "trust"
    (trust / "devices" / "broker.pem").write_bytes((trust / "broker.pem").read_bytes())

    async def go() -> None:
        async with broker(cloud), asker(cloud.client(), "door") as door:
            await door.wait_connected()

    run(go())
    assert "broker.pem: it does not name its key" in caplog.text


def test_the_settings_say_what_does_not_fit(cloud: Enrolled, caplog: pytest.LogCaptureFixture) -> None:
    config = cloud.cloud
    with pytest.raises(BrokerError, match="remove username and password"):
        EmbeddedBroker(
            config.broker.model_copy(update={"username": "a", "password_file": cloud.file}),
            max_message=1, trust=config.trust,
        )  # fmt: skip
    away = Trust(authority=config.trust.authority, devices=cloud.folder / "nowhere")
    with pytest.raises(BrokerError, match=r"trust\.devices: .*nowhere: No such file"):
        EmbeddedBroker(config.broker, max_message=1, trust=away)
    EmbeddedBroker(Broker(url="mqtt://127.0.0.1"), max_message=1, trust=config.trust)
    assert "asks nobody for a certificate" in caplog.text


# What each may do


FORBIDDEN_PUBLISH = [
    "faces/door/cam",  # another site's
    f"ledger/door/{OUTBOX}",
    "link/door",
    f"receipts/door/{OUTBOX}",  # forged
    f"receipts/away/{OUTBOX}",  # to itself
    "stores/main",
    "faces/away",
    "faces/away/cam/more",
    "$MQTT/msgs/faces/door/cam",
    "$MQTT/sess/x",
    "$JS/API/STREAM/DELETE/$MQTT_msgs",
    "$JS/API/STREAM/PURGE/$MQTT_rmsgs",
    "$SYS/REQ/SERVER/PING",
]


def test_what_is_another_s_is_not_handed_on_kept_or_obeyed(cloud: Enrolled) -> None:
    async def go() -> None:
        lasting = partial(asker, cloud.client("store"), "store")
        async with (
            broker(cloud) as server,
            lasting(("faces/+/+", 1), ("ledger/#", 1)) as store,
            asker(cloud.client(), "door", ("receipts/door/#", 1), ("stores/+", 1)) as door,
        ):
            await store.wait_connected()
            await door.wait_connected()
            will = Will("faces/door/cam", b"a dead man's face", retain=True)
            async with asker(cloud.client("away"), "away", will=will) as away:
                await away.wait_connected()
                for topic in FORBIDDEN_PUBLISH:
                    for qos in (0, 1, 2):
                        await away.publish(topic, b"forged", qos=qos, retain=True)
                assert away._connection is not None
                away._connection.abort(ConnectionError("so that its will is published"))
                await until(lambda: not away.connected)
            await until(lambda: server.refused["publish"] >= 3 * len(FORBIDDEN_PUBLISH) + 1)
            await nothing_more(store, lambda: door.publish("faces/door/cam", b"the last", qos=1))
            await nothing_more(door, lambda: store.publish(f"receipts/door/{OUTBOX}", b"the last", qos=1))
            async with asker(cloud.client("store"), "later", ("faces/+/+", 1), ("ledger/#", 1)) as later:
                await later.wait_connected()
                await nothing_more(later, lambda: door.publish("faces/door/cam", b"the last", qos=1))

    run(go())


def test_the_gallery_publishes_nothing(cloud: Enrolled) -> None:
    async def go() -> None:
        async with (
            broker(cloud) as server,
            asker(cloud.client(), "door", ("receipts/door/#", 1), ("stores/+", 1)) as door,
            asker(cloud.client("gallery"), "gallery") as gallery,
            asker(cloud.client("store"), "store") as store,
        ):
            for each in (door, gallery, store):
                await each.wait_connected()
            await gallery.publish(f"receipts/door/{OUTBOX}", b"forged", qos=1)
            await gallery.publish("stores/main", b"forged", qos=1)
            await nothing_more(door, lambda: store.publish(f"receipts/door/{OUTBOX}", b"the last", qos=1))
            assert server.refused["publish"] == 2

    run(go())


FORBIDDEN_SUBSCRIBE = [
    "#", "+/#", "+/+/+", "/#",
    "receipts/#", "receipts/+/+", "receipts/door/#", f"receipts/door/{OUTBOX}", f"+/door/{OUTBOX}",
    "faces/#", "faces/+/+", "faces/away/+", "ledger/#", "link/+", "link/away", "stores/#",
    "$SYS/REQ/#", "$MQTT/#", "$MQTT/sub/#", "$MQTT/msgs/#", "$MQTT/deliver/pubrel/#", "$JS/#",
    "$JS/API/#", "_INBOX/#", "+/sub/#",
]  # fmt: skip


def test_nobody_hears_what_is_another_s(cloud: Enrolled) -> None:
    async def answer(filters: list[str], qos: int) -> tuple[int | None, ...]:
        """Ask by hand for all of them at once, and return what was granted."""
        tls = tls_context(cloud.client("away"))
        reader, writer = await asyncio.open_connection("localhost", cloud.port, ssl=tls)
        writer.write(wire.connect(client_id=f"asks-{qos}"))
        writer.write(wire.subscribe(1, [(each, qos) for each in filters]))
        await reader.readexactly(4)  # CONNACK
        head = await reader.readexactly(2)
        codes = (await reader.readexactly(head[1]))[2:]
        writer.close()
        return tuple(None if code == 0x80 else code for code in codes)

    async def go() -> None:
        async with broker(cloud):
            for qos in (0, 1, 2):
                assert await answer(FORBIDDEN_SUBSCRIBE, qos) == (None,) * len(FORBIDDEN_SUBSCRIBE)
                assert await answer(["receipts/away/#", "stores/+"], qos) == (qos, qos)

    run(go())


# Client ids


def test_a_site_that_knows_another_s_name_cannot_push_it_off(cloud: Enrolled) -> None:
    async def go() -> None:
        states: list[bool] = []
        door = Session(cloud.client(), client_id="door-forward", max_message=MOST, on_state=states.append)
        async with broker(cloud), door:
            await door.wait_connected()
            async with asker(cloud.client("away"), "door-forward") as rival:
                await rival.wait_connected()
                await door.publish("link/door", b"1", qos=1)
            tls = tls_context(cloud.client("away"))
            reader, writer = await asyncio.open_connection("localhost", cloud.port, ssl=tls)
            writer.write(wire.connect(client_id="door-forward"))
            assert (await reader.readexactly(4))[3] == 0
            await door.publish("link/door", b"1", qos=1)
            writer.close()
            assert states == [True]

    run(go())


def test_client_ids_are_the_same_after_a_restart_and_each_machine_s_own(cloud: Enrolled) -> None:
    door, away = cloud.client(), cloud.client("away")
    mine = client_id("door-forward", door)
    assert re.fullmatch(r"door-forward-[0-9a-f]{16}", mine)
    assert client_id("door-forward", door) == mine
    assert client_id("door-forward", away) != mine
    assert client_id("door-forward-out", door)[-16:] != mine[-16:]
    assert client_id("door-forward", cloud.anonymous()) == "door-forward"


def test_a_site_s_mosquitto_reaches_it_by_its_own_bridge(cloud: Enrolled) -> None:
    conf = mosquitto_bridge(
        cloud=cloud.client(), site="door", faces="faces/+/+", qos=1, delivery="receipt", max_message=MOST
    )

    async def go() -> None:
        up = [("link/door", 1), ("receipts/door/#", 1)]
        async with broker(cloud) as server, AsyncExitStack() as stack:
            edge = stack.enter_context(servers.mosquitto(extra_conf=conf))
            capture = await stack.enter_async_context(session(edge.url, "capture", *up))
            store = asker(cloud.client("store"), "store", ("faces/+/+", 1))
            await stack.enter_async_context(store)
            while (await take_one(capture)).payload != b"1":
                pass
            await store.wait_connected()
            await capture.publish("faces/door/cam", b"face", qos=1)
            assert (await take_one(store)).payload == b"face"
            await store.publish(f"receipts/door/{OUTBOX}", b"receipt", qos=1)
            while (await take_one(capture)).payload != b"receipt":
                pass
            assert set(server.refused.values()) == {0}

    run(go())


# The whole chain


def test_after_all_of_it_the_next_good_face_passes(tmp_path: Path, portrait: Path) -> None:
    cloud = Enrolled.make(tmp_path, sites=("door", "away"))

    def role(name: str, file: Path) -> Part:
        command = [sys.executable, "-m", "facerelay", name, "-c", str(file)]
        return Part(name, command, tmp_path / f"{file.stem}-{name}.log")

    edge = tmp_path / "door" / "edge.toml"
    roles = [("broker", cloud.file), ("broker", edge), ("store", cloud.file), ("forward", edge)]
    parts = [role(*each) for each in roles]
    picture = portrait.read_bytes()

    async def attack() -> None:
        async with asker(cloud.client("away"), "door-forward-out") as away:
            await away.wait_connected()
            for topic in FORBIDDEN_PUBLISH:
                await away.publish(topic, picture, qos=1, retain=True)
        for who in (cloud.anonymous(), cloud.stranger(), cloud.expired()):
            async with asker(who, "door-forward-out") as refused:
                await until(lambda refused=refused: bool(refused.trouble))  # type: ignore[misc]

    try:
        for part in parts:
            part.start()
        run(attack())
        sent = facerelay("send", str(portrait), "-c", str(edge))
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert "stored" in sent.stdout
        found = facerelay("ls", "-c", str(cloud.file), "--json")
        assert found.stdout.count('"key"') == 1, found.stdout + found.stderr
        assert "ok    cloud broker" in facerelay("doctor", "-c", str(edge)).stdout
    finally:
        for part in reversed(parts):
            part.end()
