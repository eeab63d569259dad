"""Sealed faces: what is sealed at the edge is opened by its readers alone, and nobody can change it."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pyrage
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import Make, need
from facerelay import config, face, picture, sealed, sealing, sections, settings
from facerelay.cli import main
from facerelay.cloud.bucket import Bucket, open_bucket
from facerelay.cloud.keep import Keeper
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.shelf import metadata_of as metadata
from facerelay.cloud.tombstones import Tombstones
from facerelay.cloud.unseal import Unsealer
from facerelay.commands.doctor import _seal as doctor_seal
from facerelay.devices import Devices
from facerelay.edge.eyes.freeze import encode_face
from facerelay.face import FaceError, Frozen, Limits
from facerelay.sealed import SealError, split
from facerelay.signing import KeyFileError, Signer
from facerelay.topics import FaceTopic
from gallery_parts import fill, folder, parts_of
from seals import Keys, make_keys

ENDINGS = [".jpg", ".png", ".webp"]
TOPIC = "faces/home/door"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def home(keys: Keys) -> Signer:
    return keys.enrol("site.home")


@pytest.fixture(scope="module")
def opener(keys: Keys) -> sealing.Opener:
    return sealing.Opener(keys.identity)


def a_picture(ending: str = ".jpg", seed: int = 1) -> bytes:
    image = np.random.default_rng(seed).integers(0, 255, (70, 60, 3), dtype=np.uint8)
    return cv2.imencode(ending, image)[1].tobytes()


@pytest.fixture
def plain(make_face: Make) -> Frozen:
    return make_face(a_picture())


@pytest.fixture
def closed(keys: Keys, home: Signer, plain: Frozen) -> Frozen:
    return keys.sealer(home).seal(plain)


def opened(opener: sealing.Opener, data: bytes, limits: Limits | None = None) -> Frozen:
    outer = face.parse(data, limits or Limits())
    return opener.open(outer.face, split(data), limits or Limits())


def signed_as(signer: Signer, outer: face.Face, ciphertext: bytes) -> bytes:
    """Return a sealed face that says whatever its key's owner wants it to."""
    head = sealed.head(outer, ciphertext)
    signature = sealing._smaller(signer.sign("sealed face", head))
    return head + sealed.tail(signer.public.id, signature)


def checked(keys: Keys, data: bytes) -> None:
    seals = sealing.Seals(Devices(keys.issuer.path, keys.devices))
    asyncio.run(seals.check(face.parse(data, Limits())))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_face_is_sealed_and_opened(
    keys: Keys, home: Signer, opener: sealing.Opener, make_face: Make, ending: str
) -> None:
    one = make_face(a_picture(ending))
    two = keys.sealer(home).seal(one)
    outer = face.parse(two.data, Limits())
    assert (outer.extension, outer.key, outer.sha256) == ("png", two.key, two.sha256)
    assert outer.key.endswith(f"{one.face.id}-{two.sha256[:8]}.png")
    inner = opened(opener, two.data)
    assert (inner.data, inner.sha256, inner.extension) == (one.data, one.sha256, one.extension)
    assert inner.face == one.face
    checked(keys, two.data)


def test_outside_nothing_is_told_but_when_and_where(closed: Frozen, plain: Frozen) -> None:
    outer = face.parse(closed.data, Limits()).face
    assert outer == sealed.outside(plain.face)
    told = face.describe(outer)
    assert told["sealed"] is True
    assert not {"box", "frame", "score", "quality", "track", "parts"} & told.keys()
    known = plain.face
    assert (outer.id, outer.time, outer.site, outer.camera) == (
        known.id,
        known.time,
        known.site,
        known.camera,
    )
    assert (outer.outbox, outer.run, outer.seq, outer.clock) == (
        known.outbox, known.run, known.seq, known.clock
    )  # fmt: skip
    assert b"0.25" not in closed.data  # a part of its quality


def test_every_reader_of_pictures_sees_the_same_lock(closed: Frozen, keys: Keys, home: Signer) -> None:
    with Image.open(io.BytesIO(closed.data)) as image:
        image.load()
        shown = np.asarray(image)
    assert shown.shape == (32, 32)
    assert sorted(set(shown.flat)) == [1, 2] or sorted(set(shown.flat)) == [85, 170]
    other = keys.sealer(home).seal(face.freeze(replace(closed.face, sealed=False), a_picture(seed=2)))
    with Image.open(io.BytesIO(other.data)) as image:
        assert (np.asarray(image) == shown).all()
    seen = cv2.imdecode(np.frombuffer(closed.data, np.uint8), cv2.IMREAD_COLOR)
    assert seen is not None
    assert seen.shape == (32, 32, 3)
    (tile,) = [length for kind, _, length in picture.png_chunks(closed.data) if kind == b"IDAT"]
    assert tile < 200


def test_of_a_pictures_size_only_its_kilobytes_can_be_told(keys: Keys, home: Signer, make_face: Make) -> None:
    identity = pyrage.x25519.Identity.from_str(keys.identity.read_text().splitlines()[-1])
    lengths: dict[int, set[int]] = {}
    for seed in range(24):
        image = np.random.default_rng(seed).integers(0, 255, (30 + seed, 30, 3), dtype=np.uint8)
        one = make_face(cv2.imencode(".jpg", image)[1].tobytes())
        inside = pyrage.decrypt(split(keys.sealer(home).seal(one).data).ciphertext, [identity])
        lengths.setdefault(len(inside), set()).add(len(one.data))
    assert all(length % 1024 == 0 for length in lengths)
    assert len(lengths) > 1
    assert max(map(len, lengths.values())) > 1


def test_what_is_sealed_twice_is_other_bytes_of_one_face(keys: Keys, home: Signer, plain: Frozen) -> None:
    one, two = (keys.sealer(home).seal(plain) for _ in range(2))
    assert one.data != two.data
    assert one.key.rpartition("-")[0] == two.key.rpartition("-")[0]


def test_several_readers_each_open_it(keys: Keys, home: Signer, plain: Frozen, tmp_path: Path) -> None:
    second = sealing.make_identity(tmp_path / "second.key")
    sealer = sealing.Sealer([keys.public, second], home, site="home")
    data = sealer.seal(plain).data
    for path in (keys.identity, tmp_path / "second.key"):
        assert opened(sealing.Opener(path), data).data == plain.data


def test_a_file_of_two_keys_opens_the_faces_of_both(
    keys: Keys, home: Signer, plain: Frozen, tmp_path: Path
) -> None:
    both = tmp_path / "both.key"
    public = sealing.make_identity(both)
    both.write_text(both.read_text() + keys.identity.read_text())
    for recipient in (public, keys.public):
        data = sealing.Sealer([recipient], home, site="home").seal(plain).data
        assert opened(sealing.Opener(both), data).data == plain.data


def test_the_wrong_key_says_so(closed: Frozen, tmp_path: Path) -> None:
    sealing.make_identity(tmp_path / "other.key")
    with pytest.raises(SealError, match=r"another key than those of seal\.identity_file"):
        opened(sealing.Opener(tmp_path / "other.key"), closed.data)


def test_age_itself_opens_the_ciphertext(closed: Frozen, plain: Frozen, keys: Keys) -> None:
    done = subprocess.run(
        [need("age"), "--decrypt", "-i", str(keys.identity)],
        input=split(closed.data).ciphertext, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.rstrip(b"\0") == plain.data
    again = face.parse(done.stdout, Limits())  # and what it wrote is a picture as it is
    assert again.face == plain.face


def test_what_age_keygen_writes_is_read(home: Signer, plain: Frozen, tmp_path: Path) -> None:
    path = tmp_path / "theirs.key"
    subprocess.run([need("age-keygen"), "-o", str(path)], check=True, capture_output=True)
    done = subprocess.run([need("age-keygen"), "-y", str(path)], check=True, capture_output=True, text=True)
    data = sealing.Sealer([done.stdout.strip()], home, site="home").seal(plain).data
    assert opened(sealing.Opener(path), data).data == plain.data


def test_age_keygen_reads_what_keygen_writes(keys: Keys) -> None:
    done = subprocess.run(
        [need("age-keygen"), "-y", str(keys.identity)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == keys.public


# what must not pass


def _chunk_at(data: bytes, kind: bytes) -> tuple[int, int]:
    (found,) = [(at, length) for each, at, length in picture.png_chunks(data) if each == kind]
    return found


def _resealed(data: bytes, kind: bytes, change: Callable[[bytearray], None]) -> bytes:
    """Change a chunk's body, and put its checksum right."""
    at, length = _chunk_at(data, kind)
    body = bytearray(data[at : at + length])
    change(body)
    return data[: at - 8] + picture.png_chunk(kind, bytes(body)) + data[at + length + 4 :]


def _flip(body: bytearray) -> None:
    body[len(body) // 2] ^= 1


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"seAL", b"siGN"])
def test_a_chunk_that_was_changed_breaks_the_signature(closed: Frozen, keys: Keys, kind: bytes) -> None:
    with pytest.raises(SealError):
        checked(keys, _resealed(closed.data, kind, _flip))


def test_exif_that_was_changed_breaks_the_signature(closed: Frozen, keys: Keys) -> None:
    at, length = _chunk_at(closed.data, b"eXIf")
    for old, new in ((b'"camera":"door"', b'"camera":"back"'), (b"unknown", b"unknowm")):
        body = closed.data[at : at + length].replace(old, new)
        data = closed.data[: at - 8] + picture.png_chunk(b"eXIf", body) + closed.data[at + length + 4 :]
        if data != closed.data:
            with pytest.raises(SealError, match="not by the key of site home"):
                checked(keys, data)


def test_a_signature_taken_off_or_put_in_twice_is_refused(closed: Frozen, keys: Keys) -> None:
    at, length = _chunk_at(closed.data, b"siGN")
    bare = closed.data[: at - 8] + closed.data[at + length + 4 :]
    with pytest.raises(SealError, match="not signed"):
        checked(keys, bare)
    twice = closed.data[: at - 8] + 2 * closed.data[at - 8 : at + length + 4] + closed.data[at + length + 4 :]
    with pytest.raises(SealError, match="not those of a sealed face"):
        checked(keys, twice)


def test_nobody_makes_a_second_file_of_one_seal(closed: Frozen, keys: Keys) -> None:
    """Whatever a broker's operator may do to the bytes: the same seal never passes in another file."""
    at, length = _chunk_at(closed.data, b"siGN")
    s = int.from_bytes(closed.data[at + length - 32 : at + length])
    mirrored = (sealing._ORDER - s).to_bytes(32)
    before, after = closed.data[: at - 8], closed.data[at + length + 4 :]
    mirror = closed.data[at : at + length - 32] + mirrored
    others = [
        before + picture.png_chunk(b"siGN", mirror) + after,
        closed.data + b"\0",
        closed.data[: at + length] + b"\0\0\0\0" + after,
        closed.data[:-4] + b"\0\0\0\0",
        before + picture.png_chunk(b"tEXt", b"a\0b") + closed.data[at - 8 :],
        closed.data[:-12] + picture.png_chunk(b"IEND", b"x"),
    ]
    checked(keys, closed.data)
    for data in others:
        with pytest.raises(SealError):
            checked(keys, data)


@given(at=st.integers(0, 2**20), to=st.integers(0, 255))
def test_no_byte_can_be_changed(keys: Keys, home: Signer, at: int, to: int) -> None:
    data = bytearray(_SOME(keys, home))
    at %= len(data)
    if data[at] == to:
        return
    data[at] = to
    with pytest.raises((SealError, FaceError)):
        checked(keys, bytes(data))


@given(data=st.binary(max_size=400), where=st.integers(0, 400))
def test_hostile_bytes_raise_one_error(keys: Keys, home: Signer, data: bytes, where: int) -> None:
    whole = _SOME(keys, home)
    for hostile in (data, picture.PNG + data, whole[:where] + data, whole[: len(whole) - where] + data):
        try:
            split(hostile)
        except SealError:
            continue
        assert hostile == whole or len(hostile) < len(whole)


_made: dict[int, bytes] = {}


def _SOME(keys: Keys, home: Signer) -> bytes:  # noqa: N802 - a constant, but for its keys
    if id(keys) not in _made:
        known = face.Face(
            id=face.new_id(), outbox="a" * 32, run="b" * 8, seq=1, site="home", camera="door",
            time=datetime.now(UTC), box=(1, 2, 3, 4), frame=(5, 6), score=0.5, quality=0.5,
        )  # fmt: skip
        _made[id(keys)] = keys.sealer(home).seal(face.freeze(known, a_picture())).data
    return _made[id(keys)]


def test_another_faces_ciphertext_is_not_shown_as_this_ones(
    keys: Keys, home: Signer, opener: sealing.Opener, make_face: Make
) -> None:
    """Even where the key's owner signs the exchange."""
    one, two = (make_face(a_picture(seed=seed)) for seed in (1, 2))
    swapped = signed_as(home, sealed.outside(one.face), split(keys.sealer(home).seal(two).data).ciphertext)
    checked(keys, swapped)
    with pytest.raises(SealError, match="another id than outside"):
        opened(opener, swapped)


@pytest.mark.parametrize(
    "change",
    [
        {"site": "work"}, {"camera": "back"}, {"seq": 77}, {"outbox": "c" * 32}, {"clock": "unknown"},
        {"time": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)  # fmt: skip
def test_inside_and_outside_must_agree(
    home: Signer, keys: Keys, opener: sealing.Opener, plain: Frozen, change: dict[str, object]
) -> None:
    ciphertext = split(keys.sealer(home).seal(plain).data).ciphertext
    data = signed_as(home, sealed.outside(replace(plain.face, **change)), ciphertext)  # type: ignore[arg-type]
    with pytest.raises(SealError, match=f"another {next(iter(change))} than outside"):
        opened(opener, data)


def test_what_is_inside_is_looked_at_like_any_picture(
    keys: Keys, home: Signer, opener: sealing.Opener, plain: Frozen, closed: Frozen
) -> None:
    def shell(inside: bytes) -> bytes:
        ciphertext = pyrage.encrypt(inside, [pyrage.x25519.Recipient.from_str(keys.public)])
        return signed_as(home, sealed.outside(plain.face), ciphertext)

    huge = bytearray(plain.data)
    at = huge.index(b"\xff\xc0")
    huge[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    for inside, says in (
        (b"", "no face"),
        (b"\x80\x04.", "pickle"),
        (a_picture(), "without facerelay's EXIF"),
        (plain.data[:-30], "cut off"),
        (bytes(huge), "pixels"),
        (closed.data, "sealed once more"),
    ):
        with pytest.raises(SealError, match=says):
            opened(opener, shell(inside))


def test_a_ciphertext_that_takes_long_is_not_tried(
    home: Signer, opener: sealing.Opener, plain: Frozen
) -> None:
    stanzas = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    slow = b"age-encryption.org/v1\n" + 9_000 * stanzas + b"--- " + b"A" * 43 + b"\n" + bytes(32)
    for ciphertext in (slow, b"", b"age-encryption.org/v1\n", slow[:2_000]):
        with pytest.raises(SealError):
            opened(opener, signed_as(home, sealed.outside(plain.face), ciphertext))


def test_a_face_that_only_says_that_it_is_sealed_is_malformed(make_face: Make) -> None:
    with pytest.raises(FaceError, match="don't agree") as error:
        face.parse(make_face(sealed=True).data, Limits())
    assert error.value.face is not None


def test_a_plain_face_with_a_sealed_chunk_is_malformed(make_face: Make) -> None:
    data = make_face(a_picture(".png")).data
    with pytest.raises(FaceError, match="don't agree"):
        face.parse(data[:-12] + picture.png_chunk(b"seAL", b"x") + data[-12:], Limits())


# who sealed it


def test_keys_of_others_do_not_count(keys: Keys, make_face: Make) -> None:
    work, store = keys.enrol("site.work"), keys.enrol("store.home")
    (keys.folder / "strangers").mkdir()
    stranger = make_keys(keys.folder / "strangers")
    outer = sealed.outside(make_face().face)
    ciphertext = pyrage.encrypt(b"x", [pyrage.x25519.Recipient.from_str(keys.public)])
    for signer, says in (
        (work, "sealed by site work, and it says that it is of site home"),
        (store, "sealed by store home"),
        (stranger.issuer.signer("site.home"), "not enrolled"),
    ):
        with pytest.raises(SealError, match=says):
            checked(keys, signed_as(signer, outer, ciphertext))


def test_a_certificate_of_another_authority_in_the_folder_does_not_count(keys: Keys, make_face: Make) -> None:
    (keys.folder / "another").mkdir()
    forger = make_keys(keys.folder / "another").issuer.signer("site.home")
    keys.place(forger).write_bytes((keys.folder / "another" / "site.home.pem").read_bytes())
    (keys.devices / "junk.pem").write_text("junk")
    with pytest.raises(SealError, match="not enrolled"):
        checked(keys, signed_as(forger, sealed.outside(make_face().face), b"x"))


def test_the_folder_is_read_again_when_it_changes(tmp_path: Path, make_face: Make) -> None:
    keys, now = make_keys(tmp_path), [0.0]
    seals = sealing.Seals(Devices(keys.issuer.path, keys.devices, clock=lambda: now[0]))
    plain = make_face()

    async def story() -> None:
        signer = keys.issuer.signer("site.home")
        one = face.parse(keys.sealer(signer).seal(plain).data, Limits())
        with pytest.raises(SealError, match="not enrolled"):
            await seals.check(one)
        keys.place(signer).write_bytes((tmp_path / "site.home.pem").read_bytes())
        with pytest.raises(SealError, match="not enrolled"):  # looked at a moment ago
            await seals.check(one)
        now[0] += 2
        await seals.check(one)
        keys.revoke(signer)
        now[0] += 2
        with pytest.raises(SealError, match="site home that was revoked"):
            await seals.check(one)
        assert (await seals.signed(one.face, split(one.data))).revoked

    asyncio.run(story())


def test_a_folder_that_is_gone_is_no_refusal(tmp_path: Path, closed: Frozen) -> None:
    keys = make_keys(tmp_path)
    seals = sealing.Seals(Devices(keys.issuer.path, tmp_path / "nowhere"))
    with pytest.raises(sealed.UncheckedError, match=r"trust\.devices"):
        asyncio.run(seals.check(face.parse(closed.data, Limits())))


# at the edge


def test_a_sealed_face_keeps_to_the_limits_of_bytes(keys: Keys, home: Signer, make_face: Make) -> None:
    image = np.random.default_rng(3).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    known = make_face().face
    for form, most in (
        (sections.PictureFormat(max_bytes=12_000), 1_000_000), (sections.PictureFormat(), 30_000),
        (sections.PictureFormat(format="webp"), 6_000), (sections.PictureFormat(format="png"), 100_000),
    ):  # fmt: skip
        limit = min(most, form.max_bytes or most)
        found = encode_face(known, image, form=form, most=most, seal=keys.sealer(home))
        assert 0.6 * limit < len(found.data) <= limit
        assert found.face.sealed
        assert found.face.quality == known.quality  # the outbox goes by it


def test_a_key_of_another_site_is_refused_at_once(keys: Keys) -> None:
    with pytest.raises(KeyFileError, match="that of site elsewhere, not of site home"):
        sealing.Sealer([keys.public], keys.issuer.signer("site.elsewhere"), site="home")


def test_a_mistyped_public_key_is_named(keys: Keys, home: Signer) -> None:
    wrong = keys.public[:-1] + ("q" if keys.public[-1] != "q" else "p")
    with pytest.raises(settings.ConfigError, match=rf"seal\.recipients: {wrong}: mistyped"):
        sealing.Sealer([wrong], home, site="home")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["trust.cert=", "trust.key="], "trust.cert is not set: `facerelay enrol`"),
        (["homeassistant.enabled=true", "homeassistant.images=true"], "homeassistant.images: it would show"),
        (["frigate.enabled=true", "frigate.images=true"], "frigate.images: it would show"),
    ],
)
def test_settings_that_would_show_the_faces_are_refused(
    keys: Keys, home: Signer, tmp_path: Path, flags: list[str], says: str
) -> None:
    assert home
    values = {"site": "home", "trust": keys.settings("site.home"), "seal": {"recipients": [keys.public]}}
    if "cert" in flags[0]:
        values, flags = {"seal": {"recipients": [keys.public]}}, []
    path = tmp_path / "edge.toml"
    path.write_text(settings.template(settings.EDGE, values))
    with pytest.raises(settings.ConfigError, match=says):
        settings.load(path, flags=flags, environ={})


# in the cloud


def keeper(bucket: Bucket, keys: Keys | None) -> Keeper:
    seals = keys and sealing.Seals(Devices(keys.issuer.path, keys.devices))
    return Keeper(
        bucket, limits=Limits(), topic=FaceTopic("faces/{site}/{camera}"),
        tombstones=Tombstones(bucket, age_s=0), seals=seals.check if seals else None,
        quarantine=Quarantine(bucket, max_bytes=1_000_000, keep=timedelta(days=1)),
    )  # fmt: skip


def outcome(to: Keeper, data: bytes) -> str:
    answer = asyncio.run(to.keep(TOPIC, data))
    assert answer is not None
    return answer.receipt.outcome


def test_the_store_keeps_what_is_sealed_by_its_own_site(
    keys: Keys, home: Signer, closed: Frozen, tmp_path: Path
) -> None:
    assert home
    bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}/bucket"))
    assert outcome(keeper(bucket, keys), closed.data) == "stored"
    assert asyncio.run(bucket.get(closed.key, max_bytes=100_000)) == closed.data


def test_tools_that_read_metadata_learn_no_more_than_brokers(closed: Frozen, plain: Frozen) -> None:
    assert {"score", "quality"} <= metadata(plain.face).keys()
    told = metadata(face.parse(closed.data, Limits()).face)
    assert told.keys() == {"id", "site", "camera", "time", "sealed"}


def test_the_store_refuses_and_names_a_bad_seal(
    keys: Keys, closed: Frozen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}/bucket"))
    to = keeper(bucket, keys)
    for data in (
        _resealed(closed.data, b"seAL", _flip),
        closed.data[:-12] + picture.png_chunk(b"IEND", b"x"),
    ):
        assert outcome(to, data) == "refused:bad-seal"
    assert "the signature is not by the key of site home" in caplog.text
    assert to.counters.refused == {"bad-seal": 2}
    assert not (tmp_path / "bucket" / "faces").exists()
    notes = [json.loads(path.read_text()) for path in (tmp_path / "bucket" / "quarantine").rglob("*.json")]
    assert {note["reason"] for note in notes} == {"bad-seal"}
    assert outcome(to, closed.data) == "stored"  # and the next good one passes


def test_without_a_list_of_devices_a_seal_is_not_looked_at(closed: Frozen, tmp_path: Path) -> None:
    bucket = open_bucket(config.Bucket(url=f"file://{tmp_path}/bucket"))
    assert outcome(keeper(bucket, None), _resealed(closed.data, b"seAL", _flip)) == "stored"


# where it is looked at


def unsealer(keys: Keys, *, opener: bool = True) -> Unsealer:
    seals = sealing.Seals(Devices(keys.issuer.path, keys.devices))
    return Unsealer(Limits(), opener=sealing.Opener(keys.identity) if opener else None, seals=seals)


def test_the_gallery_opens_in_memory_alone(keys: Keys, home: Signer, tmp_path: Path, make_face: Make) -> None:
    plain = [make_face(a_picture(seed=seed), quality=0.1 * seed) for seed in range(1, 9)]
    closed = [keys.sealer(home).seal(one) for one in plain]
    open_one = make_face(a_picture(seed=20), quality=0.95)

    async def story() -> None:
        bucket = folder(tmp_path / "bucket")
        await fill(bucket, [*closed, open_one])
        async with parts_of(bucket, tmp_path, unsealer=unsealer(keys)) as parts:
            for one, its in zip(closed, plain, strict=True):
                look = await parts.reader.picture(one.key)
                assert look.data == its.data
                assert look.seal is not None
                assert look.seal.told() == {"opened": True, "signed_by": "site home", "revoked": False}
                thumb = await parts.reader.thumb(one.key)
                with Image.open(io.BytesIO(thumb)) as image:
                    assert image.size == (60, 70)
                assert await parts.reader.is_sealed(one.key)
            await parts.reader.thumb(open_one.key)
            assert not await parts.reader.is_sealed(open_one.key)
            learnt = await parts.reader.learn([one.key for one in closed])
            assert [learnt[one.key].quality for one in closed] == [
                pytest.approx(one.face.quality) for one in plain
            ]
            known = await parts.reader.known([one.key for one in closed])
            assert all(one.sealed for one in known.values())
            erased = closed[0].key
            await parts.obedience.forget([erased])
            assert erased not in await parts.reader.known([erased])
        on_disk = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert open_one.key.encode() in on_disk  # the search finds what is there
        for one in closed:
            assert one.key.encode() not in on_disk
        assert len(await _thumbs(tmp_path)) == 1

    asyncio.run(story())


async def _thumbs(path: Path) -> list[str]:
    from facerelay.cloud.gallery.cache import Cache  # noqa: PLC0415 - what is left on disk, and nothing else

    async with Cache(path / "cache", max_bytes=1_000_000) as cache:
        return await cache.keys()


def test_without_a_key_the_lock_is_shown_and_says_what_to_do(
    keys: Keys, closed: Frozen, tmp_path: Path
) -> None:
    async def story() -> None:
        bucket = folder(tmp_path / "bucket")
        await fill(bucket, [closed])
        async with parts_of(bucket, tmp_path, unsealer=unsealer(keys, opener=False)) as parts:
            look = await parts.reader.picture(closed.key)
            assert look.data == closed.data
            assert look.closed
            assert look.seal is not None
            assert "set seal.identity_file" in look.seal.told()["fault"]
            assert look.seal.told()["signed_by"] == "site home"
            await parts.reader.thumb(closed.key)
            learnt = (await parts.reader.known([closed.key]))[closed.key]
            assert (learnt.quality, learnt.visit, learnt.sealed) == (None, None, True)

    asyncio.run(story())


def test_a_revoked_or_unknown_key_is_told(tmp_path: Path, make_face: Make) -> None:
    keys = make_keys(tmp_path)
    gone, strange = keys.enrol("site.home"), keys.issuer.signer("site.home")
    keys.revoke(gone)

    async def told(signer: Signer) -> dict[str, object]:
        look = await unsealer(keys).look(keys.sealer(signer).seal(make_face()).data)
        assert look.seal is not None
        return look.seal.told()

    assert asyncio.run(told(gone)) == {"opened": True, "signed_by": "site home", "revoked": True}
    unknown = asyncio.run(told(strange))
    assert unknown["opened"] is True
    assert "not enrolled" in str(unknown["doubt"])


@pytest.fixture
def cloud(keys: Keys, home: Signer, closed: Frozen, tmp_path: Path) -> Path:
    assert home
    bucket = folder(tmp_path / "bucket")
    asyncio.run(fill(bucket, [closed]))
    path = tmp_path / "cloud.toml"
    trust = {"authority": str(keys.issuer.path), "devices": str(keys.devices)}
    seal = {"identity_file": str(keys.identity)}
    values = {"bucket": {"url": f"file://{tmp_path}/bucket"}, "trust": trust, "seal": seal}
    path.write_text(settings.template(settings.CLOUD, values))
    return path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, list(words))
    return done.exit_code, done.output


def test_doctor_tells_whether_faces_can_be_opened(cloud: Path, keys: Keys) -> None:
    assert str(keys.identity) in asyncio.run(doctor_seal(settings.load(cloud, environ={})))
    cloud.write_text(cloud.read_text().replace(str(keys.identity), str(keys.issuer.path)))
    with pytest.raises(sealing.IdentityError, match="no private key"):
        asyncio.run(doctor_seal(settings.load(cloud, environ={})))


def test_get_writes_the_picture_inside(cloud: Path, closed: Frozen, plain: Frozen, tmp_path: Path) -> None:
    code, said = run("get", "-c", str(cloud), "-o", str(tmp_path / "out"), closed.key)
    assert code == 0, said
    told = json.loads(said.splitlines()[-1])
    assert told["seal"] == {"opened": True, "signed_by": "site home", "revoked": False}
    assert told["quality"] == pytest.approx(plain.face.quality)
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == Path(closed.key).with_suffix(".jpg").name
    assert written.read_bytes() == plain.data


def test_get_sealed_writes_the_file_as_it_is(cloud: Path, closed: Frozen, tmp_path: Path) -> None:
    code, said = run("get", "--sealed", "-c", str(cloud), "-o", str(tmp_path / "out"), closed.key)
    assert code == 0, said
    assert (tmp_path / "out" / Path(closed.key).name).read_bytes() == closed.data
    assert json.loads(said.splitlines()[-1])["sealed"] is True


def test_get_without_the_key_says_what_to_do(
    cloud: Path, closed: Frozen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.write_text(cloud.read_text().replace("identity_file = ", "# identity_file = "))
    code, said = run("get", "-c", str(cloud), "-o", str(tmp_path / "out"), closed.key)
    assert code == 1
    assert "set seal.identity_file" in said + caplog.text
    assert "--sealed" in said + caplog.text
    assert not list((tmp_path / "out").iterdir())


def test_keygen_writes_for_its_owner_alone_and_never_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "owner.key"
    code, said = run("keygen", str(path))
    assert code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    public = next(line for line in path.read_text().splitlines() if "public key" in line).split()[-1]
    assert f'recipients = ["{public}"]' in said
    assert "AGE-SECRET-KEY" not in said
    before = path.read_text()
    code, said = run("keygen", str(path))
    assert code == 1
    assert "not written over" in said
    assert path.read_text() == before


def test_a_file_that_is_no_private_key_is_named(tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "wrong.key"
    for text in (
        "",
        f"{keys.public}\n",
        "-----BEGIN PRIVATE KEY-----\n",
        "AGE-SECRET-KEY-1NONSENSE\n",
        "\u00e9",
    ):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(sealing.IdentityError, match=r"wrong\.key"):
            sealing.Opener(path)
    with pytest.raises(sealing.IdentityError, match=r"seal\.identity_file"):
        sealing.Opener(tmp_path / "nowhere.key")
