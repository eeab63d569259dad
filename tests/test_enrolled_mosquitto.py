"""An enrolled chain on Mosquitto: what passes, and what is refused."""

from __future__ import annotations

import asyncio
import getpass
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import cv2
import pytest

import enrolled
from chains import Part, _role, eventually, facerelay
from conftest import need
from enrolled import Enrolled
from facerelay.cli.roles import _as_gallery
from facerelay.cloud.gallery import nudges
from facerelay.commands import enrol
from facerelay.commands.bridge import bridge_config
from facerelay.config import Broker
from facerelay.fleet import join, read_bundle
from facerelay.link.mosquitto import mosquitto_listener
from facerelay.link.session import Message, Session
from servers import Server, answers
from test_session import run, take_one

TROUBLE_S = 20


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, portrait: Path) -> Path:
    path = tmp_path_factory.mktemp("picture") / "face.jpg"
    image = cv2.imread(str(portrait))
    assert image is not None
    cv2.imwrite(str(path), cv2.resize(image, (160, 200)))
    return path


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Enrolled, Server]]:
    """A cloud with Mosquitto and a store, two sites, and a third one that was revoked."""
    made = Enrolled.make(tmp_path_factory.mktemp("enrolled"), sites=("door", "gate", "gone"), mosquitto=True)
    made.revoke("gone")
    with (made.folder / "mosquitto.conf").open("a") as conf:
        conf.write("log_type all\n")
    with enrolled.mosquitto(made) as server, started(_role(made.folder, "store", "cloud")):
        yield made, server


@contextmanager
def started(*parts: Part) -> Iterator[None]:
    try:
        for part in parts:
            part.start()
        yield
    finally:
        for part in reversed(parts):
            part.end()


@contextmanager
def edge(made: Enrolled, site: str, link: Literal["forward", "bridge"]) -> Iterator[Path]:
    """A site's broker and link; yields its settings."""
    config, folder = made.edge(site), made.folder.parent / site
    if link == "forward":
        parts = [_role(folder, "broker", "edge"), _role(folder, "forward", "edge")]
    else:
        conf, state = folder / "mosquitto.conf", folder / "state"
        state.mkdir(exist_ok=True)
        listener = mosquitto_listener(config.broker, data=state, max_message=config.limits.message_bytes)
        conf.write_text(f"user {getpass.getuser()}\n{listener}{bridge_config(config)}")
        parts = [Part("broker", [need("mosquitto"), "-c", str(conf)], folder / "broker.log")]
    with started(*parts):
        eventually(lambda: answers(config.broker.port))
        yield folder / "edge.toml"


def send(picture: Path, config: Path) -> None:
    done = facerelay("send", str(picture), "-c", str(config))
    assert ": stored faces/" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("link", ["forward", "bridge"])
def test_a_face_goes_from_edge_to_bucket_over_mutual_tls(
    cloud: tuple[Enrolled, Server], picture: Path, link: Literal["forward", "bridge"]
) -> None:
    made, _ = cloud
    with edge(made, "door", link) as config:
        send(picture, config)
    assert list((made.folder / "bucket/faces/site=door").rglob("*.jpg"))


def test_a_face_goes_straight_to_the_clouds_broker(cloud: tuple[Enrolled, Server], picture: Path) -> None:
    made, server = cloud
    bundle = enrol.edge(made.cloud, "near", made.folder / "near.tar", direct=True)
    join(read_bundle(bundle), made.folder.parent / "near")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "Reloading config" in server.text())
    send(picture, made.folder.parent / "near" / "edge.toml")


def test_a_gallery_hears_receipts_and_nothing_else(cloud: tuple[Enrolled, Server]) -> None:
    made, _ = cloud

    async def go() -> None:
        ear = _as_gallery(made.cloud)
        async with (
            listener(ear, (nudges.FILTER, 0), ("faces/+/+", 0), ("ledger/#", 0)) as gallery,
            Session(made.client("store"), client_id="store-mouth", max_message=10**6) as store,
            Session(made.client("gate"), client_id="gate-mouth", max_message=10**6) as gate,
        ):
            for each in (gallery, store, gate):
                await each.wait_connected()
            await gate.publish("faces/gate/cam", b"a face", qos=1)
            await store.publish("receipts/gate/" + "f" * 32, b"a receipt", qos=1)
            assert (await take_one(gallery)).payload == b"a receipt"

    run(go())


RESET = "connection reset by peer"


async def trouble(broker: Broker) -> str:
    """Return why a session cannot be had; a reset may overtake the reason once: the next try waits."""
    async with Session(broker, client_id="stranger", max_message=1_000_000) as session:
        async with asyncio.timeout(TROUBLE_S):
            while session.trouble in {"", RESET}:
                assert not session.connected
                await asyncio.sleep(0.02)
        return session.trouble


def server_as_client(made: Enrolled) -> Broker:
    trust = made.folder / "trust"
    return made.anonymous().model_copy(update={"cert": trust / "broker.pem", "key": trust / "broker.key"})


KINDS: dict[str, tuple[Callable[[Enrolled], Broker], str]] = {
    "no certificate": (lambda made: made.anonymous(), "certificate"),
    "another authority": (lambda made: made.stranger(), "certificate|authority"),
    "expired": (lambda made: made.expired(), "ended|expired"),
    "not yet valid": (lambda made: made.early(), "certificate"),
    "revoked": (lambda made: made.client("gone"), "revoked"),
    "a broker's certificate as a client's": (server_as_client, "certificate"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_not_enrolled_is_refused(cloud: tuple[Enrolled, Server], kind: str) -> None:
    make, says = KINDS[kind]
    assert re.search(says, asyncio.run(trouble(make(cloud[0]))))


def test_a_name_on_no_roll_may_nothing(cloud: tuple[Enrolled, Server]) -> None:
    """A certificate of the right authority, for a name that the access list does not know."""
    made, server = cloud

    async def go() -> None:
        async with Session(made.certified("store.rogue"), client_id="rogue", max_message=10**6) as rogue:
            await rogue.wait_connected()
            await rogue.publish("receipts/door/" + "a" * 32, b"forged", qos=1)

    run(go())
    eventually(lambda: "Denied PUBLISH from rogue" in re.sub(r"-[0-9a-f]{16} ", " ", server.text()))


FORGED = [
    "faces/gate/door",
    "faces/door/a/b",
    "faces/door",
    "ledger/gate/" + "a" * 32,
    "link/gate",
    "receipts/door/" + "a" * 32,
    "receipts/gate/" + "a" * 32,
    "stores/main",
    "$SYS/broker/uptime",
    "$CONTROL/dynamic-security/v1",
    "anything",
]


@pytest.mark.parametrize("topic", FORGED)
def test_a_site_publishes_as_itself_alone(cloud: tuple[Enrolled, Server], topic: str) -> None:
    made, server = cloud
    before = len(server.text())

    async def go() -> None:
        async with (
            Session(made.client("door"), client_id="door-evil", max_message=10**6) as door,
            listener(made.client("store"), ("faces/+/+", 1), ("ledger/#", 1)) as store,
            listener(made.client("gate"), ("receipts/gate/#", 1), ("stores/+", 1)) as gate,
        ):
            for each in (door, store, gate):
                await each.wait_connected()
            assert is_hello(await take_one(gate))
            await door.publish(topic, b"forged", qos=1, retain=True)
            await door.publish("faces/door/cam", b"own", qos=1)
            assert (await live(store)).payload == b"own"  # so nothing came before it
            async with Session(made.client("store"), client_id="store-2", max_message=10**6) as speaker:
                await speaker.wait_connected()
                await speaker.publish("receipts/gate/" + "c" * 32, b"true", qos=1)
            assert (await past_hellos(gate)).payload == b"true"

    run(go())
    assert f"'{topic}'" in "".join(re.findall("Denied PUBLISH from door-evil.*", server.text()[before:]))


def is_hello(message: Message) -> bool:
    """Whether it is the store's true one, which it says again when it sees fit."""
    return message.topic == "stores/main" and message.payload.startswith(b"{")


async def past_hellos(session: Session) -> Message:
    while is_hello(message := await take_one(session)):
        pass
    return message


async def live(session: Session) -> Message:
    """Return the next message that is not from before."""
    while (message := await take_one(session)).retain:
        pass
    return message


def listener(broker: Broker, *filters: tuple[str, int]) -> Session:
    return Session(broker, client_id=f"listener-{filters[0][0][:6]}", subscribe=filters, max_message=10**6)


def test_nobody_reads_what_is_another_s(cloud: tuple[Enrolled, Server]) -> None:
    """Mosquitto 2.0 grants any subscription, and hands on what may be read."""
    made, _ = cloud
    every = [("#", 1), ("+/+/+", 1), ("$SYS/#", 1), ("receipts/gate/#", 1), ("faces/#", 1), ("ledger/#", 1)]
    receipts = {site: f"receipts/{site}/{'d' * 32}" for site in ("gate", "door")}

    async def go() -> None:
        async with (
            Session(made.client("door"), client_id="door-ear", subscribe=every, max_message=10**6) as door,
            Session(made.client("gate"), client_id="gate-mouth", max_message=10**6) as gate,
            Session(made.client("store"), client_id="store-mouth", max_message=10**6) as store,
        ):
            for each in (door, gate, store):
                await each.wait_connected()
            assert (await take_one(door)).topic == "stores/main"
            await gate.publish("faces/gate/cam", b"a face", qos=1)
            await gate.publish("ledger/gate/" + "e" * 32, b"books", qos=1, retain=True)
            await gate.publish("link/gate", b"1", qos=1, retain=True)
            await store.publish(receipts["gate"], b"theirs", qos=1)
            await store.publish(receipts["door"], b"ours", qos=1)
            assert (await past_hellos(door)).payload == b"ours"
        async with Session(
            made.client("door"), client_id="door-late", subscribe=every, max_message=10**6
        ) as late:
            await late.wait_connected()
            assert (await take_one(late)).topic == "stores/main"  # of all that is retained
            async with Session(made.client("store"), client_id="store-mouth", max_message=10**6) as store:
                await store.wait_connected()
                await store.publish(receipts["door"], b"last", qos=1)
            assert (await past_hellos(late)).payload == b"last"

    run(go())


def test_the_next_good_face_passes(cloud: tuple[Enrolled, Server], picture: Path) -> None:
    made, _ = cloud
    with edge(made, "gate", "forward") as config:
        send(picture, config)


@pytest.mark.parametrize("told", ["by run", "by SIGHUP"])
def test_a_revoked_site_with_an_open_connection_loses_its_rights(tmp_path: Path, told: str) -> None:
    made = Enrolled.make(tmp_path, sites=("door", "gate"), mosquitto=True)

    async def go(server: Server | None) -> None:
        async with (
            Session(made.client("door"), client_id="door", max_message=10**6) as door,
            Session(made.client("gate"), client_id="gate", max_message=10**6) as gate,
            listener(made.client("store"), ("faces/+/+", 1)) as store,
        ):
            for each in (door, gate, store):
                await each.wait_connected()
            await door.publish("faces/door/cam", b"before", qos=1)
            assert (await take_one(store)).payload == b"before"
            await asyncio.to_thread(made.revoke, "door")
            if server is not None:
                assert server.process is not None
                server.process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(eventually, lambda: "Reloading config" in server.text())
                await door.publish("faces/door/cam", b"after", qos=1)  # it stands, and nothing it says counts
            else:
                async with asyncio.timeout(TROUBLE_S):
                    while "revoked" not in door.trouble or not (gate.connected and store.connected):
                        await asyncio.sleep(0.05)
            await gate.publish("faces/gate/cam", b"another", qos=1)
            assert (await take_one(store)).payload == b"another"

    with ExitStack() as stack:
        if told == "by SIGHUP":
            run(go(stack.enter_context(enrolled.mosquitto(made))))
        else:
            role = _role(made.folder, "run", "cloud")
            role.command += ["--without", "store", "--without", "gallery"]
            stack.enter_context(started(role))
            eventually(lambda: answers(made.port))
            run(go(None))
