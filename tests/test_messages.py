from __future__ import annotations

import hashlib
import json
import pickle
import struct
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chains import Chain, chain, eventually
from conftest import Make, need
from facerelay.edge import reading
from facerelay.edge.outbox import Outbox


def publish(c: Chain, payload: bytes, topic: str = "faces/somewhere/door", qos: int = 1) -> int:
    """Publish with Mosquitto's own client: one that knows nothing of us."""
    path = c.folder / "payload"
    path.write_bytes(payload)
    command = [
        need("mosquitto_pub"),
        "-p",
        str(c.edge.broker.port),
        "-q",
        str(qos),
        "-t",
        topic,
        "-f",
        str(path),
    ]
    return subprocess.run(command, timeout=20, check=False, capture_output=True).returncode


def in_quarantine(c: Chain) -> dict[str, str]:
    """Return the reasons in quarantine, by the hash of what came."""
    notes = [json.loads(path.read_text()) for path in c.objects("quarantine") if path.suffix == ".json"]
    return {note["sha256"]: note["reason"] for note in notes}


@pytest.fixture
def portrait_png(jpeg: bytes) -> bytes:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.imencode(".png", image)[1].tobytes()


def sixty_thousand_pixels_square() -> bytes:
    frame = struct.pack(">BHHBBBB", 8, 60_000, 60_000, 1, 1, 0x11, 0)
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


@pytest.mark.parametrize("broker", ["embedded", "mosquitto"])
def test_what_strangers_send_is_kept_or_set_aside_and_the_next_face_passes(
    tmp_path: Path, jpeg: bytes, portrait_png: bytes, broker: str
) -> None:
    need("mosquitto_pub")
    hostile = {
        pickle.dumps([1, 2, 3]): "pickle",
        jpeg[:-40]: "truncated",
        sixty_thousand_pixels_square(): "too-many-pixels",
        b"<svg onload=alert(1)>": "not-a-picture",
    }
    with chain(tmp_path, edge_broker=broker, cloud_broker=broker) as c:  # type: ignore[arg-type]
        eventually(lambda: "connected" in c["forward"].text() and "connected" in c["store"].text())
        assert publish(c, portrait_png) == 0
        publish(c, b"x" * 50_000_000)
        for payload in hostile:
            assert publish(c, payload) == 0
        eventually(lambda: len(in_quarantine(c)) == len(hostile))
        assert in_quarantine(c) == {hashlib.sha256(p).hexdigest(): why for p, why in hostile.items()}
        [foreign] = c.objects("foreign")
        assert foreign.read_bytes() == portrait_png
        (tmp_path / "face.jpg").write_bytes(jpeg)
        done = c.command("send", str(tmp_path / "face.jpg"))
        assert done.returncode == 0, done.stderr
        c["store"].end()
        assert "pickle 1" in c["store"].text()


def test_a_face_of_ours_that_the_store_must_refuse_is_parked(tmp_path: Path, make_face: Make) -> None:
    with chain(tmp_path) as c:
        with Outbox(c.edge.outbox.path, max_bytes=10**8, max_message=10**6) as outbox:
            whole = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
            cut = whole.data[:-200]
            damaged = type(whole)(whole.face, cut, hashlib.sha256(cut).hexdigest(), "jpg")
            outbox.put(damaged, chosen=time.time()).result()
        c.finished(c.feed(3, rate=50))
        books = c.books()
        door = books["cameras"]["home/door"]
        assert (door["captured"], door["stored"], door["refused"]) == (4, 3, 1)
        assert door["reasons"] == {"truncated": 1}
        assert (books["lost"], books["code"]) == (0, 0)
        assert in_quarantine(c) == {damaged.sha256: "truncated"}
        with closing(reading.open_books(c.edge.outbox.path)) as db:
            assert [e.id for e in reading.entries(db, reading.owner(db), ("refused",))] == [whole.face.id]


TOPICS = ["w251/face_detector", "facedetection_topic", "faces", "face_app/#", "image"]


@pytest.mark.parametrize(("topic", "qos"), list(zip(TOPICS, [0, 1, 2, 1, 2], strict=True)))
def test_the_topics_and_qualities_of_service_of_the_write_ups(tmp_path: Path, topic: str, qos: int) -> None:
    settings: dict[str, Any] = {"topics": {"faces": topic}, "qos": qos}
    with chain(tmp_path, edge_broker="mosquitto", **settings) as c:
        c.finished(c.feed(10, rate=100))
        books = c.books()
        assert (books["cameras"]["home/door"]["stored"], books["lost"]) == (10, 0)


def test_an_erased_face_stays_erased_and_the_audit_knows_it(tmp_path: Path) -> None:
    with chain(tmp_path) as c:
        c.finished(c.feed(5, rate=100))
        with closing(reading.open_books(c.edge.outbox.path)) as db:
            first = next(reading.entries(db, reading.owner(db), ("stored",)))
        done = c.command("erase", "--id", first.id, "--yes", "--wait", "0.5")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["deleted"] == 1
        assert len(c.objects()) == 4
        assert c.books()["lost"] == 0
