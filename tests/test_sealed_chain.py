"""Who holds a face: the memory, files and lines of the whole chain are searched for the pictures it carried.

With sealed faces they must be nowhere; with open ones they must be everywhere, so that the search is proved.
"""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from chains import Chain, Part, chain, eventually
from conftest import lacking
from facerelay import face, sealing
from facerelay.face import Limits
from facerelay.sealed import split
from seals import Keys, make_keys
from servers import answers, free_port

_WINDOW: Final = 24
_PIECES: Final = 4
_PART: Final = 16_000_000
_HEAD: Final = re.compile(rb"\xff\xd8\xff[\xe0\xe1]..(?:JFIF|Exif)\0", re.DOTALL)
_EVERYWHERE: Final = {"outbox", "edge-broker", "forward", "wan", "cloud-broker", "store", "bucket"}


class Tap:
    """Carries connections to a port of this machine, keeps what goes up, and holds faces back at first."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.kept: list[bytes] = []
        self.open = threading.Event()
        self._sockets = [self._listening]
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def close(self) -> None:
        self.open.set()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _start(self, work: Callable[..., None], *what: object) -> None:
        self._threads.append(threading.Thread(target=work, args=what, daemon=True))
        self._threads[-1].start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self._sockets.append(near)
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(far)
                self._start(self._carry, near, far, True)
                self._start(self._carry, far, near, False)

    def _carry(self, one: socket.socket, other: socket.socket, keep: bool) -> None:  # noqa: FBT001 - positional in a thread
        with suppress(OSError):
            while data := one.recv(65_536):
                if keep:
                    self.kept.append(data)
                    if b"faces/" in b"".join(self.kept):
                        self.open.wait()
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def leave_a_subscriber(port: int) -> None:
    """Have a broker keep all faces for somebody who is not there: the most that it could come to hold."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id="somebody", clean_session=False, protocol=mqtt.MQTTv311
    )
    done = threading.Event()

    def subscribe(*_: object) -> None:
        client.subscribe("faces/#", 1)

    def subscribed(*_: object) -> None:
        done.set()

    client.on_connect, client.on_subscribe = subscribe, subscribed
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert done.wait(10)
    client.disconnect()
    client.loop_stop()


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += family(int(child))
    return found


def memory(pid: int) -> Iterator[bytes]:
    """Yield all that a process can write to, in parts that overlap."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as mem:
        for line in maps:
            where, rights, *_ = line.split()
            begin, end = (int(at, 16) for at in where.split("-"))
            if not rights.startswith("rw") or "[v" in line:
                continue
            for at in range(begin, end, _PART):
                with suppress(OSError, ValueError):
                    mem.seek(at)
                    yield mem.read(min(_PART + _WINDOW, end - at))


def files(path: Path) -> Iterator[bytes]:
    for each in sorted(path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")):
        if each.is_file():
            with suppress(FileNotFoundError):
                yield each.read_bytes()


def windows(jpeg: bytes) -> list[bytes]:
    """Return pieces of a JPEG that are nobody else's: of what comes after its header."""
    begin = jpeg.rindex(b"\xff\xda") + 20
    step = (len(jpeg) - begin - _WINDOW) // _PIECES
    assert step > _WINDOW
    return [jpeg[at : at + _WINDOW] for at in range(begin, begin + _PIECES * step, step)]


class Search:
    """What was found where."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self._pieces = [piece for one in pictures for piece in windows(one)]
        self.found: set[str] = set()
        self.heads: set[str] = set()
        self.looked: dict[str, int] = {}

    def look(self, name: str, blobs: Iterator[bytes]) -> None:
        for blob in blobs:
            self.looked[name] = self.looked.get(name, 0) + len(blob)
            if any(piece in blob for piece in self._pieces):
                self.found.add(name)
            if _HEAD.search(blob):
                self.heads.add(name)

    def process(self, part: Part) -> None:
        assert part.process is not None
        try:
            for pid in family(part.process.pid):
                self.look(part.name, memory(pid))
        except PermissionError:
            lacking("the right to read other processes' memory")


def captured(path: Path) -> list[bytes]:
    """Return the pictures that wait in an outbox."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return [bytes(data) for (data,) in db.execute("SELECT data FROM pictures ORDER BY row")]


def opened(keys: Keys, data: bytes) -> bytes:
    outer = face.parse(data, Limits())
    if not outer.face.sealed:
        return data
    return sealing.Opener(keys.identity).open(outer.face, split(data), Limits()).data


@contextmanager
def role(here: Chain, name: str, side: str, *words: str) -> Iterator[Part]:
    path = str(here.folder / f"{side}.toml")
    part = Part(
        name, [sys.executable, "-m", "facerelay", name, "-c", path, *words], here.folder / f"{name}.log"
    )
    part.start()
    here.parts[name] = part
    try:
        yield part
    finally:
        part.end()


@pytest.mark.parametrize("closed", [True, False], ids=["sealed", "open"])
def test_who_holds_a_face(tmp_path: Path, closed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The edge's broker is Mosquitto, the cloud's NATS."""
    (tmp_path / "keys").mkdir()
    keys = make_keys(tmp_path / "keys")
    keys.enrol("site.home")
    keys.enrol("store.store")
    cloud_port, gallery_port = free_port(), free_port()
    tap = Tap(cloud_port)
    (tmp_path / "bucket").write_text("in the way: whatever comes stays in the store's memory")
    edge: dict[str, Any] = {
        "cloud": {"url": f"mqtt://127.0.0.1:{tap.port}"}, "trust": keys.settings("site.home"),
        "camera": [{"name": "door", "source": "scene", "pace": False}],
    }  # fmt: skip
    cloud: dict[str, Any] = {
        "broker": {"url": f"mqtt://127.0.0.1:{cloud_port}", "data": "cloud-broker"},
        "trust": {**keys.settings("store.store"), "devices": str(keys.devices)},
        "gallery": {"port": gallery_port}, "seal": {"identity_file": str(keys.identity)},
    }  # fmt: skip
    if closed:
        edge["seal"] = {"recipients": [keys.public]}
    sides = {"edge": edge, "cloud": cloud}
    with closing(tap), chain(tmp_path, edge_broker="mosquitto", sides=sides) as here:
        leave_a_subscriber(here.edge.broker.port)
        leave_a_subscriber(cloud_port)
        search, pictures = _carried(here, tap, keys)
        _looked_at(here, gallery_port, pictures, closed=closed)
    for part in here.parts.values():
        search.look("log", files(part.log))
    if closed:
        assert search.found == search.heads == set()
    else:
        assert search.found == _EVERYWHERE
        assert search.heads >= _EVERYWHERE - {"log"}
    assert all(search.looked[name] > 1_000 for name in _EVERYWHERE)


def _carried(here: Chain, tap: Tap, keys: Keys) -> tuple[Search, list[bytes]]:
    """Capture the scene's faces, and search each part while it holds them."""
    outbox = here.edge.outbox.path
    with role(here, "capture", "edge", "--exit") as capture:
        eventually(lambda: "camera door: ended" in capture.text(), 60)
        waiting = captured(outbox)
        assert len(waiting) > 1
        pictures = [opened(keys, data) for data in waiting]
        search = Search(pictures)
        search.look("outbox", files(outbox))
        search.process(here["forward"])
        search.process(here["edge-broker"])
        search.look("edge-broker", files(here.folder / "edge-broker"))
        tap.open.set()
        eventually(lambda: "the bucket fails, trying again" in here["store"].text())
        eventually(lambda: waiting[-1] in b"".join(tap.kept))
        time.sleep(1)
        search.process(here["store"])
        search.process(here["cloud-broker"])
        search.look("cloud-broker", files(here.folder / "cloud-broker"))
        (here.folder / "bucket").unlink()
        here.finished(capture)
    search.look("wan", iter([b"".join(tap.kept)]))
    search.look("bucket", files(here.folder / "bucket"))
    for name in ("store", "forward", "edge-broker", "cloud-broker"):  # and what is left behind
        search.process(here[name])
    search.look("outbox", files(outbox))
    assert len(here.objects()) == len(waiting)
    return search, pictures


def _looked_at(here: Chain, port: int, pictures: list[bytes], *, closed: bool) -> None:
    """See that the gallery shows every face, and keeps none that was sealed."""

    headers: dict[str, str] = {}

    def get(path: str, **query: str) -> bytes:
        url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            headers.update({name.lower(): value for name, value in answer.getheaders()})
            return bytes(answer.read())

    with role(here, "gallery", "cloud"):
        eventually(lambda: answers(port))
        shown = [one["key"] for one in json.loads(get("/api/faces"))["faces"]]
        assert sorted(get("/picture", key=key) for key in shown) == sorted(pictures)
        get("/picture", key=shown[0], download="1")
        assert headers["content-type"] == "image/jpeg"
        assert headers["content-disposition"].endswith('.jpg"')
        assert ("no-store" in headers["cache-control"]) == closed
        thumbs = [get("/thumb", key=key) for key in shown]
        assert ("no-store" in headers["cache-control"]) == closed
        told = json.loads(get("/api/face", key=shown[0]))
    assert ("seal" in told) == closed
    with closing(sqlite3.connect(here.folder / "gallery-cache" / "thumbnails.db")) as db:
        (kept,) = db.execute("SELECT count(*) FROM thumbs").fetchone()
        (learnt,) = db.execute("SELECT count(*) FROM faces").fetchone()
    assert (kept, bool(learnt)) == ((0, False) if closed else (len(shown), True))
    on_disk = b"".join(files(here.folder / "gallery-cache"))
    assert any(thumb[40:64] in on_disk for thumb in thumbs) != closed
