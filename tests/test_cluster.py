"""Our broker as three nodes, stores that pull from them, an outbox: whoever is killed, the books close."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nats

from balancer import balancer
from chains import Chain, Part, eventually, facerelay
from enrolled import Enrolled
from facerelay import settings
from facerelay.config import Broker
from facerelay.link.session import Session
from facerelay.mqtt import NotConnectedError
from servers import free_port
from test_session import run


def three_ports() -> list[int]:
    return [free_port() for _ in range(3)]


@dataclass
class Cluster:
    """Three nodes and their ports: of MQTT, of the NATS protocol, and of one another."""

    nodes: list[Part] = field(default_factory=list)
    mqtt: list[int] = field(default_factory=three_ports)
    nats: list[int] = field(default_factory=three_ports)
    routes: list[int] = field(default_factory=three_ports)

    def start(self) -> None:
        """Start all of them, and return when they serve."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            eventually(partial(serves, node))

    def leader(self) -> Part:
        """Return the node that leads the stream of faces, which all three keep."""

        async def ask() -> str:
            client = await nats.connect([f"nats://127.0.0.1:{port}" for port in self.nats])
            info = await client.jetstream().stream_info("faces")
            await client.close()
            assert info.cluster is not None
            assert info.config.num_replicas == 3
            return str(info.cluster.leader)

        return self.nodes[int(asyncio.run(ask()).removeprefix("node"))]


def node(folder: Path, number: int, cluster: Cluster, broker: dict[str, Any], **more: Any) -> Part:  # noqa: ANN401 - any settings
    """Write the settings of a node, of TLS where the broker has a certificate, and return how to run it."""
    tls, name = "server_cert" in broker, f"node{number}"
    mqtt, pull = ("mqtts", "tls") if tls else ("mqtt", "nats")
    values = {
        "broker": {"url": f"{mqtt}://localhost:{cluster.mqtt[number]}", "listen": "127.0.0.1",
                   "data": f"state-{name}", **broker},
        "cluster": {
            "node": name, "listen": f"nats://127.0.0.1:{cluster.routes[number]}",
            "routes": [f"nats://localhost:{port}" for port in cluster.routes],
            "clients": f"{pull}://127.0.0.1:{cluster.nats[number]}",
        },
        **more,
    }  # fmt: skip
    path = folder / f"{name}.toml"
    path.write_text(settings.template(settings.CLOUD, values))
    command = [sys.executable, "-m", "facerelay", "broker", "-c", str(path)]
    return Part(name, command, folder / f"{name}.log", folder / f"state-{name}")


@contextmanager
def cluster_of(folder: Path, broker: dict[str, Any] | None = None, **more: Any) -> Iterator[Cluster]:  # noqa: ANN401 - any settings
    found = Cluster()
    found.nodes += [node(folder, number, found, broker or {}, **more) for number in range(3)]
    with ended(found.nodes):
        yield found


@contextmanager
def ended(parts: Sequence[Part]) -> Iterator[None]:
    try:
        yield
    finally:
        for part in parts:
            part.end()


def serves(part: Part, times: int = 1) -> bool:
    return part.text().count("most nodes are up: it serves") >= times


def store(folder: Path, name: str, cluster: Cluster, **more: Any) -> Part:  # noqa: ANN401 - any settings
    """Start a store, and return when it pulls."""
    path = folder / f"{name}.toml"
    values = {
        "store": {"name": name, "intake": "jetstream"},
        "jetstream": {"servers": [f"nats://localhost:{port}" for port in cluster.nats]},
        "bucket": {"url": f"file://{folder}/bucket"}, **more,
    }  # fmt: skip
    path.write_text(settings.template(settings.CLOUD, values))
    part = Part(name, [sys.executable, "-m", "facerelay", "store", "-c", str(path)], folder / f"{name}.log")
    part.start()
    return part


def pulls(part: Part) -> bool:
    return "pulls from stream faces" in part.text()


def test_a_node_alone_waits_for_the_others_and_says_so(tmp_path: Path) -> None:
    async def publish(name: str) -> None:
        url = f"mqtt://127.0.0.1:{cluster.mqtt[0]}"
        async with Session(Broker(url=url), client_id=name, max_message=1_000) as edge:
            async with asyncio.timeout(40):
                while True:
                    await edge.wait_connected()
                    try:  # while the nodes choose who leads, they may close a connection instead of an answer
                        return await edge.publish("faces/door/cam", b"face", qos=1)
                    except NotConnectedError:
                        continue

    with cluster_of(tmp_path) as cluster:
        first, second, third = cluster.nodes
        first.start()
        eventually(lambda: "waits for the other nodes, most of which have to be up" in first.text())
        assert first.process is not None
        assert first.process.poll() is None
        assert not serves(first)
        third.start()
        eventually(partial(serves, first))
        second.start()
        run(publish("with-all"))
        second.kill()
        run(publish("with-most"))
        third.kill()
        waited = first.text().count("waits for the other nodes")
        eventually(lambda: first.text().count("waits for the other nodes") > waited, timeout=40)
        second.start()
        eventually(partial(serves, first, 2))
        run(publish("again"))


def test_a_node_and_a_store_are_killed_under_load_and_the_books_close(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_of(tmp_path))
        port = stack.enter_context(balancer(cluster.mqtt))
        cluster.start()
        broker = {"url": f"mqtt://127.0.0.1:{port}"}
        edge = {"site": "home", "direct": True, "broker": broker, "outbox": {"overdue_s": 2.0},
                "bucket": {"url": f"file://{tmp_path}/bucket"}}  # fmt: skip
        (tmp_path / "edge.toml").write_text(settings.template((*settings.EDGE, "bucket"), edge))
        one, two = (store(tmp_path, name, cluster, broker=broker) for name in ("one", "two"))
        stack.enter_context(ended([one, two]))
        for each in (one, two):
            eventually(partial(pulls, each))
        config = settings.load(tmp_path / "edge.toml", environ={})
        chain = Chain(tmp_path, config, config, {each.name: each for each in (one, two, *cluster.nodes)})
        leader = cluster.leader()
        feeder = chain.feed(1_000, 200)
        stack.enter_context(ended([feeder]))
        eventually(lambda: len(chain.objects()) > 200)
        leader.kill()
        eventually(lambda: len(chain.objects()) > 400)
        one.kill()
        leader.restart()
        chain.finished(feeder)
        books = chain.books()
        assert books["lost"] == 0
        account = books["cameras"]["home/door"]
        assert (account["captured"], account["stored"], account["waiting"]) == (1_000, 1_000, 0)
        ids = [path.stem.rsplit("-", 1)[0].split("-", 1)[1] for path in chain.objects()]
        assert len(ids) == len(set(ids)) == 1_000
        eventually(partial(serves, leader, 2))


def test_enrolled_nodes_know_each_other_and_nobody_else_becomes_one(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path, sites=("door",))
    trust = cloud.folder / "trust"
    known = {"authority": str(trust / "authority.pem"), "devices": str(trust / "devices")}
    ca = {"ca": known["authority"]}
    server = {"server_cert": str(trust / "broker.pem"), "server_key": str(trust / "broker.key"), **ca}
    own = {"cert": str(trust / "store.pem"), "key": str(trust / "store.key")}
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_of(tmp_path, server, trust=known))
        port = stack.enter_context(balancer(cluster.mqtt))
        cluster.start()
        main = store(
            tmp_path, "main", cluster,
            broker={"url": f"mqtts://localhost:{port}", **own, **ca},
            trust={**known, **own},
            jetstream={"servers": [f"tls://localhost:{each}" for each in cluster.nats]},
        )  # fmt: skip
        stack.enter_context(ended([main]))
        eventually(partial(pulls, main))
        said = facerelay("doctor", "-c", str(tmp_path / "main.toml")).stdout
        assert re.search(r"ok    stream: stream faces is kept by 3 nodes; \d+ faces wait for group", said), (
            said
        )
        site = cloud.edge().cloud
        assert site is not None
        theirs = Cluster(routes=[*cluster.routes[:2], free_port()])
        rogue = node(
            tmp_path / "door", 2, theirs, {"server_cert": str(site.cert), "server_key": str(site.key), **ca}
        )
        rogue.start()
        stack.enter_context(ended([rogue]))
        eventually(lambda: " - authentication error" in cluster.nodes[0].text())
        eventually(lambda: "waits for the other nodes" in rogue.text())
        assert not serves(rogue)
