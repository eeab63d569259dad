"""Faces by a JetStream stream that stores share: what edges publish by MQTT, each to one store, none lost."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError

import servers
from enrolled import Enrolled
from facerelay.cloud.store import serve_store
from facerelay.commands.running import connector
from facerelay.config import Broker, Bucket, Config
from facerelay.link.broker import BrokerError, EmbeddedBroker
from facerelay.link.jetstream import JetStreamPull, Pulled, examine
from facerelay.link.nats import settings
from facerelay.link.nodes import is_own
from facerelay.link.requests import Requests
from facerelay.link.session import Session
from facerelay.link.stream import StreamError
from facerelay.link.subjects import covers, subject, topic
from facerelay.link.tls import tls_context
from facerelay.metrics import Meters, catalogue
from facerelay.sections import Cluster, JetStream, Store, Trust
from test_session import run, session
from waiting import until

MOST = 100_000
WAIT_S = 30.0


@pytest.fixture
def port() -> int:
    return servers.free_port()


@pytest.fixture
def broker(port: int) -> Iterator[servers.Server]:
    with servers.nats(max_message=MOST, cluster={"clients": f"nats://127.0.0.1:{port}"}) as server:
        yield server


def puller(broker: str, port: int, name: str = "one", **options: Any) -> JetStreamPull:  # noqa: ANN401 - passed on
    stream = {"servers": (f"nats://127.0.0.1:{port}",), **options.pop("stream", {})}
    values: dict[str, Any] = {"group": "stores", "faces": "faces/+/+", "max_message": MOST, **options}
    login = options.pop("login", {})
    values.pop("login", None)
    return JetStreamPull(Broker(url=broker, **login), JetStream(**stream), name=name, **values)


async def pulled(source: JetStreamPull, count: int) -> list[Pulled]:
    """Return so many faces, each acknowledged."""
    found = [await asyncio.wait_for(anext(source), WAIT_S) for _ in range(count)]
    for each in found:
        each.ack()
        each.ack()
    return found


async def connected(*sources: JetStreamPull) -> None:
    await until(lambda: all(each.connected for each in sources))


async def publish(edge: Session, numbers: range, qos: int = 1) -> None:
    await edge.wait_connected()
    await asyncio.gather(*(edge.publish("faces/door/cam", b"%d" % each, qos=qos) for each in numbers))


@asynccontextmanager
async def collecting(source: JetStreamPull, into: list[int]) -> AsyncIterator[None]:
    async def collect() -> None:
        async for each in source:
            into.append(int(each.payload))
            each.ack()

    task = asyncio.create_task(collect())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def admin(port: int) -> AsyncIterator[Client]:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        yield client
    finally:
        await client.close()


async def empty(port: int) -> None:
    """Wait until the stream holds nothing: all was acknowledged."""
    async with admin(port) as client:
        while (await client.jetstream().stream_info("faces")).state.messages:
            await asyncio.sleep(0.05)


def test_what_an_edge_publishes_at_any_quality_is_pulled_once(broker: servers.Server, port: int) -> None:
    async def go() -> None:
        async with session(broker.url, "edge") as edge, puller(broker.url, port) as source:
            await connected(source)
            await edge.wait_connected()
            for qos in (0, 1, 2):
                await edge.publish("faces/door.x/cam", b"%d" % qos, qos=qos)
            found = await pulled(source, 3)
            assert [each.payload for each in found] == [b"0", b"1", b"2"]
            assert {(each.topic, each.retain) for each in found} == {("faces/door.x/cam", False)}
            await empty(port)

    run(go())


@pytest.mark.parametrize("name", ["faces/door/cam", "faces/a.b/c", "a..b/c", "/a", "a//b", "a/", "x"])
def test_a_topic_comes_back_from_its_subject(name: str) -> None:
    assert topic(subject(name)) == name


@pytest.mark.parametrize(
    ("wide", "narrow", "whether"),
    [
        ("faces.*.*", "faces.*.*", True), ("faces.>", "faces.*.*", True), (">", "a", True),
        ("faces.*", "faces.door", True), ("faces.>", "faces", False), ("faces.*", "faces.>", False),
        ("faces.*.*", "a.*", False), ("faces.door", "faces.*", False), ("faces.*", "faces.a.b", False),
        ("a.b.>", "a.b.>", True), ("a.*.>", "a.>", False),
    ],
)  # fmt: skip
def test_whether_a_stream_has_all_that_is_wanted(wide: str, narrow: str, whether: bool) -> None:  # noqa: FBT001 - a parameter
    assert covers(wide, narrow) is whether


def test_stores_of_a_group_share_and_one_that_comes_or_goes_changes_nothing(
    broker: servers.Server, port: int
) -> None:
    one: list[int] = []
    two: list[int] = []

    async def go() -> None:
        async with session(broker.url, "edge") as edge, AsyncExitStack() as stack:
            first = await stack.enter_async_context(puller(broker.url, port, "one", window=8))
            await stack.enter_async_context(collecting(first, one))
            await connected(first)
            await publish(edge, range(100))
            await until(lambda: len(one) == 100)
            async with puller(broker.url, port, "two", window=8) as second, collecting(second, two):
                await connected(second)
                await publish(edge, range(100, 500))
                await until(lambda: len(one) + len(two) == 500)
                assert two
            await publish(edge, range(500, 600))
            await until(lambda: len(one) + len(two) == 600)
            await empty(port)
        assert sorted(one + two) == list(range(600))

    run(go())


def test_what_was_pulled_and_not_taken_is_handed_back_at_the_end(broker: servers.Server, port: int) -> None:
    async def go() -> None:
        async with session(broker.url, "edge") as edge:
            async with puller(broker.url, port, "one", window=50) as first:
                await connected(first)
                await publish(edge, range(40))
                (taken,) = await pulled(first, 1)
                await until(lambda: first._came.qsize() == 39)
            async with puller(broker.url, port, "two", window=50) as second:
                found = await pulled(second, 39)
                got = {int(each.payload) for each in (taken, *found)}
                assert got == set(range(40))

    run(go())


def test_no_more_is_pulled_than_there_is_room_for(broker: servers.Server, port: int) -> None:
    async def go() -> None:
        async with session(broker.url, "edge") as edge, puller(broker.url, port, window=10) as source:
            await connected(source)
            await publish(edge, range(200))
            await until(lambda: source.pending is not None and source.pending == 200)
            assert source._came.qsize() <= 10
            found = {int(each.payload) for each in await pulled(source, 200)}
            assert found == set(range(200))

    run(go())


def test_a_broker_that_was_killed_and_came_back(
    broker: servers.Server, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        async with puller(broker.url, port) as source:
            async with session(broker.url, "edge") as edge:
                await connected(source)
                await publish(edge, range(10))
                await pulled(source, 10)
            await asyncio.to_thread(broker.restart)
            async with session(broker.url, "again") as edge:
                await connected(source)
                await publish(edge, range(10, 20))
                while {int(each.payload) for each in await pulled(source, 1)} != {19}:
                    pass
        assert "trying again" in caplog.text

    run(go())


@pytest.mark.parametrize("what", ["stream", "consumer"])
def test_a_stream_or_consumer_that_was_deleted_is_made_anew(
    broker: servers.Server, port: int, what: str
) -> None:
    async def go() -> None:
        async with session(broker.url, "edge") as edge, puller(broker.url, port) as source:
            await connected(source)
            await publish(edge, range(5))
            await pulled(source, 5)
            async with admin(port) as client:
                js = client.jetstream()
                await (
                    js.delete_stream("faces") if what == "stream" else js.delete_consumer("faces", "stores")
                )
                await until(lambda: not source.connected)
                await connected(source)
            await publish(edge, range(5, 8))
            assert [int(each.payload) for each in await pulled(source, 3)] == [5, 6, 7]

    run(go())


def test_a_full_stream_lets_the_oldest_go(broker: servers.Server, port: int) -> None:
    async def go() -> None:
        small: dict[str, Any] = {"stream": {"max_bytes": 10_000_000}}
        async with session(broker.url, "edge") as edge:
            async with puller(broker.url, port, **small) as source:
                await connected(source)
            await edge.wait_connected()
            for number in range(150):
                await edge.publish("faces/door/cam", b"%d " % number + bytes(90_000), qos=1)
            async with puller(broker.url, port, **small) as source:
                await until(lambda: source.pending is not None)
                assert source.pending is not None
                found = await pulled(source, source.pending)
                assert int(found[-1].payload.split()[0]) == 149
                assert len(found) < 112

    run(go())


def test_a_message_over_the_limit_is_discarded_and_counted(
    broker: servers.Server, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int]] = []

    async def go() -> None:
        seen = puller(broker.url, port, max_message=1_000)
        seen.on_oversize = lambda *facts: told.append(facts)
        async with session(broker.url, "edge") as edge, seen as source:
            await connected(source)
            await edge.wait_connected()
            await edge.publish("faces/door/cam", bytes(1_001), qos=1)
            await edge.publish("faces/door/cam", bytes(1_000), qos=1)
            (found,) = await pulled(source, 1)
            assert len(found.payload) == 1_000
            assert (source.oversize, told) == (1, [("faces/door/cam", 1_001)])
            await empty(port)
        assert "over the limit of 1000" in caplog.text

    run(go())


def test_a_store_counts_what_its_stream_discards(broker: servers.Server, port: int, tmp_path: Path) -> None:
    place = Bucket(url=f"file://{tmp_path}")
    known = Config(broker=Broker(url=broker.url), bucket=place, store=Store(intake="jetstream"))
    meters, ready = Meters(), asyncio.Event()

    async def discarded() -> dict[str, object]:
        found = [each for each in await meters.read() if each.metric is catalogue.DISCARDED]
        return {each.labels[0]: each.value for each in found}

    async def go() -> None:
        pull = puller(broker.url, port, max_message=1_000)
        task = asyncio.create_task(
            serve_store(known, connector(known), pull=pull, ready=ready.set, meters=meters)
        )
        async with session(broker.url, "edge") as edge:
            await edge.wait_connected()
            await ready.wait()
            await connected(pull)
            await edge.publish("faces/door/cam", bytes(1_001), qos=1)
            await until(lambda: pull.oversize)
            assert (await discarded())["too-large"] == 1
        task.cancel()
        await asyncio.wait([task])

    run(go())


def test_whoever_has_the_wrong_password_is_told_so(port: int, tmp_path: Path) -> None:
    login = {"username": "cloud", "password": "right"}
    clients = {"clients": f"nats://127.0.0.1:{port}"}
    with servers.nats(settings=login, folder=tmp_path, cluster=clients) as server:

        async def go() -> None:
            async with puller(server.url, port, login=login) as source:
                await connected(source)
                wrong = login | {"password": "wrong"}
                async with puller(server.url, port, login=wrong) as other:
                    await until(lambda: "refused our login" in other.trouble)
                    assert "refused our login" in await other.look()
                with pytest.raises(StreamError, match="refused our login"):
                    await examine(Broker(**wrong), source._settings, name="one", group="stores")

        run(go())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"group": "others"}, "belongs to another group than 'others': set store.group"),
        ({"faces": "a/+", "group": "others"}, r"stream faces is of faces\.\*\.\*, not of a\.\*: see"),
        ({"stream": {"stream": "more"}}, "another stream than more has faces"),
        ({"stream": {"stream": "more", "replicas": 3}, "faces": "a/+"}, "needs a cluster"),
    ],
)
def test_what_cannot_be_says_what_to_do(
    broker: servers.Server, port: int, other: dict[str, Any], words: str
) -> None:
    async def go() -> None:
        async with puller(broker.url, port) as source:
            await connected(source)
            async with puller(broker.url, port, **other) as second:
                await until(lambda: re.search(words, second.trouble))

    run(go())


def test_a_group_takes_what_it_took_first(broker: servers.Server, port: int) -> None:
    async def go() -> None:
        async with admin(port) as client:
            await client.jetstream().add_stream(name="faces", subjects=["faces.>"], retention="workqueue")
        async with puller(broker.url, port) as source:
            await connected(source)
            async with puller(broker.url, port, faces="faces/+") as other:
                words = r"group stores takes faces\.\*\.\* from stream faces, not faces\.\*"
                await until(lambda: re.search(words, other.trouble))

    run(go())


def test_how_the_stream_does_is_said(broker: servers.Server, port: int) -> None:
    async def see() -> str:
        servers_ = JetStream(servers=(f"nats://127.0.0.1:{port}",))
        return await examine(Broker(url=broker.url), servers_, name="one", group="stores")

    async def go() -> None:
        assert await see() == "stream faces is not there yet: the first store makes it"
        async with puller(broker.url, port) as source, session(broker.url, "edge") as edge:
            await connected(source)
            assert await see() == "stream faces is kept by 1 node; 0 faces wait for group stores"
            await publish(edge, range(3))
            await until(lambda: source._came.qsize() == 3)
            assert "; 3 faces wait for group stores" in await see()
        with pytest.raises(StreamError, match=r"connection refused|[Cc]onnect call failed"):
            await examine(Broker(), JetStream(servers=("nats://127.0.0.1:1",)), name="one", group="stores")

    run(go())


# Room and requests


def test_half_a_window_is_asked_for_at_a_time_and_a_silent_request_is_lost() -> None:
    now = 0.0
    requests = Requests(window=10, max_bytes=1_000, clock=lambda: now)
    asked = requests.ask(0)
    assert asked is not None
    number, wanted = asked
    assert (json.loads(wanted)["batch"], len(requests)) == (10, 10)
    for _ in range(4):
        requests.came(number)
    assert requests.ask(0) is None
    requests.came(number)
    assert requests.ask(5) is None
    assert (requests.ask(0) or ("", b"{}"))[0] == "2"
    now = 2.0
    requests.alive(number)
    now = 4.0
    again = requests.ask(0)
    assert again is not None
    assert json.loads(again[1])["batch"] == 5
    requests.ended(number)
    requests.came("unknown")
    assert len(requests) == 5
    requests.forget()
    assert len(requests) == 0


# Who may use the NATS protocol


@pytest.fixture
def cloud(tmp_path: Path) -> Enrolled:
    return Enrolled.make(tmp_path, sites=("door",))


@asynccontextmanager
async def enrolled(cloud: Enrolled, port: int) -> AsyncIterator[EmbeddedBroker]:
    config = cloud.cloud
    async with EmbeddedBroker(
        config.broker.listening, max_message=MOST, trust=config.trust, faces=config.face_topic,
        cluster=Cluster(clients=f"tls://localhost:{port}"),
    ) as server:  # fmt: skip
        yield server


async def dial(broker: Broker, port: int, complaints: list[str] | None = None) -> Client:
    async def heed(error: Exception) -> None:
        if complaints is not None:
            complaints.append(f"{error}")

    return await nats.connect(
        f"tls://localhost:{port}", tls=tls_context(broker), allow_reconnect=False, error_cb=heed,
        inbox_prefix="_INBOX.main", connect_timeout=3,
    )  # fmt: skip


def test_an_enrolled_store_pulls_and_nobody_else_comes_in(cloud: Enrolled, port: int) -> None:
    async def go() -> None:
        server = JetStream(servers=(f"tls://localhost:{port}",))
        values: dict[str, Any] = {"faces": "faces/+/+", "group": "stores", "max_message": MOST}
        async with enrolled(cloud, port):
            edge = Session(cloud.client(), client_id="door", max_message=MOST)
            source = JetStreamPull(cloud.client("store"), server, name="main", **values)
            async with edge, source:
                await connected(source)
                await publish(edge, range(3))
                assert len(await pulled(source, 3)) == 3
                await until(lambda: source.pending == 0)
            for who in (cloud.client(), cloud.client("gallery"), cloud.anonymous(), cloud.stranger()):
                async with JetStreamPull(who, server, name="main", **values) as other:
                    await until(lambda other=other: other.trouble)  # type: ignore[misc]
                    assert not other.connected
                with pytest.raises((NatsError, OSError)):
                    await dial(who, port)

    run(go())


def test_a_store_gets_the_stream_of_faces_alone(cloud: Enrolled, port: int) -> None:
    complaints: list[str] = []
    forbidden = [
        "$JS.API.STREAM.INFO.$MQTT_rmsgs", "$JS.API.STREAM.MSG.GET.$MQTT_rmsgs",
        "$JS.API.DIRECT.GET.$MQTT_rmsgs", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.DELETE.faces",
        "$JS.API.STREAM.PURGE.faces", "$JS.API.STREAM.UPDATE.faces", "$JS.API.STREAM.CREATE.other",
        "$JS.API.CONSUMER.CREATE.$MQTT_rmsgs.x", "$JS.API.CONSUMER.DELETE.faces.stores",
        "$JS.API.CONSUMER.MSG.NEXT.$MQTT_sess.x", "$JS.API.INFO", "$SYS.REQ.SERVER.PING",
        "faces.door.cam", "$MQTT.msgs.faces.door.cam",
    ]  # fmt: skip

    async def go() -> None:
        async with enrolled(cloud, port):
            client = await dial(cloud.client("store"), port, complaints)
            for each in forbidden:
                await client.publish(each, b"{}", reply="_INBOX.main.x")
                await client.flush()
                await until(lambda each=each: any(f'"{each.lower()}"' in said for said in complaints))  # type: ignore[misc]
            for each in ("receipts.>", ">", "_INBOX.>", "$MQTT.msgs.>", "$JS.>"):
                await client.subscribe(each)
                await client.flush()
                await until(lambda each=each: any(f'"{each.lower()}"' in said for said in complaints))  # type: ignore[misc]
            await client.close()

    run(go())


# What the settings say


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"clients": "nats://0.0.0.0:4222"}, r"cluster\.clients: 0\.0\.0\.0 .* needs tls://"),
        ({"clients": "tls://127.0.0.1:4222"}, r"tls:// needs an mqtts://"),
        (
            {"listen": "nats://0.0.0.0", "routes": ["nats://a"], "node": "a"},
            r"cluster\.listen: .*server_cert",
        ),
    ],
)
def test_a_server_does_not_expose_itself(cluster: dict[str, Any], words: str) -> None:
    with pytest.raises(BrokerError, match=words):
        settings(Broker(), max_message=MOST, cluster=Cluster(**cluster))


def test_what_does_not_fit_together_is_told(cloud: Enrolled, port: int) -> None:
    config = cloud.cloud
    plain = Cluster(clients=f"nats://127.0.0.1:{port}")
    with pytest.raises(BrokerError, match="stores are known by certificates: write tls://"):
        EmbeddedBroker(config.broker, max_message=MOST, trust=config.trust, cluster=plain)
    nodes = Cluster(listen="nats://127.0.0.1", routes=("nats://127.0.0.2",), node="a")
    with pytest.raises(BrokerError, match="known by their hosts' names"):
        EmbeddedBroker(config.broker, max_message=MOST, trust=config.trust, cluster=nodes)
    lone = config.broker.model_copy(update={"ca": None})
    with pytest.raises(BrokerError, match=r"set broker\.ca"):
        EmbeddedBroker(lone, max_message=MOST, trust=Trust(), cluster=nodes)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        (Cluster, {"listen": "nats://127.0.0.1"}, "listen needs routes"),
        (Cluster, {"routes": ["nats://127.0.0.1"]}, "need listen"),
        (Cluster, {"replicas": 3}, "need listen"),
        (Cluster, {"listen": "nats://h", "routes": ["nats://h"]}, "own node"),
        (Cluster, {"clients": "mqtt://h"}, "nats://host:port, or tls://host:port"),
        (Cluster, {"clients": "nats://a:b@h"}, r"those of \[broker\]"),
        (JetStream, {"servers": []}, "at least 1"),
        (JetStream, {"servers": ["nats://h/path"]}, "write it as"),
        (JetStream, {"stream": "a.b"}, "pattern"),
    ],
)
def test_the_sections_say_what_does_not_fit(section: Any, values: dict[str, Any], words: str) -> None:  # noqa: ANN401 - a class
    with pytest.raises(ValidationError, match=words):
        section(**values)


def test_beyond_this_machine_the_stream_is_asked_by_tls() -> None:
    values: dict[str, Any] = {"store": {"intake": "jetstream"}, "jetstream": {"servers": ["nats://far"]}}
    with pytest.raises(ValidationError, match=r"jetstream\.servers: nats://far: .*tls://"):
        Config(**values)
    Config(**values, broker={"allow_insecure": True})


@pytest.mark.parametrize(
    ("route", "own"),
    [
        ("nats://a.nodes:6222", True), ("nats://a.nodes", True), ("nats://b.nodes:6222", False),
        ("nats://a.nodes:6223", False), ("nats://127.0.0.1", True), ("nats://203.0.113.9", False),
    ],
)  # fmt: skip
def test_a_node_knows_the_route_to_itself(route: str, own: bool) -> None:  # noqa: FBT001 - a parameter
    cluster = Cluster(node="a", listen="nats://0.0.0.0", routes=(route,))
    assert is_own(route, cluster) is own
