import asyncio
import logging
import os
import signal
import ssl
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import servers
from facerelay.config import Broker
from facerelay.link import wire
from facerelay.link.broker import BrokerError, EmbeddedBroker, settings
from facerelay.link.session import Session
from test_session import run, session, take, take_one


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *kind, *name, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def local(folder: Path, **more: Any) -> Broker:  # noqa: ANN401 - passed on
    return Broker(url=f"mqtt://127.0.0.1:{servers.free_port()}", data=folder / "state", **more)


def servers_of(folder: Path) -> list[int]:
    """Pids of the NATS servers whose state lies in a folder, whoever their parent is now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                program, *words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"nats-server" in program and any(bytes(folder) in word for word in words):
                    found.append(int(entry.name))
    return found


def listeners(pid: int) -> list[str]:
    """Addresses a process listens on, in the kernel's hexadecimal."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            inodes.add(str(fd.readlink()))
    rows = [
        row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def told(pid: int) -> bytes:
    """What anybody may read of a process, and what its owner may."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def test_it_answers_once_entered_keeps_secrets_to_itself_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "quite a 'passphrase\" \\ $word {x}"  # noqa: S105 - of nothing
    monkeypatch.setenv("FACERELAY_BROKER__PASSWORD", secret)

    async def go() -> None:
        config = local(tmp_path, username="edge", password=secret)
        async with EmbeddedBroker(config, max_message=1_000_000):
            (pid,) = servers_of(tmp_path)
            conf = tmp_path / "state" / "nats-server.conf"
            assert stat.S_IMODE(conf.stat().st_mode) == 0o600
            assert b"passphrase" not in told(pid)
            async with Session(config, client_id="one", subscribe=[("a", 1)], max_message=1_000_000) as one:
                await one.wait_connected()
                await one.publish("a", bytes(1_000_000), qos=1)
                assert len((await take_one(one)).payload) == 1_000_000
        assert not servers_of(tmp_path)

    run(go())
    assert not [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    async def go() -> None:
        async with EmbeddedBroker(local(tmp_path), max_message=1_000):
            (pid,) = servers_of(tmp_path)
            listening = listeners(pid)
            assert listening
            assert set(listening) == {"0100007F"}

    run(go())


def test_tls_with_a_password(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)

    async def go() -> None:
        config = Broker(
            url=f"mqtts://localhost:{servers.free_port()}",
            username="edge",
            password="word",  # noqa: S106 - of nothing
            data=tmp_path / "state",
            server_cert=cert,
            server_key=key,
            ca=cert,
        )
        async with (
            EmbeddedBroker(config, max_message=1_000_000),
            Session(config, client_id="one", subscribe=[("a", 1)], max_message=1_000_000, window=10) as one,
        ):
            await one.wait_connected()
            await asyncio.gather(*(one.publish("a", bytes(9_000), qos=0) for _ in range(300)))
            held = await take(one, 10)
            await asyncio.sleep(0.1)
            assert one.unacknowledged == 10
            for message in held:
                message.ack()
            for _ in range(290):
                await take_one(one)
            stranger = config.model_copy(update={"ca": None})
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection(
                    "localhost", config.port, ssl=ssl.create_default_context(cafile=stranger.ca)
                )

    run(go())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"url": "mqtt://127.0.0.1:1883", "listen": "0.0.0.0"},  # noqa: S104 - what is refused
            "mqtts:// url with server_cert and server_key and username and password",
        ),
        (
            {"url": "mqtt://127.0.0.1", "listen": "192.0.2.1", "username": "a", "password": "b"},
            "needs an mqtts:// url",
        ),
        (
            {"url": "mqtts://cam.example", "server_cert": "c", "server_key": "k"},
            "needs username and password, or trust.devices",
        ),
        ({"url": "mqtts://127.0.0.1"}, "needs server_cert and server_key"),
        ({"url": "mqtt://127.0.0.1", "username": "a"}, "go together"),
    ],
)
def test_what_would_expose_it_is_refused_by_the_name_of_the_setting(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(BrokerError, match=words):
        settings(Broker(**fields).listening, max_message=1)


@pytest.mark.parametrize("url", ["mqtt://0.0.0.0:1883", "mqtt://192.0.2.1", "mqtt://cam.example"])
def test_without_tls_beyond_this_machine_it_is_refused_and_says_what_to_do(url: str) -> None:
    with pytest.raises(ValidationError, match="write mqtts://host:port, or set allow_insecure = true"):
        Broker(url=url)
    assert Broker(url=url, allow_insecure=True).url == url


def test_it_may_be_exposed_on_purpose() -> None:
    exposed = settings(Broker(url="mqtt://0.0.0.0:1883", allow_insecure=True), max_message=1)
    assert exposed["mqtt"]["host"] == "0.0.0.0"  # noqa: S104 - the setting under test
    assert exposed["listen"].startswith("127.0.0.1:")


def test_a_port_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def go(port: int) -> None:
        with pytest.raises(BrokerError, match=r"Address already in use; is a broker running there already"):
            async with EmbeddedBroker(
                Broker(url=f"mqtt://127.0.0.1:{port}", data=tmp_path / "s"), max_message=1
            ):
                pass

    with servers.mosquitto() as other:
        run(go(other.port))


def test_its_end_is_reported(tmp_path: Path) -> None:
    async def go() -> None:
        async with EmbeddedBroker(local(tmp_path), max_message=1) as server:
            (pid,) = servers_of(tmp_path)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(BrokerError, match="ended with code -9"):
                await server.wait()

    run(go())


def test_it_dies_with_its_parent_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    async def fill(server: servers.Server) -> None:
        async with session(server.url, "keeper", ("k/#", 1), clean=False) as keeper:
            await keeper.wait_connected()
        async with session(server.url, "out") as out:
            await out.wait_connected()
            await asyncio.gather(*(out.publish("k/x", b"%d" % n, qos=1) for n in range(500)))
            await out.publish("kept/state", b"1", qos=1, retain=True)

    async def look(server: servers.Server) -> None:
        filters = ("k/#", 1), ("kept/#", 1)
        async with session(server.url, "keeper", *filters, clean=False) as keeper:
            got = [await take_one(keeper) for _ in range(501)]
            assert sorted(int(m.payload) for m in got if m.topic == "k/x") == list(range(500))

    with servers.nats(folder=tmp_path) as server:
        run(fill(server))
        server.kill()
        deadline = time.monotonic() + 10
        while servers_of(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not servers_of(tmp_path)
        server.start()
        run(look(server))


def test_a_client_with_a_long_and_ugly_name_cannot_stop_or_forge_our_reading_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = "\x1b[2J\u202e" + "\ufffe" * 20_000

    async def go() -> None:
        config = local(tmp_path)
        async with EmbeddedBroker(config, max_message=1_000) as server:
            for _ in range(3):
                reader, writer = await asyncio.open_connection(config.host, config.port)
                writer.write(wire.connect(client_id=name) + wire.publish("a b", b""))
                await reader.read()
                writer.close()
            ended = asyncio.create_task(server.wait())
            await asyncio.sleep(0.2)
            assert not ended.done()
            ended.cancel()

    run(go())
    lines = [record.getMessage() for record in caplog.records if "nats-server" in record.getMessage()]
    assert any("not supported" in line for line in lines)
    assert all(line.isprintable() and len(line) < 5_000 for line in lines)
