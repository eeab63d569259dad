"""What is fuzzed: each target takes any bytes, and raises only where something is wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pyrage
from pydantic import ValidationError

from facerelay import exif, face, messages, picture, sealed, sealing, settings, signing, topics
from facerelay.cloud import keys
from facerelay.cloud.connection import Answer, Connection
from facerelay.cloud.contract import BucketError, check_key, is_key
from facerelay.cloud.gallery import asked, thumbs
from facerelay.cloud.gallery.known import told
from facerelay.cloud.history.marks import DayMarks, MarksError
from facerelay.cloud.quarantine import Note
from facerelay.cloud.tombstones import Tombstone
from facerelay.commands.logs import harmless
from facerelay.edge.cameras import playlist
from facerelay.edge.cameras.opening import CameraError
from facerelay.edge.voices import IgnoredError, Voices
from facerelay.link import wire
from facerelay.link.decode import Decoder
from fuzzing.mutate import GOLDEN, bombs, faces, known
from fuzzing.trust import authority_file, made

_LIMITS: Final = face.Limits(bytes=200_000, pixels=1_000_000)
_WHEN: Final = datetime(2026, 11, 21, tzinfo=UTC)


class Target(NamedTuple):
    """A target, and what a run of it begins with."""

    run: Callable[[bytes], None]
    seeds: list[bytes]


def faces_decoder(data: bytes) -> None:
    """A message on a topic of faces."""
    try:
        frozen = face.parse(data, _LIMITS)
    except face.FaceError as error:
        assert error.reason.replace("-", "").isalpha(), error.reason
        assert str(error).isprintable()
        return
    assert is_key(frozen.key)
    assert keys.parse(frozen.key) is not None
    json.dumps(face.describe(frozen.face), allow_nan=False)
    told(data, _LIMITS)


def exif_block(data: bytes) -> None:
    """An EXIF block by itself, and in a picture."""
    with suppress(exif.ExifError):
        tags = exif.parse(data)
        assert sum(map(len, tags.values())) <= 130 * max(4, len(data))
    if len(data) <= picture.MAX_EXIF_BYTES:
        faces_decoder(picture.with_exif(_plain(), data))


def thumbnail(data: bytes) -> None:
    """A picture that the gallery makes small."""
    with suppress(thumbs.DamagedError):
        small = thumbs.make(data)
        assert small.startswith(b"RIFF")


def receipts(data: bytes) -> None:
    """A batch of receipts."""
    _message(messages.Receipts, data)


def hello(data: bytes) -> None:
    """A store's hello."""
    _message(messages.Hello, data)


def ledger(data: bytes) -> None:
    """The books of an outbox."""
    _message(messages.Ledger, data)


def tombstone(data: bytes) -> None:
    """A tombstone in the bucket."""
    with suppress(ValidationError):
        one = Tombstone.model_validate_json(data)
        one.covers(known(1).id, "home", "door", _WHEN)
        assert Tombstone.model_validate_json(one.model_dump_json()) == one


def note(data: bytes) -> None:
    """A note in quarantine."""
    with suppress(ValidationError):
        Note.model_validate_json(data)


def marks(data: bytes) -> None:
    """A day of history in the bucket."""
    with suppress(MarksError):
        one = DayMarks.from_bytes(data)
        one.merge(one)


def configuration(data: bytes) -> None:
    """A configuration file."""
    _config_file().write_bytes(data)
    with suppress(settings.ConfigError):
        settings.load(_config_file(), environ={})


def flags(data: bytes) -> None:
    """Flags and the environment, a line each."""
    lines = data.decode(errors="replace").replace("\0", "").split("\n")[:8]
    environ = {
        f"FACERELAY_{name}": value
        for line in lines
        for name, equals, value in [line.partition("=")]
        if equals
    }
    with suppress(settings.ConfigError):
        settings.load(None, flags=lines, environ={})
    with suppress(settings.ConfigError):
        settings.load(None, environ=environ)


def names(data: bytes) -> None:
    """Topics, keys, and what a page asks for."""
    text = data.decode(errors="replace")
    slug = keys.slug_of(text)
    assert is_key(f"foreign/topic={slug}/a.jpg")
    assert topics.shown(text).isascii()
    assert topics.shown(text).isprintable()
    assert harmless(text).replace("\n", "").replace("\t", "").isprintable() or not text.isprintable()
    with suppress(topics.TopicError):
        topic = topics.FaceTopic(text)
        assert not {"+", "#"} & set(topic.publish("home", "door"))
        assert not any(
            topics.overlap(topic.filter, own) for own in ("receipts/#", "ledger/#", "link/#", "stores/#")
        )
    with suppress(BucketError):
        parts = check_key(text).split("/")
        assert not any(part.startswith(".") or not part.isascii() for part in parts)
    facts = keys.parse(text)
    assert facts is None or is_key(text)
    for which in ("cursor", "at", "quality", "limit", "site", "camera"):
        with suppress(asked.AskedError):
            asked.wall({which: text})
    with suppress(asked.AskedError):
        asked.date({"date": text})


def mqtt(data: bytes) -> None:
    """What a broker sends: the first byte says how it is cut."""
    decoder = Decoder(max_payload=2_000)
    step = 1 + (data[0] if data else 0)
    with suppress(wire.ProtocolError):
        for at in range(1, len(data), step):
            decoder.feed(data[at : at + step])
            while (packet := decoder.next()) is not None:
                if isinstance(packet, wire.Publish):
                    assert len(packet.payload) <= 2_000
                    assert not {"+", "#", "\0"} & set(packet.topic)


def hls(data: bytes) -> None:
    """A playlist."""
    url = "http://camera.example/live/a.m3u8"
    with suppress(CameraError):
        found = playlist.parse(data, url, url)
        if isinstance(found, playlist.Media):
            assert all(0 <= each.seconds <= 3_600 for each in found.segments)


def http(data: bytes) -> None:
    """What a bucket or a webhook's server answers, in pieces."""
    asyncio.run(_answered(data))


async def _answered(data: bytes) -> None:
    lost: list[Connection] = []
    connection = Connection(lost.append, whose="x")
    connection.connection_made(_Transport())
    answer = connection.ask(b"x")
    step = 1 + (data[0] if data else 0)
    for at in range(1, len(data), step):
        piece = data[at : at + step]
        while piece and not connection.lost:
            space = connection.get_buffer(-1)
            assert len(space)
            n = min(len(space), len(piece))
            space[:n] = piece[:n]
            piece = piece[n:]
            connection.buffer_updated(n)
    connection.connection_lost(None)
    with suppress(OSError):
        found = await answer
        assert isinstance(found, Answer)
        assert 0 <= found.status <= 999


class _Transport(asyncio.Transport):
    """A transport to nowhere."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write nothing."""

    def abort(self) -> None:
        """End it, a moment later."""


def signed(data: bytes) -> None:
    """The signature at the end of a message."""
    with suppress(signing.SignatureError):
        body, key, signature = signing.unsigned(data)
        assert len(signature) == signing.SIGNATURE_BYTES
        assert len(key) == 16
        assert body + b"}" not in data or body.endswith(b"}")


def certificate(data: bytes) -> None:
    """The certificate in a store's hello."""
    tail = ',"key":"' + "0" * 16 + '","signature":"' + "A" * 86 + '"}'
    told = {
        "v": 1,
        "store": "main",
        "start": "a" * 16,
        "certificate": base64.b64encode(data[:3_000]).decode(),
    }
    with suppress(IgnoredError, messages.WireError):
        _voices().hello("stores/main", (json.dumps(told)[:-1] + tail).encode())


def sealed_face(data: bytes) -> None:
    """A sealed face, and what is inside."""
    try:
        outer = face.parse(data, _LIMITS)
        parts = sealed.split(data)
    except (face.FaceError, sealed.SealError):
        return
    with suppress(sealed.SealError):
        _opener().open(outer.face, parts, _LIMITS)


def _message(kind: type[messages.Receipts | messages.Hello | messages.Ledger], data: bytes) -> None:
    try:
        one = kind.from_bytes(data)
    except messages.WireError as error:
        assert str(error).isprintable(), error
        return
    again = one.to_bytes()
    if len(again) <= kind.most_bytes:
        assert kind.from_bytes(again) == one


@cache
def _plain() -> bytes:
    from fuzzing.mutate import plain  # noqa: PLC0415 - takes OpenCV

    return plain()


@cache
def _config_file() -> Path:
    return Path(tempfile.mkdtemp(prefix="facerelay-fuzz-")) / "cloud.toml"


@cache
def _voices() -> Voices:
    return Voices(authority_file(_config_file().parent))


@cache
def _identity() -> tuple[pyrage.x25519.Identity, Path]:
    path = _config_file().with_name("identity.txt")
    identity = pyrage.x25519.Identity.generate()
    path.touch(mode=0o600)
    path.write_text(f"{identity}\n", encoding="ascii")
    return identity, path


@cache
def _opener() -> sealing.Opener:
    return sealing.Opener(_identity()[1])


def _sealed_seeds() -> list[bytes]:
    outside = sealed.outside(known(1))
    recipient = _identity()[0].to_public()
    tail = sealed.tail("0" * 16, bytes(64))
    inside = [face.freeze(known(1), _plain()).data, b"", bytes(5_000), b"\x80\x04."]
    return [sealed.head(outside, pyrage.encrypt(each, [recipient])) + tail for each in inside]


def _json_seeds() -> dict[str, list[bytes]]:
    golden = {name: (GOLDEN / f"{name}.json").read_bytes() for name in ("receipts", "hello", "ledger")}
    erasures = {"since": "", "until": "ab", "rules": [{"site": "home", "end": "2026-11-21T00:00:00Z"}]}
    more = json.loads(golden["receipts"]) | {"erasures": erasures}
    told = json.loads(golden["hello"]) | {"certificate": "AAAA"}
    deep = [
        b"[" * 3_000,
        b'{"a":' * 3_000,
        b"9" * 5_000,
        b'{"v":1e999}',
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"NaN",
    ]
    buried = {
        "v": 1,
        "made": "2026-11-21T00:00:00Z",
        "ids": [known(1).id],
        "site": "home",
        "start": "2026-01-01T00:00:00Z",
    }
    noted = {
        "topic": "faces/x", "reason": "pickle", "arrived": "2026-11-21T00:00:00Z", "size": 3,
        "sha256": "0" * 64,
        "face": {"id": known(1).id, "site": "home", "camera": "door", "time": "2026-11-21T00:00:00Z"},
    }  # fmt: skip
    return {
        "receipts": [golden["receipts"], json.dumps(more).encode(), *deep],
        "hello": [golden["hello"], json.dumps(told).encode(), *deep],
        "ledger": [golden["ledger"], *deep],
        "tombstone": [json.dumps(buried).encode(), *deep],
        "note": [json.dumps(noted).encode(), *deep],
        "marks": [
            DayMarks().to_bytes(),
            b'{"v":1,"cameras":{"home/door":{"hours":{"3":{"n":[1,2,3]}}}}}',
            *deep,
        ],
    }


def _text_seeds() -> dict[str, list[bytes]]:
    values = {"broker": {"url": "mqtt://127.0.0.1:1883"}, "bucket": {"url": "file:///tmp/b"}}
    edge = {"camera": [{"name": "door", "source": "rtsp://u:p@camera/1"}]}
    list_ = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:7\n"
    return {
        "configuration": [
            settings.template(settings.CLOUD, values).encode(),
            settings.template(settings.EDGE, edge).encode(),
            b"x = " + b"[" * 3_000, b"x = " + b"9" * 5_000, b"a." * 60 + b"a=1", b"\xff\xfe",
        ],
        "flags": [
            b"camera.0.name=door\ncamera.0.source=0", b"SITE=home\nCAMERA__0__NAME=a\nCAMERA__0__SOURCE=0",
            b"camera." + b"9" * 5_000 + b".name=x", b"....=x", b"bucket.url=s3://a@b:c?d",
        ],
        "names": [
            b"faces/{site}/{camera}", b"face_app/#", b"faces/\r\n\x1b[2J", "faces/\u202ea".encode(),
            b"../../etc",
            b"faces/site=home/camera=door/date=2026-11-21/hour=10/101112.131415-019a5b00-0000-7000-8000-000000000001-01234567.jpg",
            b"@2026-11-21T10~", b"2026-11-21T10:11:12+14:00", b"0.5", b"60", b"9999-12-31T23:59:59-23:59",
        ],
        "mqtt": [
            b"\x03" + wire.publish("faces/home/door", b"x" * 50, qos=1, packet_id=7) + b"\x20\x02\x00\x00",
            b"\x00" + wire.publish("a", b"x" * 5_000) + b"\x90\x03\x00\x01\x80\xd0\x00\x40\x02\x00\x01",
            b"\x20\x30\xff\xff\xff\x7f\x00\x01a", b"\x01\x30\xff\xff\xff\xff\xff",
        ],
        "hls": [
            list_ + b'#EXTINF:4,\na.ts\n#EXT-X-MAP:URI="i.mp4",BYTERANGE="9@0"\n',
            list_ + b"#EXTINF:1e9,\nfile:///etc/passwd\n",
            b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=1x1\nhttp://169.254.169.254/\n",
        ],
        "http": [
            b"\x05HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"\x00HTTP/1.1 204 No Content\r\n\r\n",
            b"\xffHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"\x09HTTP/1.1 412 \r\n\r\n" * 3,
            b"\xff" + b"x" * 20_000,
        ],
        "signed": [b'{"a":1,"key":"%s","signature":"%s"}' % (b"0" * 16, b"A" * 86), b"{}"],
        "certificate": [made().store, made().authority, *made().odd],
    }  # fmt: skip


@cache
def targets() -> Mapping[str, Target]:
    """Return all targets by name."""
    pictures = [*faces(), *(each for each in bombs() if len(each) < 100_000)]
    blocks = [
        found for each in faces() if (found := picture.read(each, max_bytes=10**6, max_pixels=10**6).exif)
    ]
    texts = _json_seeds() | _text_seeds()
    runs = (
        receipts,
        hello,
        ledger,
        tombstone,
        note,
        marks,
        configuration,
        flags,
        names,
        mqtt,
        hls,
        http,
        signed,
    )
    return {
        "face": Target(faces_decoder, pictures), "exif": Target(exif_block, blocks),
        "thumbnail": Target(thumbnail, pictures), "sealed": Target(sealed_face, _sealed_seeds()),
        "certificate": Target(certificate, texts["certificate"]),
        **{run.__name__: Target(run, texts[run.__name__]) for run in runs},
    }  # fmt: skip
