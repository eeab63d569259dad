"""Brokers set up the way that managed ones are: what AWS IoT Core, EMQX Cloud and HiveMQ Cloud ask for."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import servers
from conftest import Make, need
from enrolled import Enrolled
from facerelay import face, settings
from facerelay.config import Broker, Config
from facerelay.edge.eyes.freeze import encode_face
from facerelay.edge.outbox import Outbox
from facerelay.edge.schema import OutboxError
from facerelay.link.bridge import mosquitto_bridge
from facerelay.link.forward import forward
from facerelay.link.session import Session
from facerelay.link.tls import TlsFileError, tls_context
from facerelay.permissions import permissions
from facerelay.sections import PictureFormat
from facerelay.signing import Owner, Role
from test_session import run, session, take_one
from waiting import until

ALPN = "x-amzn-mqtt-ca"
AWS_BYTES = 131_072
MOST = 120_000
"""`limits.message_bytes` as the page on managed brokers has it: topic and header count as well."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Enrolled:
    """Certificates, and nothing that runs."""
    return Enrolled.make(tmp_path_factory.mktemp("keys"), sites=("home",))


@pytest.fixture
def plain() -> Iterator[servers.Server]:
    with servers.mosquitto(extra_conf=f"message_size_limit {AWS_BYTES}\n") as server:
        yield server


@asynccontextmanager
async def front(keys: Enrolled, port: int) -> AsyncIterator[Broker]:
    """TLS that demands a certificate and a protocol by ALPN, before a broker on a port."""
    trust = keys.folder / "trust"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=trust / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(trust / "broker.pem", trust / "broker.key")
    context.set_alpn_protocols([ALPN])

    open_now: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        open_now.discard(writer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() != ALPN:
            writer.close()
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    # The settings of an enrolled edge, with the address of the service in place of the cloud's.
    url = f"mqtts://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield keys.client("home").model_copy(update={"url": url, "alpn": ALPN})
    finally:
        server.close()
        for writer in open_now:
            writer.close()
        await until(lambda: not open_now)


def big(make_face: Make, most: int) -> face.Frozen:
    noise = np.random.default_rng(1).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    return encode_face(make_face().face, noise, form=PictureFormat(max_side=2_000), most=most)


def test_a_face_and_its_receipt_pass_and_the_largest_face_fits(
    keys: Enrolled, plain: servers.Server, make_face: Make
) -> None:
    sent = big(make_face, MOST)
    assert MOST / 2 < len(sent.data) <= MOST

    async def go(edge: servers.Server) -> None:
        async with (
            front(keys, plain.port) as cloud,
            asyncio.TaskGroup() as group,
            session(plain.url, "store", ("faces/+/+", 1)) as store,
            session(edge.url, "capture", ("receipts/home/#", 1), ("link/home", 1)) as capture,
        ):
            carrying = group.create_task(
                forward(
                    edge=Broker(url=edge.url), cloud=cloud, site="home", faces="faces/+/+", qos=1,
                    delivery="receipt", window=100, max_message=MOST,
                )
            )  # fmt: skip
            while (await take_one(capture)).payload != b"1":
                pass
            await store.wait_connected()
            await capture.publish("faces/home/door", sent.data, qos=1)
            assert (await take_one(store)).payload == sent.data
            await store.publish("receipts/home/x", b"receipt", qos=1)
            while (await take_one(capture)).payload != b"receipt":
                pass
            carrying.cancel()

    with servers.mosquitto() as edge:
        run(go(edge))


def test_a_face_over_the_limit_never_leaves_and_one_that_did_would_be_dropped(
    keys: Enrolled, plain: servers.Server, make_face: Make, tmp_path: Path
) -> None:
    large = big(make_face, 1_000_000)
    assert len(large.data) > AWS_BYTES
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=MOST) as outbox:
        with pytest.raises(OutboxError, match=f"over limits.message_bytes = {MOST}"):
            outbox.put(large, chosen=0).result()
        assert outbox.waiting().result() == 0

    async def go() -> None:
        async with (
            front(keys, plain.port) as cloud,
            session(plain.url, "store", ("faces/+/+", 1)) as store,
            Session(cloud, client_id="out", max_message=1) as out,
        ):
            await store.wait_connected()
            await out.wait_connected()
            # Mosquitto acknowledges it and hands it on to nobody; a service may end the connection.
            await out.publish("faces/home/door", large.data, qos=1)
            await out.publish("faces/home/door", b"the next", qos=1)
            assert (await take_one(store)).payload == b"the next"

    run(go())


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        ({"alpn": None}, "are certificate, client id, topics and alpn as it wants them"),
        ({"alpn": "mqtt"}, "are certificate, client id, topics and alpn as it wants them"),
        ({"cert": None, "key": None}, "are certificate, client id, topics and alpn as it wants them"),
    ],
)
def test_without_its_protocol_or_a_certificate_nobody_gets_in(
    keys: Enrolled, plain: servers.Server, lacks: dict[str, str | None], words: str
) -> None:
    async def go() -> None:
        async with front(keys, plain.port) as cloud:
            asks = Session(cloud.model_copy(update=lacks), client_id="asks", max_message=1)
            async with asks:
                await until(lambda: re.search(words, asks.trouble) is not None)
                assert not asks.connected

    run(go())


def test_mosquitto_s_own_bridge_goes_the_same_way(keys: Enrolled, plain: servers.Server) -> None:
    async def go() -> None:
        async with front(keys, plain.port) as cloud:
            conf = mosquitto_bridge(
                cloud=cloud, site="home", faces="faces/+/+", qos=1, delivery="receipt", max_message=MOST
            )
            with servers.mosquitto(extra_conf=conf) as edge:
                async with (
                    session(plain.url, "store", ("faces/+/+", 1)) as store,
                    session(edge.url, "capture", ("link/home", 1)) as capture,
                ):
                    while (await take_one(capture)).payload != b"1":
                        pass
                    await store.wait_connected()
                    await capture.publish("faces/home/door", b"face", qos=1)
                    assert (await take_one(store)).payload == b"face"

    run(go())


def test_a_user_name_by_tls_with_the_system_s_authorities(
    keys: Enrolled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = keys.folder / "trust"
    word = "a passphrase of theirs"
    passwords = tmp_path / "passwords"
    subprocess.run([need("mosquitto_passwd"), "-c", "-b", str(passwords), "edge", word], check=True)
    port = servers.free_port()
    inner = servers.free_port()
    listeners = (
        f"per_listener_settings true\nlistener {inner} 127.0.0.1\nallow_anonymous true\n"
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
        f"certfile {trust}/broker.pem\nkeyfile {trust}/broker.key\n"
    )
    there = Broker(url=f"mqtts://localhost:{port}", username="edge", password=word)
    named = partial(Session, client_id="edge", max_message=1_000)

    async def go() -> None:
        async with named(there) as stranger:
            await until(lambda: "this system does not know" in stranger.trouble)
        monkeypatch.setenv("SSL_CERT_FILE", str(trust / "authority.pem"))
        wrong = there.model_copy(update={"username": "nobody"})
        async with named(wrong) as nobody:
            await until(lambda: "check username and password" in nobody.trouble)
        async with named(there, subscribe=[("receipts/home/#", 1)]) as known:
            await known.wait_connected()
            await known.publish("receipts/home/x", b"1", qos=1)
            assert (await take_one(known)).payload == b"1"

    with servers.mosquitto(inner, listener=listeners):
        run(go())


def test_files_that_cannot_be_used_are_named(keys: Enrolled, tmp_path: Path) -> None:
    cloud = keys.client("home")
    (tmp_path / "empty.pem").write_bytes(b"")
    other = keys.folder / "trust" / "store.key"
    for change, words in (
        ({"ca": tmp_path / "nowhere.pem"}, "ca: .*nowhere.pem: No such file"),
        ({"ca": tmp_path / "empty.pem"}, "ca: .*empty.pem: not usable"),
        ({"key": tmp_path / "nowhere.key"}, "cert, key: .*nowhere.key: No such file"),
        ({"key": other}, "store.key: not usable .*key values mismatch"),
    ):
        with pytest.raises(TlsFileError, match=words):
            tls_context(cloud.model_copy(update=change))


PAGE = (Path(__file__).parent.parent / "docs" / "managed-brokers.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_the_page_s_settings_are_settings(block: str, tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(block)
    config = settings.load(tmp_path / "edge.toml", environ={})
    assert config.cloud is not None
    assert config.cloud.tls


def test_the_page_s_table_is_the_table_of_rights() -> None:
    for role, name, row in (
        ("site", "door", "site `door`"), ("store", "main", "store `main`"), ("gallery", "main", "gallery"),
    ):  # fmt: skip
        may = permissions(Owner(cast("Role", role), name), Config().face_topic)
        both = (may.publish, may.subscribe)
        publish, subscribe = (", ".join(f"`{each}`" for each in topics) for topics in both)
        assert " ".join(f"| {row} | {publish} | {subscribe} |".split()) in PAGE
