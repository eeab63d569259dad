import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import servers
from facerelay.config import Broker
from facerelay.link import wire
from facerelay.link.rival import Rival
from facerelay.link.session import Message, NotConnectedError, Session, Will
from fake_server import fake_server
from waiting import until

WAIT_S = 30.0


def session(server_url: str, client_id: str, *filters: tuple[str, int], **options: Any) -> Session:  # noqa: ANN401 - passed on
    options.setdefault("max_message", 1_000_000)
    return Session(Broker(url=server_url), client_id=client_id, subscribe=filters, **options)


async def take(source: Session, count: int) -> list[Message]:
    return [await asyncio.wait_for(anext(source), WAIT_S) for _ in range(count)]


async def take_one(source: Session) -> Message:
    (message,) = await take(source, 1)
    message.ack()
    message.ack()
    return message


def run(test: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(120):
            await test

    asyncio.run(limited())


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 - a generator fixture's value
    with (
        servers.mosquitto(extra_conf="max_queued_messages 10000")
        if request.param == "mosquitto"
        else servers.nats() as server
    ):
        yield server


def test_every_quality_arrives_once_in_order_with_its_flags(broker: servers.Server) -> None:
    async def go() -> None:
        async with (
            session(broker.url, "in", ("a/#", 2)) as source,
            session(broker.url, "out") as target,
        ):
            await source.wait_connected()
            await target.wait_connected()
            for qos in (0, 1, 2):
                for number in range(20):
                    await target.publish(f"a/b.c/{qos}", bytes([number]), qos=qos)
            got = [await take_one(source) for _ in range(60)]
            for qos in (0, 1, 2):
                mine = [m for m in got if m.topic == f"a/b.c/{qos}"]
                assert [m.payload[0] for m in mine] == list(range(20))
                assert {m.qos for m in mine} == {qos}
            assert source.unacknowledged == 0
            await target.publish("a/kept", b"state", qos=1, retain=True)
            (live,) = await take(source, 1)
            assert not live.retain
        async with session(broker.url, "late", ("a/kept", 1)) as late:
            (kept,) = await take(late, 1)
            assert (kept.payload, kept.retain) == (b"state", True)

    run(go())


def test_what_was_not_acknowledged_comes_again_to_a_persistent_session(broker: servers.Server) -> None:
    async def go(qos: int) -> None:
        def keeper() -> Session:
            return session(broker.url, f"keeper{qos}", (f"k{qos}/#", qos), clean=False)

        async with keeper() as source, session(broker.url, f"out{qos}") as target:
            await source.wait_connected()
            await target.wait_connected()
            for number in range(4):
                await target.publish(f"k{qos}/x", bytes([number]), qos=qos)
            first = await take(source, 4)
            first[0].ack()
            first[2].ack()
        first[1].ack()  # too late: its connection is gone
        async with keeper() as source:
            again: set[int] = set()
            while not again >= {1, 3}:
                again.add((await take_one(source)).payload[0])

    async def both() -> None:
        await asyncio.gather(go(1), go(2))

    run(both())


def test_a_full_window_stops_reading_and_the_session_stays_alive() -> None:
    async def go(server: servers.Server) -> None:
        async with session(server.url, "slow", ("w/#", 1), clean=False) as source:
            await source.wait_connected()
        async with session(server.url, "out") as target:
            await target.wait_connected()
            await asyncio.gather(*(target.publish("w/x", bytes(9_000), qos=1) for _ in range(3_000)))
        states: list[bool] = []
        async with session(
            server.url, "slow", ("w/#", 1), clean=False, window=50, keepalive=1, on_state=states.append
        ) as source:
            held = await take(source, 50)
            await asyncio.sleep(3.5)  # longer than either side's patience with a silent peer
            assert source.unacknowledged == 50
            for message in held:
                message.ack()
            for _ in range(2_950):
                (message,) = await take(source, 1)
                assert source.unacknowledged <= 50
                message.ack()
            await source.wait_connected()
            assert states == [True]

    with servers.mosquitto(extra_conf="max_queued_messages 10000\nmax_inflight_messages 0") as server:
        run(go(server))


def test_it_comes_back_and_subscribes_again_after_kill_9_and_lost_state(broker: servers.Server) -> None:
    async def go() -> None:
        states: list[bool] = []
        async with (
            session(broker.url, "in", ("r/#", 1), on_state=states.append) as source,
            session(broker.url, "out") as target,
        ):
            with pytest.raises(NotConnectedError, match="not yet"):
                await target.publish("r/x", b"")
            for _ in range(2):
                await source.wait_connected()
                await target.wait_connected()
                await target.publish("r/x", b"1", qos=1)
                (message,) = await take(source, 1)
                message.ack()
                await asyncio.to_thread(broker.kill)
                await until(lambda: not source.connected and not target.connected)
                with pytest.raises(NotConnectedError):
                    await target.publish("r/x", b"2", qos=1)
                await asyncio.to_thread(broker.restart, wipe=True)
            await source.wait_connected()
            assert states == [True, False, True, False, True]

    run(go())


def test_will_is_published_for_a_lost_session_and_not_for_one_that_leaves(broker: servers.Server) -> None:
    async def go() -> None:
        async with session(broker.url, "watch", ("link/#", 1)) as watch:
            await watch.wait_connected()
            for name in ("leaves", "lost"):
                will = Will(f"link/{name}", b"0", 1, retain=True)
                async with session(broker.url, name, will=will) as mortal:
                    await mortal.wait_connected()
                    if name == "lost":
                        assert mortal._connection is not None
                        mortal._connection.abort(ConnectionError("cut by the test"))
                        await until(lambda: not mortal.connected)
            (message,) = await take(watch, 1)
            assert (message.topic, message.payload) == ("link/lost", b"0")

    run(go())


def test_many_publishes_at_once_wait_for_a_place_in_flight(broker: servers.Server) -> None:
    async def go() -> None:
        async with (
            session(broker.url, "in", ("m/#", 1), window=5_000) as source,
            session(broker.url, "out") as out,
        ):
            await source.wait_connected()
            await out.wait_connected()
            sends = [asyncio.create_task(out.publish("m/x", b"%d" % n, qos=1)) for n in range(3_000)]
            await asyncio.sleep(0)
            sends[2_500].cancel()
            got = []
            for _ in range(2_999):
                (message,) = await take(source, 1)
                message.ack()
                got.append(int(message.payload))
            assert got == [n for n in range(3_000) if n != 2_500]
            await asyncio.wait(sends)

    run(go())


def test_an_oversized_message_is_reported_and_the_next_one_passes(broker: servers.Server) -> None:
    async def go() -> None:
        refused: list[tuple[str, int]] = []
        async with (
            session(
                broker.url,
                "in",
                ("o/#", 2),
                max_message=1_000,
                clean=False,
                on_oversize=lambda topic, size: refused.append((topic, size)),
            ) as source,
            session(broker.url, "out") as target,
        ):
            await source.wait_connected()
            await target.wait_connected()
            for qos in (0, 1, 2):
                await target.publish("o/big", bytes(500_000), qos=qos)
                await target.publish("o/good", b"ok", qos=qos)
            got = await take(source, 3)
            assert {m.topic for m in got} == {"o/good"}
            assert refused == [("o/big", 500_000)] * 3
            assert source.oversize == 3

    run(go())


def test_wrong_credentials_are_named_and_right_ones_work(
    tmp_path: Any,  # noqa: ANN401 - pytest's own
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go(url: str) -> None:
        async with session(url, "stranger") as stranger:
            await until(lambda: "username and password" in caplog.text)
            assert not stranger.connected
        friend = Broker(url=url, username="edge", password="a word")  # noqa: S106 - of nothing
        async with Session(friend, client_id="friend", max_message=1) as known:
            await known.wait_connected()

    with servers.nats(settings={"username": "edge", "password": "a word"}, folder=tmp_path) as server:
        run(go(server.url))
        assert "a word" not in server.text()


def test_a_refused_subscription_is_named(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ANN401
    async def go(port: int) -> None:
        async with session(f"mqtt://127.0.0.1:{port}", "in", ("secret/#", 1)) as source:
            await until(lambda: "secret/#" in caplog.text)
            assert not source.connected

    async def main() -> None:
        async with fake_broker(b"\x20\x02\x00\x00", b"\x90\x03\xff\xff\x80") as port:
            await go(port)

    del tmp_path
    run(main())


@asynccontextmanager
async def fake_broker(*answers: bytes) -> AsyncIterator[int]:
    """Answer what comes with the bytes given, one by one, then stay silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1_000)
            writer.write(answer)
            await writer.drain()
        while await reader.read(1_000):
            pass

    async with fake_server(serve) as port:
        yield port


def test_a_silent_broker_is_taken_for_dead(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with (
            fake_broker(b"\x20\x02\x00\x00") as port,
            session(f"mqtt://127.0.0.1:{port}", "in", keepalive=1) as one,
        ):
            await one.wait_connected()
            with pytest.raises(NotConnectedError, match="silent"):
                await asyncio.wait_for(one.publish("a", b"", qos=1), WAIT_S)
            await asyncio.sleep(0.2)  # the session says why it reconnects after the publisher was told

    run(go())
    assert "was silent" in caplog.text


def test_a_broker_that_breaks_the_protocol_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with (
            fake_broker(b"\x20\x02\x00\x00\x30\x02\x00\x00") as port,
            session(f"mqtt://127.0.0.1:{port}", "in") as one,
        ):
            await until(lambda: "a message came on topic ''" in caplog.text)
            assert not one.connected

    run(go())


@pytest.mark.parametrize("question", [wire.pubrel(7), wire.pubrec(7)], ids=["PUBREL", "PUBREC"])
def test_a_broker_that_asks_and_does_not_read_is_left(
    question: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"\x20\x02\x00\x00")
        while "does not read" not in caplog.text:
            writer.write(question * 10_000)
            await writer.drain()

    async def go() -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        listener.bind(("127.0.0.1", 0))
        async with (
            fake_server(flood, sock=listener) as port,
            session(f"mqtt://127.0.0.1:{port}", "in"),
        ):
            await until(lambda: "the broker does not read our answers" in caplog.text)

    run(go())


def test_a_slow_broker_that_reads_is_not_left(broker: servers.Server) -> None:
    """What waits while it takes nothing goes out in order once it does."""

    async def go() -> None:
        async with session(broker.url, "in", ("s/#", 1)) as one:
            await one.wait_connected()
            assert one._connection is not None
            one._connection.pause_writing()
            for _ in range(3):
                one._connection._answer(wire.PINGREQ)
            publishing = asyncio.create_task(one.publish("s/x", b"1", qos=1))
            await asyncio.sleep(0.1)
            assert not publishing.done()
            one._connection.resume_writing()
            assert (await take_one(one)).payload == b"1"
            await publishing

    run(go())


def test_a_flood_of_oversized_messages_is_one_line_and_cannot_write_lines_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    big = wire.publish("a\n\x1b[2J" + "x" * 500, bytes(100)) * 50

    async def go() -> None:
        async with (
            fake_broker(b"\x20\x02\x00\x00" + big) as port,
            session(f"mqtt://127.0.0.1:{port}", "in", max_message=99) as one,
        ):
            await until(lambda: one.oversize == 50)

    run(go())
    (line,) = [record.getMessage() for record in caplog.records if "discarded" in record.getMessage()]
    assert line.isprintable()
    assert r"a\n\x1b[2J" in line
    assert len(line) < 300


def test_iteration_ends_with_the_session(broker: servers.Server) -> None:
    async def go() -> None:
        async with session(broker.url, "in", ("x", 0)) as source:

            async def listen() -> int:
                return len([message async for message in source])

            listening = asyncio.create_task(listen())
            await source.wait_connected()
        assert await asyncio.wait_for(listening, WAIT_S) == 0

    run(go())


def test_a_topic_that_cannot_be_published_on_costs_nothing(broker: servers.Server) -> None:
    async def go() -> None:
        async with session(broker.url, "out") as target:
            await target.wait_connected()
            for _ in range(1_001):
                with pytest.raises(ValueError, match="wildcard"):
                    await target.publish("a/#", b"", qos=1)
            await asyncio.wait_for(target.publish("a", b"", qos=2), WAIT_S)

    run(go())


def test_half_done_messages_at_qos_2_are_released_on_the_next_connection() -> None:
    """The broker of the test answers PUBLISH with PUBREC, cuts, and must then see PUBREL come first."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"\x20\x02\x00\x00")
        seen.append(await reader.read(1_000))
        if len(seen) > 1:
            writer.write(wire.pubcomp(int.from_bytes(seen[0][-3:-1], "big")))
            await reader.read(1_000)

    async def go() -> None:
        async with (
            fake_server(serve) as port,
            session(f"mqtt://127.0.0.1:{port}", "out", clean=False) as target,
        ):
            await target.wait_connected()
            with pytest.raises(NotConnectedError):
                await target.publish("a", b"1", qos=2)
            await until(lambda: len(seen) == 2)

    run(go())
    packet_id = int.from_bytes(seen[0][-3:-1], "big")
    assert seen == [wire.publish("a", b"1", qos=2, packet_id=packet_id), wire.pubrel(packet_id)]


def test_log_level_of_a_session_names_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def go() -> None:
        with servers.mosquitto() as server:
            async with session(server.url, "both", ("p/#", 1)) as both:
                await both.wait_connected()
                await both.publish("p/x", b"PICTURE", qos=1)
                (message,) = await take(both, 1)
                logging.getLogger("test").warning("%r", message)

    run(go())
    assert "p/x" in caplog.text
    assert "PICTURE" not in caplog.text


def test_a_message_at_qos_2_is_taken_once_and_a_stranger_under_its_number_too() -> None:
    """A broker that lost its memory flags a new message as a duplicate, under a number we still remember."""
    first, stranger = (
        wire.publish("a", payload, qos=2, packet_id=5, duplicate=True) for payload in (b"one", b"two")
    )
    rounds = iter([first, first + stranger])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"\x20\x02\x01\x00" + next(rounds, b""))
        while (data := await reader.read(1_000)) and wire.pubrec(5) not in data:
            pass

    async def go() -> None:
        async with (
            fake_server(serve) as port,
            session(f"mqtt://127.0.0.1:{port}", "in", clean=False) as source,
        ):
            assert [(await take_one(source)).payload for _ in range(2)] == [b"one", b"two"]

    run(go())


def test_two_programs_of_one_name_slow_down_and_say_so(
    broker: servers.Server, caplog: pytest.LogCaptureFixture
) -> None:
    words = "does another program connect as 'same'?"

    async def go() -> None:
        async with session(broker.url, "same"), session(broker.url, "same"):
            await until(lambda: caplog.text.count(words) >= 2)

    caplog.set_level(logging.INFO)
    run(go())


def test_a_broker_that_ends_connections_now_and_then_is_no_rival() -> None:
    rival = Rival()
    assert not any(rival.ended(by_broker=True, held_s=60, delay=0.2) for _ in range(10))
    assert not any(rival.ended(by_broker=False, held_s=0.1, delay=0.2) for _ in range(10))
    assert [rival.ended(by_broker=True, held_s=9, delay=10) for _ in range(4)] == [False, False, True, True]
