"""An erasure against the whole chain, with the faces sent again on purpose before, during and after it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from chains import Chain, chain, facerelay
from conftest import Make
from facerelay import settings
from facerelay.commands.running import connector
from facerelay.config import Config
from facerelay.edge.capture import open_outbox
from facerelay.edge.relaying import relaying
from facerelay.face import Frozen, parse
from feeder import picture
from gallery_parts import Served, serving
from waiting import running, until

_PIECE = 32


def pieces(data: bytes) -> list[bytes]:
    """Return some of a picture's compressed bytes, which nothing else has."""
    return [data[at : at + _PIECE] for at in range(len(data) // 2, len(data) - 3 * _PIECE, 5 * _PIECE)]


def held(folders: Iterable[Path], wanted: Iterable[bytes]) -> dict[str, int]:
    """Count the pieces in each file, read as it lies on the disk."""
    found: dict[str, int] = {}
    sought = list(wanted)
    for path in itertools.chain.from_iterable(folder.rglob("*") for folder in folders):
        with suppress(FileNotFoundError):
            data = path.read_bytes() if path.is_file() else b""
            if count := sum(piece in data for piece in sought):
                found[str(path)] = count
    return found


def offline(c: Chain, make_face: Make) -> tuple[Config, list[Frozen]]:
    """Fill another outbox of that site, which nobody relays: faces that wait, and one that was parked."""
    config = settings.load(c.folder / "edge.toml", flags=[f"outbox.path={c.folder / 'offline/outbox.db'}"])
    config.outbox.path.parent.mkdir()
    with open_outbox(config) as outbox:
        made = []
        for number in range(3):
            known = {
                "outbox": outbox.id,
                "run": outbox.run,
                "seq": outbox.number(),
                "time": datetime.now(UTC),
            }
            made.append(make_face(picture(900 + number), **known))
            outbox.put(made[-1], chosen=time.time()).result()
        outbox.park(made[-1].face.id, "unanswered").result()
    return config, made


@asynccontextmanager
async def sending(c: Chain, faces: Iterable[bytes]) -> AsyncIterator[None]:
    """Publish pictures and broken copies of them at the cloud's broker, over and over."""

    async def again() -> None:
        connect = connector(c.cloud)
        async with connect(client_id="again", subscribe=(), clean=True, window=100) as session:
            await session.wait_connected()
            for number, data in enumerate(itertools.cycle(faces)):
                await session.publish("faces/home/door", data if number % 3 else data[:-20], qos=1)
                await asyncio.sleep(0.05)

    async with running(again()):
        yield


async def look_at(served: Served, keys: Iterable[str]) -> list[bytes]:
    """Open each face on the gallery, so that its thumbnail is kept; return pieces of these."""
    found = []
    for key in keys:
        status, _, data = await served.get(f"/thumb?key={quote(key)}")
        assert status == 200
        found += pieces(data)
    return found


def test_no_byte_of_an_erased_face_is_left(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Must be so in bucket, quarantine, outbox and the gallery's cache, whoever sends the face again."""

    async def scenario(c: Chain) -> None:
        bucket, cache = c.folder / "bucket", c.folder / "gallery"
        await asyncio.to_thread(lambda: c.finished(c.feed(6, rate=50)))
        stored = {path: path.read_bytes() for path in c.objects()}
        config, waiting = await asyncio.to_thread(offline, c, make_face)
        keys = [str(path.relative_to(bucket)) for path in stored]
        faces = [*stored.values(), *(one.data for one in waiting)]
        everywhere = [
            bucket,
            cache,
            c.folder / "offline",
            c.folder / "edge-broker",
            c.folder / "cloud-broker",
        ]
        wanted = [piece for data in faces for piece in pieces(data)]
        async with serving(f"file://{bucket}", cache, caplog) as served, served.listening():
            thumbs = await look_at(served, keys)
            async with sending(c, stored.values()):
                await until(lambda: any((bucket / "quarantine").rglob("*.bin")))
                before = held(everywhere, wanted + thumbs)
                for place in ("bucket/faces", "bucket/quarantine", "gallery", "offline"):
                    assert any(f"/{place}" in name for name in before), f"nothing to erase in {place}"
                words = ["erase", "--site", "home", "--camera", "door", "--yes", "--wait", "1"]
                done = await asyncio.to_thread(facerelay, *words, "-c", str(c.folder / "cloud.toml"))
                assert done.returncode == 0, done.stderr
                await asyncio.sleep(1)  # it is sent after the erasure, too
            with open_outbox(config) as outbox:
                async with relaying(config, outbox, connector(config)):
                    async with asyncio.timeout(30):
                        while (await asyncio.wrap_future(outbox.ledger())).cameras["home/door"].erased < 3:
                            await asyncio.sleep(0.1)
                books = outbox.ledger().result()
                assert books.closes
            await until(lambda: not held(everywhere, wanted + thumbs))
            young = parse(faces[0], config.limits.face).face  # what is taken from now on is stored as ever
            later = make_face(picture(950), outbox=young.outbox, time=datetime.now(UTC))
            async with sending(c, [later.data]):
                await until((bucket / later.key).exists)
        assert not held(everywhere, wanted + thumbs)
        line = json.loads(done.stdout)
        assert line["places"]["faces"] == len(stored)
        assert line["places"]["quarantine"] >= 2
        checked = await asyncio.to_thread(facerelay, "erase", "--verify", "-c", str(c.folder / "cloud.toml"))
        said = json.loads(checked.stdout)
        assert (checked.returncode, said["well"], said["proofs"], said["alive"]) == (0, True, 1, 0)

    with chain(tmp_path) as c:
        asyncio.run(scenario(c))
