from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import servers
from deaf_proxy import DeafProxy
from facerelay.link.greeting import RefusedError, see_suback
from facerelay.link.heartbeat import Heartbeat
from facerelay.mqtt import NotConnectedError
from faults.link_proxy import LinkProxy
from test_session import run, session, take, take_one
from waiting import until


class Clock:
    """Seconds that the test counts."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heart(clock: Clock) -> Heartbeat:
    return Heartbeat(keepalive=15, stuck_s=30, clock=clock)


def beats(
    heart: Heartbeat, clock: Clock, count: int, *, owed: bool = True, answered: bool = True
) -> str | None:
    """Let it beat until it gives up, or so often."""
    for _ in range(count):
        if fault := heart.beat(reading=True, owed=owed):
            return fault
        clock.now += 0.1
        if answered:
            heart.heard()
            heart.answered()
        clock.now += heart.every_s - 0.1
    return None


def test_a_broker_that_answers_pings_and_acknowledges_nothing_is_stuck(
    heart: Heartbeat, clock: Clock
) -> None:
    begin = clock.now
    assert "stuck" in (beats(heart, clock, 100) or "")
    assert heart.stuck
    assert 30 <= clock.now - begin <= 45


def test_a_broker_that_owes_nothing_is_never_stuck(heart: Heartbeat, clock: Clock) -> None:
    assert beats(heart, clock, 100, owed=False) is None


def test_one_acknowledgement_now_and_then_is_enough(heart: Heartbeat, clock: Clock) -> None:
    for _ in range(20):
        assert beats(heart, clock, 4) is None
        heart.acknowledged()


def test_a_message_that_takes_minutes_on_a_thin_line_makes_nobody_stuck(
    heart: Heartbeat, clock: Clock
) -> None:
    """The ping stands in the queue behind it; other things come meanwhile."""
    for _ in range(20):
        assert heart.beat(reading=True, owed=True) is None
        heart.heard()
        clock.now += heart.every_s
    heart.acknowledged()
    for _ in range(20):
        heart.answered()
    assert beats(heart, clock, 3) is None


def test_who_does_not_read_blames_nobody(heart: Heartbeat, clock: Clock) -> None:
    assert beats(heart, clock, 3) is None
    for _ in range(20):
        assert heart.beat(reading=False, owed=True) is None
        clock.now += heart.every_s
    assert beats(heart, clock, 3) is None


def test_a_broker_that_says_nothing_is_gone(heart: Heartbeat, clock: Clock) -> None:
    assert "silent for 22.5 s" in (beats(heart, clock, 10, answered=False) or "")
    assert not heart.stuck


@asynccontextmanager
async def opened(proxy: DeafProxy | LinkProxy) -> AsyncIterator[str]:
    await proxy.start()
    try:
        yield f"mqtt://127.0.0.1:{proxy.port}"
    finally:
        await proxy.close()


@pytest.mark.parametrize("qos", [1, 2])
def test_a_stuck_connection_is_dropped_and_the_next_one_carries(
    qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def go(server: servers.Server) -> None:
        proxy = DeafProxy(server.port)
        async with (
            opened(proxy) as url,
            session(server.url, "in", ("a", 1)) as source,
            session(url, "out", keepalive=1, stuck_s=0.5) as target,
        ):
            await source.wait_connected()
            await target.wait_connected()
            await target.publish("a", b"first", qos=qos)
            proxy.stick()
            with pytest.raises(NotConnectedError, match="stuck"):
                await target.publish("a", b"second", qos=qos)
            await target.wait_connected()
            await target.publish("a", b"third", qos=qos)
            assert [(await take_one(source)).payload for _ in range(2)] == [b"first", b"third"]
            assert (target.resets, proxy.made) == (1, 2)
            assert "has acknowledged nothing" in caplog.text

    with servers.mosquitto() as server:
        run(go(server))


@asynccontextmanager
async def thin_line(port: int, *, rate: int) -> AsyncIterator[int]:
    """Carry so many bytes a second up, and hold few of them; down as fast as they come."""

    async def up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(rate // 10):
            await asyncio.sleep(len(data) / rate)
            writer.write(data)

    async def down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(up(reader, back), down(there, writer))
        except ConnectionError:
            pass
        finally:
            back.close()
            writer.close()

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        async with await asyncio.start_server(serve, sock=listener, limit=2048) as server:
            yield server.sockets[0].getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="what TCP holds can be asked on Linux alone")
def test_a_face_that_takes_longer_than_the_keep_alive_arrives_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go(server: servers.Server) -> None:
        async with (
            thin_line(server.port, rate=50_000) as port,
            session(f"mqtt://127.0.0.1:{port}", "out", keepalive=1) as target,
        ):
            await target.wait_connected()
            await target.publish("a", bytes(200_000), qos=1)
            assert "silent" not in caplog.text

    with servers.mosquitto() as server:
        run(go(server))


def test_a_slow_line_is_not_taken_for_a_stuck_one() -> None:
    async def go(server: servers.Server) -> None:
        proxy = LinkProxy(server.port)
        async with opened(proxy) as url, session(url, "out", keepalive=2, stuck_s=0.01) as target:
            await target.wait_connected()
            proxy.set("delay")
            for _ in range(6):
                await target.publish("a", bytes(1000), qos=1)
            assert target.resets == 0

    with servers.mosquitto() as server:
        run(go(server))


def test_a_full_window_of_ours_is_not_the_brokers_fault() -> None:
    async def go(server: servers.Server) -> None:
        async with (
            session(server.url, "slow", ("w", 1), window=1, keepalive=1, stuck_s=0.5) as slow,
            session(server.url, "out") as target,
        ):
            await slow.wait_connected()
            await target.wait_connected()
            for _ in range(3):
                await target.publish("w", b"x", qos=1)
            first = (await take(slow, 1))[0]
            await until(lambda: slow._connection is not None and not slow._connection.reading)
            owed = asyncio.create_task(slow.publish("elsewhere", b"", qos=1))
            await asyncio.wait([owed], timeout=3)
            first.ack()
            for _ in range(2):
                await take_one(slow)
            await owed
            assert slow.resets == 0

    with servers.mosquitto() as server:
        run(go(server))


def test_a_session_that_is_reset_comes_back_and_hears(caplog: pytest.LogCaptureFixture) -> None:
    async def go(server: servers.Server) -> None:
        states: list[bool] = []
        async with (
            session(server.url, "in", ("a", 1), on_state=states.append) as source,
            session(server.url, "out") as target,
        ):
            source.reset("not connected yet: nothing to drop")
            await source.wait_connected()
            await target.wait_connected()
            source.reset("for a reason of ours")
            await until(lambda: states == [True, False, True])
            await target.publish("a", b"heard", qos=1)
            assert (await take_one(source)).payload == b"heard"
            assert source.resets == 1
            assert "for a reason of ours" in caplog.text

    with servers.mosquitto() as server:
        run(go(server))


@pytest.mark.parametrize("kind", [servers.mosquitto, servers.nats])
def test_a_broker_that_does_not_tell_its_figures_is_a_broker_all_the_same(kind: type) -> None:
    async def go(server: servers.Server) -> None:
        figures = ("$SYS/broker/publish/messages/dropped", 0)
        async with session(server.url, "one", ("a", 1), figures) as one:
            await one.wait_connected()
            await one.publish("a", b"x", qos=1)
            while (await take_one(one)).topic != "a":
                pass

    with kind() as server:
        run(go(server))


def test_a_broker_may_refuse_its_own_figures_and_nothing_that_is_needed() -> None:
    see_suback("mqtt://b", [("$SYS/broker/x", 0), ("link/home/reset", 1), ("a", 1)], [None, None, 1])
    for needed in ("receipts/home/o", "link/home", "stores/+"):
        with pytest.raises(RefusedError, match="access list"):
            see_suback("mqtt://b", [(needed, 1)], [None])
