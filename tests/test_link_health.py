"""A link that is up and carries nothing, from the outbox to a store and back; and what is said of it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

import servers
from conftest import Make
from deaf_proxy import DeafProxy
from facerelay import face, messages, topics
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import open_bucket
from facerelay.commands import health
from facerelay.commands.running import connector
from facerelay.config import Broker, Config
from facerelay.edge import flights, silence
from facerelay.edge.capture import open_outbox
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.link.forward import forward
from facerelay.messages import Ledger, LinkHealth
from waiting import running, until


async def answer(broker: Broker) -> None:
    """Receipt each face that comes, as a store does."""
    everything = Config().limits.face
    async with connector(Config(), broker)(
        client_id="store", subscribe=[("faces/#", 1)], clean=True, window=64
    ) as session:
        async for message in session:
            frozen = face.parse(message.payload, everything)
            receipt = messages.Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome="stored")
            batch = messages.Receipts(store="store", receipts=(receipt,))
            await session.publish(
                topics.receipts(frozen.face.site, frozen.face.outbox), batch.to_bytes(), qos=1
            )
            message.ack()


def settings(tmp_path: Path, edge: servers.Server) -> Config:
    return Config.model_validate(
        {"site": "home", "broker": {"url": edge.url}, "cloud": {"url": "mqtt://127.0.0.1:1"},
         "outbox": {"path": str(tmp_path / "outbox.db"), "overdue_s": 0.5}}
    )  # fmt: skip


async def capture(outbox: Outbox, make: Make) -> None:
    frozen = make(outbox=outbox.id, run=outbox.run, seq=outbox.number())
    await asyncio.wrap_future(outbox.put(frozen, chosen=time.time()))


@pytest.mark.parametrize("stuck", ["cloud", "edge", "receipts"])
def test_a_link_that_is_up_and_silent_heals_by_itself(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    """The forwarder's connections carry nothing, or capture's own, or that one no receipts; pings pass."""
    monkeypatch.setattr(silence, "FIRST_S", 2.0)
    monkeypatch.setattr(flights, "_SILENCE", 1.0)

    async def check(edge: servers.Server, cloud: servers.Server) -> None:
        config = settings(tmp_path, edge)
        proxy = DeafProxy(cloud.port if stuck == "cloud" else edge.port)
        await proxy.start()
        between = Broker(url=f"mqtt://127.0.0.1:{proxy.port}")
        here, there = (config.broker, between) if stuck == "cloud" else (between, Broker(url=cloud.url))
        connect = partial(connector(config, here), keepalive=2, stuck_s=1.0)
        carry = forward(
            edge=config.broker, cloud=there, site="home", faces="faces/+/+", qos=1, delivery="receipt",
            window=64, max_message=10**6,
        )  # fmt: skip
        try:
            with open_outbox(config) as outbox:
                async with (
                    running(answer(Broker(url=cloud.url))),
                    running(carry),
                    relaying(config, outbox, connect) as relay,
                ):
                    await capture(outbox, make_face)
                    await until(lambda: not outbox.waiting().result())
                    proxy.stick(mute=stuck == "receipts")
                    await capture(outbox, make_face)
                    await until(lambda: not outbox.waiting().result())
                    await capture(outbox, make_face)
                    await until(lambda: not outbox.waiting().result())
                    await until(lambda: relay.in_flight == 0)
                assert outbox.ledger().result().cameras["home/door"].stored == 3
            (known,) = health.here(config).values()
            assert known.resets >= 1
            assert known.round_trip_s is not None
        finally:
            await proxy.close()

    with servers.mosquitto() as edge, servers.mosquitto() as cloud:
        asyncio.run(check(edge, cloud))


def test_what_mosquitto_dropped_is_known_at_the_edge(tmp_path: Path, make_face: Make) -> None:
    async def check(edge: servers.Server) -> None:
        config = settings(tmp_path, edge)
        with open_outbox(config) as outbox:
            async with relaying(config, outbox, connector(config)) as relay:
                await capture(outbox, make_face)
                await until(lambda: relay.pulse._broker_dropped is not None)
            (known,) = health.here(config).values()
            assert known.broker_dropped == 0
            assert known.oldest_s is not None

    with servers.mosquitto(extra_conf="sys_interval 1") as edge:
        asyncio.run(check(edge))


def test_a_line_says_how_the_link_does() -> None:
    now = datetime.now(UTC)
    assert health.line(LinkHealth(time=now, window=512_000)) == (
        "no face waits, 0.0 kB/s up, 0 of 512 kB in flight"
    )
    busy = LinkHealth(
        time=now - timedelta(hours=1), oldest_s=12.3, round_trip_s=0.25, up_bytes_s=31_000, in_flight=64_000,
        window=128_000, broker_dropped=5, cuts=2, resets=1,
    )  # fmt: skip
    assert health.line(busy).startswith(
        "the oldest face waits 12 s, 31.0 kB/s up, a receipt takes 250 ms, 64 of 128 kB in flight,"
        " down 2 times, made anew 1 times, the broker dropped 5 messages (as of 36"
    )


def test_what_edges_said_of_their_links_is_read_from_the_bucket(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"outbox": {"path": str(tmp_path / "none.db")}, "bucket": {"url": f"file://{tmp_path / 'bucket'}"}}
    )
    (tmp_path / "bucket").mkdir()

    async def check() -> None:
        bucket = open_bucket(config.bucket)
        books = Books(bucket)
        link = LinkHealth(time=datetime.now(UTC), oldest_s=3, resets=1)
        for site, said in (("home", link), ("away", None)):
            one = Ledger(outbox=site[0].encode().hex() * 16, cameras={}, link=said)
            assert books.take(topics.ledger(site, one.outbox), one.to_bytes())
        await books.flush()
        links = await health.known(config)
        assert list(links) == [f"home/{'68' * 16}"]
        assert health.lines(links)[0].startswith("link of home/68686868: the oldest face waits 3 s")
        assert health.plain(links)[f"home/{'68' * 16}"]["resets"] == 1

    asyncio.run(check())


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({"oldest_s": 400.0, "up_bytes_s": 0}, "receipts/home/#"),
        ({"oldest_s": 50.0, "up_bytes_s": 900, "silent_s": 40.0}, "no receipt for 40 s"),
        ({"oldest_s": 400.0, "up_bytes_s": 900}, None),
        ({}, None),
    ],
)
def test_the_doctor_finds_a_link_on_which_faces_stand_still(
    tmp_path: Path, figures: dict[str, float], word: str | None
) -> None:
    config = Config.model_validate({"site": "home", "outbox": {"path": str(tmp_path / "o.db")}})
    assert "not said yet" in asyncio.run(health.check(config))
    with open_outbox(config) as outbox:
        assert "not said yet" in asyncio.run(health.check(config))
        known = LinkHealth.model_validate({"time": datetime.now(UTC), **figures})
        outbox.note("link", known.to_bytes().decode()).result()
    if word is None:
        assert "kB/s up" in asyncio.run(health.check(config))
        return
    with pytest.raises(health.LinkError, match=word):
        asyncio.run(health.check(config))


def test_a_damaged_note_is_no_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = Config.model_validate({"site": "home", "outbox": {"path": str(tmp_path / "o.db")}})
    with open_outbox(config) as outbox:
        outbox.note("link", '{"time": "yesterday"}').result()
    assert health.here(config) == {}
    assert "cannot be read" in caplog.text
