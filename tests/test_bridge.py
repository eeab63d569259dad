import asyncio
import signal
from pathlib import Path

import pytest

import servers
from facerelay.config import Broker
from facerelay.link.bridge import mosquitto_bridge
from facerelay.link.greeting import client_id
from facerelay.link.session import Session
from test_session import run, session, take_one


def bridge(url: str, *, faces: str = "faces/+/+", delivery: str = "receipt", qos: int = 1) -> str:
    return mosquitto_bridge(
        cloud=Broker(url=url), site="home", faces=faces, qos=qos, delivery=delivery, max_message=1_000_000
    )


async def state(watch: Session, wanted: bytes) -> None:
    while (await take_one(watch)).payload != wanted:
        pass


def test_both_directions_and_nothing_else() -> None:
    async def go(edge: servers.Server, cloud: servers.Server) -> None:
        async with (
            session(edge.url, "edge", ("receipts/#", 1), ("stores/#", 1)) as at_edge,
            session(cloud.url, "cloud", ("#", 1)) as at_cloud,
            session(edge.url, "watch", ("link/home", 1)) as watch,
        ):
            await state(watch, b"1")
            await at_edge.wait_connected()
            await at_cloud.wait_connected()
            assert ((await take_one(at_cloud)).topic) == "link/home"
            await at_edge.publish("secrets/x", b"no", qos=1)
            await at_edge.publish("receipts/home/o", b"forged", qos=1)
            await at_edge.publish("ledger/home/o", b"{}", qos=1, retain=True)
            await at_edge.publish("faces/home/door", b"face", qos=1)
            assert [(await take_one(at_cloud)).topic for _ in range(2)] == [
                "ledger/home/o",
                "faces/home/door",
            ]
            assert (await take_one(at_edge)).payload == b"forged"  # by itself, on its own broker
            await at_cloud.publish("faces/home/door", b"down", qos=1)
            await at_cloud.publish("receipts/other/o", b"theirs", qos=1)
            await at_cloud.publish("receipts/home/o", b"ours", qos=1)
            await at_cloud.publish("stores/s", b"hello", qos=1, retain=True)
            got = [await take_one(at_edge) for _ in range(2)]
            assert [(m.topic, m.payload) for m in got] == [
                ("receipts/home/o", b"ours"),
                ("stores/s", b"hello"),
            ]
        async with session(cloud.url, "late", ("ledger/home/o", 1)) as late:
            assert (await take_one(late)).retain

    with servers.mosquitto() as cloud, servers.mosquitto(extra_conf=bridge(cloud.url)) as edge:
        run(go(edge, cloud))


@pytest.mark.parametrize("faces", ["#", "faces/+/+"])
def test_a_receipt_comes_down_once_and_does_not_bounce(faces: str) -> None:
    async def go(edge: servers.Server, cloud: servers.Server) -> None:
        async with (
            session(edge.url, "edge", ("receipts/#", 1)) as at_edge,
            session(cloud.url, "cloud", ("receipts/#", 1), ("faces/#", 1)) as at_cloud,
            session(edge.url, "watch", ("link/home", 1)) as watch,
        ):
            await state(watch, b"1")
            await at_edge.wait_connected()
            await at_cloud.wait_connected()
            await at_cloud.publish("receipts/home/o", b"one", qos=1)
            assert (await take_one(at_edge)).payload == b"one"
            assert (await take_one(at_cloud)).payload == b"one"  # its own
            await at_edge.publish("faces/home/door", b"after", qos=1)
            assert (await take_one(at_cloud)).payload == b"after"  # so no echo came before it
            await asyncio.sleep(0.2)
            assert at_edge.unacknowledged == at_cloud.unacknowledged == 0

    with servers.mosquitto() as cloud, servers.mosquitto(extra_conf=bridge(cloud.url, faces=faces)) as edge:
        run(go(edge, cloud))


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_link_state_follows_the_cloud_broker(kind: str) -> None:
    async def go(edge: servers.Server, cloud: servers.Server) -> None:
        async with session(edge.url, "watch", ("link/home", 1)) as watch:
            await state(watch, b"1")
            async with session(cloud.url, "operator", ("link/home", 1)) as operator:
                assert (await take_one(operator)).payload == b"1"
            await asyncio.to_thread(cloud.kill)
            await state(watch, b"0")
            await asyncio.to_thread(cloud.restart, wipe=True)
            await state(watch, b"1")
        async with session(cloud.url, "operator", ("link/home", 1)) as operator:
            assert (await take_one(operator)).payload == b"1"
            await asyncio.to_thread(edge.kill)
            await state(operator, b"0")

    with getattr(servers, kind)() as cloud, servers.mosquitto(extra_conf=bridge(cloud.url)) as edge:
        run(go(edge, cloud))


def test_at_broker_level_what_waits_survives_a_cut() -> None:
    async def go(edge: servers.Server, cloud: servers.Server) -> None:
        def keeper() -> Session:
            return session(cloud.url, "keeper", ("faces/#", 1), clean=False)

        async with keeper() as early:
            await early.wait_connected()
        async with session(edge.url, "watch", ("link/home", 1)) as watch:
            await state(watch, b"1")
            await asyncio.to_thread(
                cloud.kill, signal.SIGTERM
            )  # keeps the store's session: not the point here
            await state(watch, b"0")
            for number in range(50):
                await watch.publish("faces/home/door", b"%d" % number, qos=1)
            await asyncio.to_thread(cloud.start)
            async with keeper() as late:
                assert [int((await take_one(late)).payload) for _ in range(50)] == list(range(50))

    with (
        servers.mosquitto() as cloud,
        servers.mosquitto(extra_conf=bridge(cloud.url, delivery="broker")) as edge,
    ):
        run(go(edge, cloud))


def test_what_the_broker_as_a_whole_needs_is_named() -> None:
    text = bridge("mqtt://127.0.0.1")
    for line in ("message_size_limit 1000000", "set_tcp_nodelay true", "max_queued_messages 1000"):
        assert f"\n#   {line}\n" in text


def test_tls_and_credentials_become_lines(tmp_path: Path) -> None:
    (tmp_path / "k.pem").write_text("a key")
    secure = Broker(
        url="mqtts://cloud.example",
        username="home",
        password="pass word",  # noqa: S106 - of nothing
        ca=tmp_path / "ca.pem",
        cert=tmp_path / "c.pem",
        key=tmp_path / "k.pem",
        alpn="x-amzn-mqtt-ca",
    )
    text = mosquitto_bridge(
        cloud=secure, site="home", faces="faces/+/+", qos=2, delivery="broker", max_message=1_000_000
    )
    for line in (
        "address cloud.example:8883",
        "remote_username home",
        "remote_password pass word",
        f"bridge_cafile {tmp_path}/ca.pem",
        f"bridge_certfile {tmp_path}/c.pem",
        f"bridge_keyfile {tmp_path}/k.pem",
        "bridge_alpn x-amzn-mqtt-ca",
        f"remote_clientid {client_id('home-bridge', secure)}",
        "topic faces/+/+ out 2",
        "cleansession false",
        "bridge_max_packet_size 1001024",
    ):
        assert f"\n{line}\n" in text
    assert client_id("home-bridge", secure) != "home-bridge"


@pytest.mark.parametrize("bad", ["two\nlines", " outer", "nul\x00"])
def test_a_value_that_would_become_another_line_is_refused(bad: str) -> None:
    cloud = Broker(url="mqtt://127.0.0.1", username=bad)
    with pytest.raises(ValueError, match="remote_username"):
        mosquitto_bridge(cloud=cloud, site="home", faces="f", qos=1, delivery="fast", max_message=1)
    with pytest.raises(ValueError, match="topic of faces"):
        bridge("mqtt://127.0.0.1", faces="a b")
