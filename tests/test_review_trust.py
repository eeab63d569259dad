"""What a hostile broker, site or bucket tries against the parts that trust them a little."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

import servers
from conftest import Make
from facerelay import topics
from facerelay.cloud import proofs
from facerelay.cloud.books import Books
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.erase import erase
from facerelay.cloud.gallery.access.attempts import Attempts
from facerelay.cloud.gallery.erasing import Eraser
from facerelay.cloud.notices import Notices
from facerelay.cloud.tombstones import Tombstones
from facerelay.commands import objects
from facerelay.config import Bucket, Config
from facerelay.edge.flights import Stores
from facerelay.edge.outbox import Outbox
from facerelay.erasures import Erasures
from facerelay.face import new_id
from facerelay.link import wire
from facerelay.messages import Hello, Ledger, LinkHealth, Receipt
from facerelay.sections import Seal
from fake_server import fake_server
from gallery_parts import serving
from seals import make_keys
from test_forward import forwarding
from test_relay import bench
from test_session import WAIT_S, run, session, take_one
from test_store import TOPIC, keep, keeper

_STRANGE = (
    "homeassistant/lock/door/config",
    "facerelay/home/door/capture/set",
    "frigate/door/detect/set",
    "link/home",
    "link/home/reset",
    "faces/home/door",
    "cameras/door",
    "ledger/home/o",
    "receipts/other/o",
    "receipts/homestead/o",
    "receipts",
)


def _broker_that_says(
    *topics: str,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a broker that takes what comes, and sends these to whoever subscribes to anything."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (first,) = await reader.readexactly(1)
            size = shift = 0
            while (byte := (await reader.readexactly(1))[0]) > 127:
                size, shift = size | (byte & 127) << shift, shift + 7
            body = await reader.readexactly(size | byte << shift)
            if first >> 4 == 1:
                writer.write(b"\x20\x02\0\0")
            elif first >> 4 == 8:
                writer.write(b"\x90\x04" + body[:2] + b"\1\1")
                writer.write(b"".join(wire.publish(topic, b"hostile") for topic in topics))
            elif first >> 4 == 12:
                writer.write(b"\xd0\0")
            elif first & 6:
                at = 2 + int.from_bytes(body[:2])
                writer.write(b"\x40\x02" + body[at : at + 2])
            await writer.drain()

    return handle


def test_whoever_runs_the_clouds_broker_speaks_on_no_other_topic_of_the_sites(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The site's broker may be that of the house: cameras are switched and doors opened there."""

    async def go(edge: servers.Server) -> None:
        async with (
            fake_server(_broker_that_says(*_STRANGE, "stores/main", "receipts/home/o")) as port,
            session(edge.url, "house", ("#", 0)) as house,
        ):
            await house.wait_connected()
            cloud = servers.Server([], port, edge.state, edge.log, f"mqtt://127.0.0.1:{port}")
            async with forwarding(edge, cloud), asyncio.timeout(WAIT_S):
                heard: list[str] = []
                while "receipts/home/o" not in heard:
                    message = await take_one(house)
                    heard += [message.topic] if message.payload == b"hostile" else []
        assert heard == ["stores/main", "receipts/home/o"]

    with servers.mosquitto() as edge:
        run(go(edge))
    assert "nobody asked for the topic homeassistant/lock/door/config" in caplog.text


@pytest.mark.parametrize("topic", ["faces/mill/door", "faces/home/yard", "faces/mill/home/door", "faces"])
def test_a_site_cannot_have_another_sent_receipts_by_what_it_says_in_its_name(
    tmp_path: Path, make_face: Make, topic: str
) -> None:
    """Whatever is wrong with such a face: they would fill another's link and log, and end its faces' wait."""
    bucket = open_bucket(Bucket(url=f"file://{tmp_path}/bucket"))
    true, gone, large = make_face(), make_face(), make_face()
    asyncio.run(erase(bucket, ids=[gone.face.id], longest_put=0))
    named = (true.data, true.data[:-40], gone.data, gone.data[:-40])
    to = keeper(bucket)
    assert [keep(to, data, topic) for data in named] == [None] * len(named)
    assert keep(keeper(bucket, bytes=len(large.data) - 1), large.data, topic) is None
    assert (to.counters.refused, to.counters.erased) == ({"wrong-topic": 1, "truncated": 1}, 2)
    outcomes = [receipt and receipt.outcome for receipt in (keep(to, data) for data in named)]
    assert outcomes == ["stored", "refused:truncated", "erased", "erased"]
    assert TOPIC == "faces/home/door"


def test_old_hellos_said_again_have_nothing_sent_again() -> None:
    stores = Stores()
    hellos = [Hello(store="main", start=f"{number:016x}") for number in range(3)]
    assert [stores.began(hello) for hello in (*hellos, *hellos, *reversed(hellos))] == [
        False, True, True, *[False] * 6,
    ]  # fmt: skip
    for number in range(1_000):
        assert stores.began(Hello(store="main", start=f"aa{number:016x}"))
    assert len(stores._starts["main"]) < 1_000


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        yield outbox


def test_old_receipts_said_again_hide_no_silence(
    outbox: Outbox, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever holds all faces back could otherwise have the edge believe that things move."""

    async def check() -> None:
        async with bench(outbox, make_face) as b:
            old = await b.capture()
            await b.until(1)
            await b.answer(old)
            await b.capture()
            await b.until(2)
            for _ in range(6):
                await b.answer(old)
                await b.pass_time(5)
            assert len(b.wire.sent) > 2, "it was sent again"
            assert "no receipt for" in caplog.text

    asyncio.run(check())


def test_receipts_for_nobody_by_the_thousand_are_a_line_or_two(
    outbox: Outbox, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    frozen = make_face()
    known = Receipt(id=frozen.face.id, sha256=frozen.sha256, outcome="stored")
    strange = [known.model_copy(update={"sha256": f"{number:064x}"}) for number in range(1_000)]
    for _ in range(3):
        outbox.answer(strange).result()
    assert caplog.text.count("no face of this outbox with that hash") < 3


@pytest.fixture
def everybody_s() -> Iterator[None]:
    """Have new files be for all, where they are not made for fewer."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("everybody_s")
def test_a_folder_bucket_is_not_for_every_user_of_the_machine(tmp_path: Path, make_face: Make) -> None:
    """The names in it tell who was where and when; and who could write there could have faces erased."""
    root = tmp_path / "bucket"
    assert keep(keeper(open_bucket(Bucket(url=f"file://{root}"))), make_face().data) is not None
    made = [root, *root.rglob("*")]
    assert len(made) > 5
    assert not [path for path in made if path.stat().st_mode & 0o027]


@pytest.mark.usefixtures("everybody_s")
def test_an_outbox_is_never_for_others_not_even_while_it_is_made(
    tmp_path: Path, make_face: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened it in that moment could read all faces that come."""
    modes = []
    chmod = Path.chmod

    def look(path: Path, mode: int, **more: bool) -> None:
        modes.append(path.stat().st_mode & 0o777)
        chmod(path, mode, **more)

    monkeypatch.setattr(Path, "chmod", look)
    with Outbox(tmp_path / "o.db", max_bytes=10**8, max_message=10**6) as outbox:
        outbox.put(make_face(outbox=outbox.id, run=outbox.run), chosen=1.0).result()
        files = sorted(tmp_path.iterdir())
        modes += [path.stat().st_mode & 0o777 for path in files]
    assert len(modes) > 4
    assert set(modes) == {0o600}


@pytest.mark.parametrize(
    ("key", "data", "fault"),
    [
        ("proofs/999999999999.json", b"{}", "is missing"),
        (f"proofs/{'9' * 60}.json", b"{}", "is missing"),
        ("proofs/000000000001.json", b"x" * 200_000, "is not a proof"),
        (
            "proofs/000000000001.json",
            b'{"tombstones": ["../../x", null, {}, "a\\u001b[2J"]}',
            "../../x is missing",
        ),
    ],
)
def test_what_somebody_puts_among_the_proofs_is_told_and_hinders_no_erasure(
    tmp_path: Path, key: str, data: bytes, fault: str
) -> None:
    async def check() -> None:
        bucket = open_bucket(Bucket(url=f"file://{tmp_path}/bucket"))
        await bucket.put(key, data)
        numbers = [
            json.loads((await erase(bucket, ids=[new_id()], longest_put=0)).proof)["number"] for _ in range(3)
        ]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        said = "\n".join((await proofs.verify(bucket)).faults)
        assert fault in said
        assert "\x1b" not in said

    asyncio.run(check())


def test_a_site_that_makes_outboxes_up_keeps_no_others_from_being_heard(tmp_path: Path) -> None:
    """Each would be told all erasures, before those who wait for them behind it."""
    told: list[str] = []

    async def tell(site: str, _outbox: str, _erasures: Erasures) -> None:
        told.append(site)

    async def check() -> None:
        bucket = open_bucket(Bucket(url=f"file://{tmp_path}/bucket"))
        await erase(bucket, ids=[new_id()], longest_put=0)
        books, notices = Books(bucket), Notices(Tombstones(bucket), tell)
        books._heed = notices.hear
        link = LinkHealth(time=datetime.now(UTC), erasures="")
        taken = {"mill": 0, "home": 0}
        for site, count in (("mill", 11_000), ("home", 1)):
            for number in range(count):
                ledger = Ledger(outbox=f"{number:016x}", cameras={}, link=link)
                taken[site] += books.take(topics.ledger(site, ledger.outbox), ledger.to_bytes())
        assert taken == {"mill": 5_000, "home": 1}
        await notices.tell()
        assert told.count("home") == 1
        assert told.count("mill") < 100

    asyncio.run(check())


def test_a_household_of_attackers_keeps_nobody_from_logging_in() -> None:
    """A /56 has 256 networks: each tries as often as it is heard, and somebody else now and then."""
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    let_in = []
    for step in range(30_000):
        now[0] = step / 50
        guesser = f"2001:db8:0:{step % 256:x}::1"
        if not attempts.wait_s(guesser):
            attempts.failed(guesser)
        if step % 51 == 25:
            let_in.append(not attempts.wait_s("192.0.2.7"))
    assert all(let_in)


def test_a_site_is_not_told_of_faces_of_another_that_were_erased_on_the_page(
    tmp_path: Path, make_face: Make
) -> None:
    """An id tells when its face was taken."""
    told: dict[str, set[str]] = {"home": set(), "mill": set()}

    async def tell(site: str, _outbox: str, erasures: Erasures) -> None:
        told[site] |= {face_id for rule in erasures.rules for face_id in rule.ids}

    async def gone(_: Sequence[str]) -> None:
        pass

    async def check() -> None:
        bucket = open_bucket(Bucket(url=f"file://{tmp_path}/bucket"))
        faces = [make_face(), make_face(), make_face(site="mill")]
        for one in faces:
            await bucket.put_new(one.key, one.data)
        eraser = Eraser(bucket, on_gone=gone, wait_s=0)
        done = await eraser.erase([one.key for one in faces])
        await eraser.close()
        assert (done.deleted, len(json.loads(done.proof)["tombstones"])) == (3, 2)
        notices = Notices(Tombstones(bucket), tell)
        for site in told:
            link = LinkHealth(time=datetime.now(UTC), erasures="")
            notices.hear(site, Ledger(outbox="ab" * 16, cameras={}, link=link))
        await notices.tell()
        assert told == {"home": {one.face.id for one in faces[:2]}, "mill": {faces[2].face.id}}

    asyncio.run(check())


@pytest.mark.parametrize("sealed", [False, True])
def test_a_true_face_under_another_face_s_key_is_told_of(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
    *, sealed: bool,
) -> None:  # fmt: skip
    """Somebody who writes to the bucket would have a person be elsewhere, or at another time."""
    there, true = make_face(), make_face(site="mill")
    keys = make_keys(tmp_path)
    if sealed:
        true = keys.sealer(keys.enrol("site.mill")).seal(true)
    wrong = there.key.replace(".jpg", f".{true.extension}")
    known = Config(bucket=Bucket(url=f"file://{tmp_path}/bucket"), seal=Seal(identity_file=keys.identity))

    async def check() -> None:
        bucket = open_bucket(known.bucket)
        for key in (wrong, true.key):
            await bucket.put_new(key, true.data)
        await objects.fetch(known, (wrong, true.key), tmp_path / "out")
        async with serving(known.bucket, tmp_path, caplog) as served:
            shown = [(await served.json(f"/api/face?key={quote(key)}"))["exif"] for key in (wrong, true.key)]
        fetched = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for one, other in (shown, fetched):
            assert "another face's key" in one["fault"]
            assert "fault" not in other

    asyncio.run(check())
