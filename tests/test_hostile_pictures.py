from __future__ import annotations

import asyncio
import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import Make
from facerelay import face, picture
from facerelay.cloud.gallery import thumbs
from facerelay.cloud.gallery.thumbs import DamagedError
from facerelay.commands import send as sending
from facerelay.edge.cameras import recorded
from facerelay.edge.cameras.opening import CameraError
from facerelay.picture import PictureError
from fuzzing.mutate import Mutator, exif_bomb, looping_exif, plain
from gallery_parts import folder, serving

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")

HTML = b"<html><script>alert(1)</script>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


@pytest.mark.parametrize(
    "block", [exif_bomb(), looping_exif(), b"II*\x00\xff\xff\xff\xff", b"MM\x00*" + b"\xff" * 900]
)
def test_exif_that_points_at_itself_is_read_once(block: bytes) -> None:
    with pytest.raises(face.FaceError) as caught:
        face.parse(picture.with_exif(plain(), block), face.Limits())
    assert caught.value.reason == "not-ours"


def test_exif_beyond_its_limit_is_no_exif() -> None:
    with pytest.raises(PictureError, match="65001 bytes") as caught:
        picture.with_exif(plain(), bytes(65_001))
    assert caught.value.reason == "exif-too-large"
    png = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    large = png[:33] + picture.png_chunk(b"eXIf", bytes(70_000)) + png[33:]
    assert picture.read(large, max_bytes=10**6, max_pixels=10**6).exif is None


@pytest.mark.parametrize(
    "data", [HTML, SVG, b"GIF89a" + bytes(60), b"PK\x03\x04" + bytes(60), b"%PDF-1.7\n", b"BM" + bytes(60)]
)
def test_what_is_no_picture_of_three_kinds_is_refused(data: bytes) -> None:
    with pytest.raises(face.FaceError) as caught:
        face.parse(data, face.Limits())
    assert caught.value.reason == "not-a-picture"


@pytest.mark.parametrize("hidden", [HTML, SVG, b"PK\x05\x06" + bytes(18)])
def test_whatever_lies_under_a_faces_key_is_shown_as_a_picture_or_not_at_all(
    tmp_path: Path, make_face: Make, caplog: pytest.LogCaptureFixture, hidden: bytes
) -> None:
    one, polyglot = make_face(), make_face(plain() + hidden)

    async def scenario() -> None:
        bucket = folder(tmp_path / "b")
        await bucket.put_new(one.key, hidden)
        await bucket.put_new(polyglot.key, polyglot.data + hidden)
        async with serving(f"file://{tmp_path}/b", tmp_path, caplog) as served:
            for key in (one.key, polyglot.key):
                status, headers, _ = await served.get(f"/picture?key={quote(key)}")
                assert status == 200
                assert headers["content-type"] == "image/jpeg"
                assert headers["x-content-type-options"] == "nosniff"
                assert "sandbox" in headers["content-security-policy"]
                status, headers, body = await served.get(f"/picture?key={quote(key)}&download=1")
                assert headers["content-disposition"].startswith('attachment; filename="home-door-')
            status, headers, body = await served.get(f"/thumb?key={quote(one.key)}")
            assert status == 422
            assert headers["content-type"] == "application/json"
            told = await served.json(f"/api/face?key={quote(one.key)}")
            assert "script" not in json.dumps(told)
            assert body

    asyncio.run(scenario())


def test_no_mutation_of_a_picture_takes_the_gallerys_decoder_down() -> None:
    rng = random.Random()  # noqa: S311 - chance, told where it fails
    seed = rng.randrange(2**32)
    images = [
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 32, 3), dtype=np.uint8))
        for n in (1, 2)
    ]
    valid = [encoded(images, form, more) for form in ("MPO", "PNG", "WEBP") for more in (False, True)]
    valid += [encoded([images[0].convert(mode)], "PNG", False) for mode in ("P", "L", "RGBA")]
    valid.append(encoded([images[0].convert("CMYK")], "JPEG", False))
    mutator = Mutator(seed, valid)
    for number in range(4_000):
        data = mutator.next()
        try:
            thumbs.make(data)
        except DamagedError:
            continue
        except BaseException as error:
            error.add_note(f"seed {seed}, number {number}: {data[:4000].hex()}")
            raise


def encoded(images: list[Image.Image], form: str, more: bool) -> bytes:  # noqa: FBT001 - a parameter
    out = io.BytesIO()
    images[0].save(
        out, form, **({"save_all": True, "append_images": images[1:]} if more or form == "MPO" else {})
    )
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of black pixels, as small as they can be packed."""
    head = picture.png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height)) + packer.flush()
    return picture.PNG + head + picture.png_chunk(b"IDAT", rows) + picture.png_chunk(b"IEND", b"")


def test_a_bomb_of_pixels_is_not_decoded(make_face: Make) -> None:
    data = make_face(bomb(7_000, 7_000)).data
    assert len(data) < 1_000_000  # 147 MB once unpacked
    assert face.parse(data, face.Limits()).face.seq == 1
    with pytest.raises(DamagedError, match="too-many-pixels"):
        thumbs.make(data)


def test_send_takes_no_more_of_a_file_than_its_limit_and_tells_a_bomb_in_a_line(tmp_path: Path) -> None:
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.write(plain()[:-2])
        file.truncate(3_000_000_000)
    wide = tmp_path / "wide\x1b[2J.png"
    wide.write_bytes(bomb(1_100_000, 1))
    for path, says in ((huge, "more than the limit of 64000000"), (wide, "cannot be decoded")):
        command = [
            sys.executable,
            "-m",
            "facerelay",
            "send",
            str(path),
            "--set",
            f"outbox.path={tmp_path}/o.db",
        ]
        limit = 'ulimit -v 4000000; exec "$0" "$@"'
        done = subprocess.run(
            ["bash", "-c", limit, *command], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode not in {0, -9}
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.rstrip("\n").replace("\n", "").isprintable()


def test_a_decoder_that_throws_is_a_picture_that_cannot_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def throw(*_: object) -> None:
        raise cv2.error("(-215:Assertion failed) pixels <= CV_IO_MAX_IMAGE_PIXELS")

    monkeypatch.setattr(cv2, "imdecode", throw)
    with pytest.raises(PictureError, match="cannot be decoded"):
        sending._decode(plain())


def test_a_folder_of_traps_gives_its_plain_pictures_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "0.jpg")
    (source / "1.jpg").symlink_to("/dev/zero")
    (source / "2.jpg").symlink_to(source / "2.jpg")
    (source / "3.jpg").mkdir()
    (source / "4.jpg").write_bytes(bomb(9_000, 9_000))
    (source / "5.jpg").write_bytes(HTML)
    (source / "6.jpg").write_bytes(b"#EXTM3U\n/etc/passwd\n")
    (source / "7.jpg").write_bytes(b"ffconcat version 1.0\nfile '/etc/passwd'\n")
    (source / "8.png").write_bytes(plain())
    (source / ".9.jpg").write_bytes(plain())
    assert [each.raster().size for each in recorded.play_path(str(source)) if each.raster()] == [(32, 32)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n", SVG, HTML],
)
def test_a_file_cannot_have_others_opened(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(text)
    with pytest.raises(CameraError):
        next(iter(recorded.play_path(str(path))))
