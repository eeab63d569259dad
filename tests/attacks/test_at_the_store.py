"""Attacks on the store: what a stolen device may publish under its own name, and what it makes of that."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import secrets
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from besieged import Besieged, besieged
from raw import Raw

from chains import eventually
from conftest import Make
from facerelay import face, sealed, sealing, topics
from facerelay.config import Broker
from facerelay.signing import Signer
from feeder import picture


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    with besieged(tmp_path_factory.mktemp("at-the-store")) as found:
        yield found


@pytest.fixture
def mill(chain: Besieged) -> Iterator[Raw]:
    """The stolen device, with its own key."""
    with Raw(chain.enrolled.client("mill"), "mill-device") as found:
        yield found


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bucket owner's public key."""
    return sealing.make_identity(tmp_path_factory.mktemp("owner") / "owner.key")


class Bomb:
    """What an unpickler would run."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(MARK),)


MARK = Path(f"/tmp/facerelay-{secrets.token_hex(8)}")  # noqa: S108 - it is not to be made


def a_zip() -> bytes:
    """42 kB that become 40 MB."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../face.jpg", bytes(40_000_000))
    return data.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header lies about its size."""
    whole = bytearray(picture(1))
    at = whole.index(b"\xff\xc0")
    struct.pack_into(">HH", whole, at + 5, height, width)
    return bytes(whole)


def with_exif(body: bytes) -> bytes:
    whole = picture(1)
    segment = b"Exif\0\0" + body
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]


def looped() -> bytes:
    """An EXIF whose directories lead to themselves, with more entries than there is room for."""
    entries = [struct.pack(">HHII", 0x8769, 4, 1, 8)] * 400
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", 65_535) + b"".join(entries) + struct.pack(">I", 8)


def huge_comment() -> bytes:
    """An EXIF whose one value says that it has four billion bytes."""
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 0x9286, 7, 0xFFFFFFFF, 26) + bytes(4 + 60_000)


def dealt_with(chain: Besieged) -> float:
    """Return how many messages were set aside, refused, or kept as a stranger's."""
    counted = ("store_quarantined_total", "store_refused_total", "store_discarded_total")
    foreign = chain.count("store", "store_faces_total", outcome="foreign")
    return foreign + sum(chain.count("store", name) for name in counted)


SET_ASIDE: dict[str, Callable[[], bytes]] = {
    "pickle": lambda: pickle.dumps(Bomb()),
    "zip": a_zip,
    "gzip bomb": lambda: gzip.compress(bytes(40_000_000)),
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "html": lambda: b"<!doctype html><script>fetch('/api/erase')</script>",
    "gif": lambda: b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
    "png bomb": lambda: png(60_000, 60_000, bytes(40_000_000)),
    "jpeg of 4 gigapixels": lambda: jpeg_of(65_500, 65_500),
    "png of no size": lambda: png(0, 0),
    "cut short": lambda: picture(1)[:100],
    "nothing": lambda: b"",
    "one byte": lambda: b"\xff",
    "noise": lambda: secrets.token_bytes(100_000),
    "deep JSON": lambda: b"[" * 150_000,
}


@pytest.mark.parametrize("name", SET_ASIDE)
def test_what_is_no_picture(chain: Besieged, mill: Raw, name: str) -> None:
    before = chain.count("store", "store_quarantined_total"), chain.objects(), chain.objects("foreign")
    assert mill.publish("faces/mill/door", SET_ASIDE[name]())
    chain.counted("store", "store_quarantined_total", before[0])
    assert (chain.objects(), chain.objects("foreign")) == before[1:]
    assert not MARK.exists()
    assert chain.notes()[-1]["topic"] == "faces/mill/door"
    chain.good()


EXIF = {"loop": looped(), "huge": huge_comment(), "offsets": b"II*\0" + b"\xff" * 60_000, "empty": b""}


@pytest.mark.parametrize("body", EXIF.values(), ids=EXIF)
def test_exif_bombs(chain: Besieged, mill: Raw, body: bytes) -> None:
    """A picture whose EXIF is not to be read is none of ours: kept as a stranger's, or set aside."""
    faces, before = chain.objects(), dealt_with(chain)
    mill.publish("faces/mill/door", with_exif(body))
    eventually(lambda: dealt_with(chain) > before)
    assert chain.objects() == faces
    chain.good()


def test_a_picture_with_a_program_behind_it(chain: Besieged, mill: Raw) -> None:
    """A polyglot stays what its first bytes say, under a key that names its type."""
    both = picture(2) + b"<script>alert(1)</script>" + a_zip()[:1000]
    before = chain.objects("foreign")
    mill.publish("faces/mill/door", both)
    chain.good()
    assert {path.suffix for path in chain.objects("foreign") - before} <= {".jpg"}


def test_a_face_that_lies_about_its_site(chain: Besieged, mill: Raw, make_face: Make) -> None:
    forged = make_face(picture(3), site="door")
    before = chain.count("store", "store_refused_total", reason="wrong-topic")
    mill.publish("faces/mill/door", forged.data)
    chain.counted("store", "store_refused_total", before, reason="wrong-topic")
    eventually(lambda: "wrong-topic" in {note["reason"] for note in chain.notes()})
    [note] = [note for note in chain.notes() if note["reason"] == "wrong-topic"]
    assert (note["topic"], note["face"]["site"]) == ("faces/mill/door", "door")
    assert not (chain.bucket / forged.key).exists()
    chain.good()


def test_a_face_that_lies_about_its_camera(chain: Besieged, mill: Raw, make_face: Make) -> None:
    forged = make_face(picture(4), site="mill", camera="vault")
    before = chain.count("store", "store_refused_total", reason="wrong-topic")
    mill.publish("faces/mill/door", forged.data)
    chain.counted("store", "store_refused_total", before, reason="wrong-topic")
    assert not (chain.bucket / forged.key).exists()
    chain.good()


NAMES = {
    "up": "..", "root": "a%2f..%2f..%2fetc", "crlf": "door\r\nfaces", "bidi": "\u202egpj.rood",
    "long": "x" * 500, "terminal": "\x1b[2J\x1b]0;x\x07", "equals": "camera=door", "emoji": "\U0001f600",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_topic(chain: Besieged, mill: Raw, make_face: Make, name: str) -> None:
    outside = {path for path in chain.enrolled.folder.iterdir() if path.name != "bucket"}
    logged = len(chain.log("cloud"))
    mill.publish(f"faces/mill/{NAMES[name]}", make_face(picture(5), site="mill").data)
    chain.good()
    keys = [path.relative_to(chain.bucket).as_posix() for path in chain.bucket.rglob("*")]
    assert all(key.isascii() and key.isprintable() and ".." not in key and len(key) < 400 for key in keys)
    assert {path for path in chain.enrolled.folder.iterdir() if path.name != "bucket"} == outside
    said = chain.log("cloud")[logged:]
    ours = "".join(line for line in said.splitlines() if " facerelay." in line)
    assert ours.isprintable()
    assert "\u202e" not in ours


def lying(field: str, value: str) -> bytes:
    """A face whose EXIF has another value than could be, of the same length."""
    known = face.Face(
        id=face.new_id(), outbox="a" * 32, run="b" * 8, seq=1, site="mill", camera="c" * len(value),
        time=datetime.now(UTC), box=(0, 0, 48, 64), frame=(48, 64), score=0.9, quality=0.5,
    )  # fmt: skip
    data = face.freeze(known, picture(6)).data
    assert f'"{field}"'.encode() in data
    return data.replace(b"c" * len(value), value.encode())


@pytest.mark.parametrize(
    "value", ["../../../etc/x", "door\\..\\..\\x", "<img src=x on>", "door\\r\\nfaces", "%2e%2e%2fdoor"]
)
def test_names_in_a_picture(chain: Besieged, mill: Raw, value: str) -> None:
    before, counted = chain.objects(), dealt_with(chain)
    mill.publish("faces/mill/door", lying("camera", value))
    eventually(lambda: dealt_with(chain) > counted)
    chain.good()
    new = {path.relative_to(chain.bucket).as_posix() for path in chain.objects() - before}
    assert {key.split("/")[1] for key in new} == {"site=door"}


def test_replay(chain: Besieged, mill: Raw, make_face: Make) -> None:
    own = make_face(picture(7), site="mill")
    for _ in range(20):
        assert mill.publish("faces/mill/door", own.data)
    chain.counted("store", "store_faces_total", 10, outcome="duplicate")
    chain.good()
    assert [path for path in chain.objects() if own.face.id in path.name] == [chain.bucket / own.key]
    assert (chain.bucket / own.key).read_bytes() == own.data


def test_replay_of_another_sites_face(chain: Besieged, mill: Raw) -> None:
    """Even with the true bytes, from the bucket, a device cannot say again what another has said."""
    theirs = chain.good()
    data = (chain.bucket / theirs["key"]).read_bytes()
    before = chain.count("store", "store_refused_total", reason="wrong-topic")
    mill.publish("faces/mill/door", data)
    chain.counted("store", "store_refused_total", before, reason="wrong-topic")
    assert (chain.bucket / theirs["key"]).read_bytes() == data
    chain.good()


def test_the_same_id_with_another_picture(chain: Besieged, mill: Raw, make_face: Make) -> None:
    first = make_face(picture(8), site="mill")
    mill.publish("faces/mill/door", first.data)
    eventually((chain.bucket / first.key).exists)
    mill.publish(
        "faces/mill/door", make_face(picture(9), site="mill", id=first.face.id, time=first.face.time).data
    )
    chain.good()
    assert (chain.bucket / first.key).read_bytes() == first.data


def test_a_message_larger_than_a_face_may_be(chain: Besieged, mill: Raw) -> None:
    before = chain.count("store", "store_discarded_total", reason="too-large")
    mill.publish("faces/mill/door", secrets.token_bytes(240_000))
    chain.counted("store", "store_discarded_total", before, reason="too-large")
    chain.good()


def books(**more: object) -> bytes:
    return json.dumps({"v": 1, "outbox": "f" * 32, **more}).encode()


LEDGERS = {
    "no JSON": b"\x00\xff",
    "deep": b'{"a":' * 20_000,
    "huge numbers": b'{"v":1,"outbox":' + b"9" * 100_000 + b"}",
    "of another": books(outbox="e" * 32),
    "many cameras": books(cameras={f"mill/c{n}": {} for n in range(5000)}),
    "markup": books(cameras={"mill/<script>": {}}),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_hostile_books(chain: Besieged, mill: Raw, name: str) -> None:
    mill.publish(topics.ledger("mill", "f" * 32), LEDGERS[name])
    chain.good()
    text = "".join(path.read_text(errors="replace") for path in chain.objects("ledger"))
    assert "<script>" not in text
    assert "e" * 32 not in text


def key_of(broker: Broker) -> Signer:
    assert broker.cert is not None
    assert broker.key is not None
    return Signer(broker.cert, broker.key)


def bad_seal(chain: Besieged, mill: Raw, data: bytes, key: str) -> None:
    """Publish a sealed face, and see that it is refused for its seal, and named."""
    before = chain.count("store", "store_refused_total", reason="bad-seal")
    assert mill.publish("faces/mill/door", data)
    chain.counted("store", "store_refused_total", before, reason="bad-seal")
    assert not (chain.bucket / key).exists()
    assert "bad-seal" in {note["reason"] for note in chain.notes()}
    chain.good()


def test_a_seal_by_another_authority(chain: Besieged, mill: Raw, public: str, make_face: Make) -> None:
    other = key_of(chain.enrolled.stranger("mill"))
    forged = sealing.Sealer([public], other, site="mill").seal(make_face(picture(15), site="mill"))
    bad_seal(chain, mill, forged.data, forged.key)


def test_a_ciphertext_that_was_changed(chain: Besieged, mill: Raw, public: str, make_face: Make) -> None:
    """By the broker's operator, who puts the signature that was there under it."""
    own = key_of(chain.enrolled.client("mill"))
    closed = sealing.Sealer([public], own, site="mill").seal(make_face(picture(16), site="mill"))
    parts = sealed.split(closed.data)
    body = bytearray(parts.ciphertext)
    body[len(body) // 2] ^= 1
    outer = face.parse(closed.data, face.Limits()).face
    forged = sealed.head(outer, bytes(body)) + sealed.tail(parts.key, parts.signature)
    bad_seal(chain, mill, forged, closed.key)


def test_one_faces_ciphertext_under_another_faces_name(
    chain: Besieged, mill: Raw, public: str, make_face: Make
) -> None:
    own = key_of(chain.enrolled.client("mill"))
    sealer = sealing.Sealer([public], own, site="mill")
    first, second = (sealer.seal(make_face(picture(n), site="mill")) for n in (17, 18))
    parts = sealed.split(second.data)
    forged = sealed.head(sealed.outside(first.face), sealed.split(first.data).ciphertext)
    bad_seal(chain, mill, forged + sealed.tail(parts.key, parts.signature), first.key)


def test_another_sites_sealed_face(chain: Besieged, mill: Raw, public: str, make_face: Make) -> None:
    theirs = key_of(chain.enrolled.client("door"))
    closed = sealing.Sealer([public], theirs, site="door").seal(make_face(picture(19), site="door"))
    before = chain.count("store", "store_refused_total", reason="wrong-topic")
    mill.publish("faces/mill/door", closed.data)
    chain.counted("store", "store_refused_total", before, reason="wrong-topic")
    assert not (chain.bucket / closed.key).exists()
    chain.good()


def test_a_flood_of_books(chain: Besieged, mill: Raw) -> None:
    """Of outboxes that never were: what is kept of one site is bounded."""
    for number in range(1000):
        outbox = f"{number:032x}"
        mill.publish(topics.ledger("mill", outbox), books(outbox=outbox, cameras={}), qos=0)
    chain.good()
    chain.said("cloud", "too many outboxes have books already")
    assert len([path for path in chain.objects("ledger") if "mill" in path.as_posix()]) <= 500


def test_a_flood_of_rubbish(chain: Besieged, mill: Raw) -> None:
    before = dealt_with(chain)
    for number in range(200):
        mill.publish("faces/mill/door", b"rubbish %d" % number, qos=0)
    chain.good()
    eventually(lambda: dealt_with(chain) >= before + 200)


def test_zz_nothing_was_unpickled_and_nobody_fell(chain: Besieged) -> None:
    assert not MARK.exists()
    log = chain.log("cloud")
    assert "Traceback" not in log
    assert "a fault of" not in log
    assert "started again" not in log
