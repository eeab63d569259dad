from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import Make
from facerelay import exif, face, picture

LIMITS = face.Limits()
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def encoded(extension: str, *, grey: bool = False) -> bytes:
    image = np.random.default_rng(7).integers(0, 255, (81, 64) if grey else (81, 64, 3), dtype=np.uint8)
    return cv2.imencode(f".{extension}", image)[1].tobytes()


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("grey", [False, True])
def test_a_face_comes_back_from_its_bytes(make_face: Make, extension: str, grey: bool) -> None:  # noqa: FBT001 - a parameter
    frozen = make_face(encoded(extension, grey=grey))
    read = face.parse(frozen.data, LIMITS)
    assert read.face == frozen.face
    assert (read.sha256, read.key, read.extension) == (frozen.sha256, frozen.key, extension)


@pytest.mark.parametrize(("extension", "name"), FORMATS.items())
def test_pillow_opens_it_and_reads_when_where_who_and_how_sure(
    make_face: Make, extension: str, name: str
) -> None:
    taken = datetime(2026, 2, 3, 4, 5, 6, 70_000, tzinfo=UTC)
    frozen = make_face(encoded(extension), time=taken, score=0.87)
    with Image.open(io.BytesIO(frozen.data)) as image:
        image.load()
        assert (image.format, image.size) == (name, (64, 81))
        tags = image.getexif()
        photo = tags.get_ifd(0x8769)
    assert tags[0x010F] == "facerelay"
    assert tags[0x0110] == "home/door"
    assert "score 0.87" in tags[0x010E]
    assert photo[0x9003] == "2026:02:03 04:05:06"
    assert (photo[0x9291], photo[0x9011]) == ("070000", "+00:00")
    assert uuid.UUID(photo[0xA420]) == uuid.UUID(frozen.face.id)


def test_the_key_follows_from_the_face_alone(make_face: Make) -> None:
    east = timezone(timedelta(hours=5))
    frozen = make_face(time=datetime(2026, 1, 1, 2, 0, 0, 5, tzinfo=east))
    assert frozen.key == (
        "faces/site=home/camera=door/date=2025-12-31/hour=21/"
        f"210000.000005-{frozen.face.id}-{frozen.sha256[:8]}.jpg"
    )


def test_ids_are_uuid_version_7_and_sort_by_time() -> None:
    ids = [face.new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert {uuid.UUID(i).version for i in ids} == {7}
    assert [i[:8] for i in ids] == sorted(i[:8] for i in ids)


@pytest.mark.parametrize("extension", FORMATS)
def test_a_picture_cut_short_is_truncated_at_any_length(make_face: Make, extension: str) -> None:
    data = make_face(encoded(extension)).data
    for length in range(12, len(data) - 1, 97):
        with pytest.raises(face.FaceError) as caught:
            face.parse(data[:length], LIMITS)
        assert caught.value.reason in {"truncated", "malformed", "no-pixels"}


def test_a_truncated_face_still_tells_whose_it_is(make_face: Make) -> None:
    frozen = make_face()
    with pytest.raises(face.FaceError, match="cut off") as caught:
        face.parse(frozen.data[:-100], LIMITS)
    assert caught.value.face == frozen.face


def jpeg_of_size(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (jpeg_of_size(60_000, 60_000), "too-many-pixels"),
        (jpeg_of_size(0, 100), "no-pixels"),
        (b"x" * 1_000_001, "too-large"),
        (b"\x80\x04\x95\x10\x00.", "pickle"),
        (b"", "not-a-picture"),
        (b"<svg onload=alert(1)>", "not-a-picture"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8" + b"\xff" * 900_000, "malformed"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x02" * 200_000, "malformed"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x00IHDR" * 20, "no-pixels"),
    ],
)
def test_hostile_bytes_have_one_error_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(face.FaceError) as caught:
        face.parse(data, LIMITS)
    assert caught.value.reason == reason


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    ("marker", "says"),
    [(0x00, "0x00"), (0x02, "0x02"), (0xBF, "0xBF"), (0xD8, "0xD8"), (0xC2, "twice"), (0xC0, "twice")],
)
def test_a_jpeg_cannot_hide_a_second_size(jpeg: bytes, marker: int, says: str) -> None:
    hidden = jpeg_of_size(20_000, 20_000)[2:-2]
    body = hidden if marker not in (0xC0, 0xC2) else hidden[4:]
    with pytest.raises(picture.PictureError, match=says) as caught:
        picture.read(jpeg[:2] + segment(marker, body) + jpeg[2:], max_bytes=10**6, max_pixels=10**6)
    assert caught.value.reason == "malformed"


def test_whatever_a_camera_puts_before_the_picture_is_walked_over(jpeg: bytes) -> None:
    parts = [segment(marker, b"x" * 6) for marker in (*range(0xE0, 0xF0), 0xFE, 0xDB, 0xDD, 0xC4, 0xCC, 0xDE)]
    data = jpeg[:2] + b"".join(b"\xff\xff" + part for part in parts) + b"\xff\x01\xff\xd0" + jpeg[2:]
    assert picture.read(data, max_bytes=10**6, max_pixels=10**6).complete


def test_a_jpeg_without_a_scan_is_not_complete() -> None:
    assert not picture.read(jpeg_of_size(9, 9), max_bytes=1000, max_pixels=1000).complete
    with pytest.raises(picture.PictureError, match="does not say its size"):
        picture.read(b"\xff\xd8\xff\xd9", max_bytes=1000, max_pixels=1000)


def test_opencv_itself_refuses_more_pixels_than_are_ever_taken() -> None:
    code = "import os, facerelay.edge.cameras.raster, cv2; print(os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])"
    code += "; import numpy; cv2.imdecode(numpy.frombuffer(bytes.fromhex(input()), 'u1'), 1)"
    huge = jpeg_of_size(9000, 9000)[:-2] + segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\xff\xd9"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env=env, input=huge.hex(),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "64000000\n"
    assert "CV_IO_MAX_IMAGE_PIXELS" in done.stderr


def test_a_sound_picture_of_somebody_else_is_not_ours(jpeg: bytes) -> None:
    with pytest.raises(face.FaceError) as caught:
        face.parse(jpeg, LIMITS)
    assert caught.value.reason == "not-ours"


@pytest.mark.parametrize(
    "change",
    [
        {"site": "../etc"}, {"camera": "A"}, {"seq": 0}, {"score": 1.5}, {"outbox": "no"},
        {"box": (1, 2, 3, -4)}, {"parts": {"p": float("inf")}}, {"parts": {str(i): 0.0 for i in range(99)}},
    ],
)  # fmt: skip
def test_a_face_that_lies_about_itself_is_malformed(make_face: Make, change: dict[str, Any]) -> None:
    with pytest.raises(face.FaceError) as caught:
        face.parse(make_face(**change).data, LIMITS)
    assert caught.value.reason == "malformed"


def test_a_time_before_there_were_cameras_is_malformed(make_face: Make) -> None:
    with pytest.raises(face.FaceError) as caught:
        face.parse(make_face(time=datetime(7, 11, 21, tzinfo=UTC)).data, LIMITS)
    assert caught.value.reason == "malformed"


def test_an_id_and_a_time_in_other_spellings_are_the_same(make_face: Make) -> None:
    one = make_face(id=face.new_id()[:-1] + "a", time=datetime(2026, 11, 21, 10, 11, 12, 131415, tzinfo=UTC))
    plain = one.face.id.replace("-", "").encode()
    data = one.data.replace(plain, plain.upper()).replace(b"+00:00", b"-02:30")
    assert data.count(plain) == 0
    read = face.parse(data, LIMITS)
    assert read.face.id == one.face.id
    assert read.face.time == datetime(2026, 11, 21, 12, 41, 12, 131415, tzinfo=UTC)
    assert "date=2026-11-21/hour=12/124112.131415-" in read.key


def test_an_id_that_is_no_uuid7_is_malformed(make_face: Make) -> None:
    one = make_face()
    plain = one.face.id.replace("-", "").encode()
    for wrong in (plain[:12] + b"4" + plain[13:], plain[:16] + b"c" + plain[17:], b"g" + plain[1:]):
        with pytest.raises(face.FaceError) as caught:
            face.parse(one.data.replace(plain, wrong), LIMITS)
        assert caught.value.reason == "malformed"


def test_an_exif_block_that_claims_more_than_it_has_is_refused() -> None:
    block = exif.build({0x010F: exif.ascii_tag("facerelay")}, {})
    huge = block.replace(struct.pack("<HHI", 0x010F, 2, 10), struct.pack("<HHI", 0x010F, 2, 2**31))
    assert huge != block
    with pytest.raises(exif.ExifError, match="outside"):
        exif.parse(huge)


def test_big_endian_exif_of_other_tools_is_read() -> None:
    entry = struct.pack(">HHI4s", 0x010F, 2, 3, b"ab\x00\x00")
    assert exif.parse(b"MM\x00*" + struct.pack(">IH", 8, 1) + entry + b"\x00" * 4) == {0x010F: b"ab"}


def test_an_exif_block_too_large_for_a_segment_is_refused(jpeg: bytes) -> None:
    with pytest.raises(picture.PictureError, match="65000"):
        picture.with_exif(jpeg, b"x" * 65_001)


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"]),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_face_or_that_one_error(tail: bytes, head: bytes) -> None:
    try:
        face.parse(head + tail, LIMITS)
    except face.FaceError as error:
        assert re.fullmatch(r"[a-z0-9-]{1,40}", error.reason)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_flipped_bytes_give_a_face_or_that_one_error(data: st.DataObject) -> None:
    known = face.Face(
        id=face.new_id(), outbox="a" * 32, run="b" * 8, seq=1, site="home", camera="door",
        time=datetime.now(UTC), box=(1, 2, 3, 4), frame=(5, 6), score=0.5, quality=0.5,
    )  # fmt: skip
    soil = bytearray(face.freeze(known, encoded(data.draw(st.sampled_from(sorted(FORMATS))))).data)
    for _ in range(data.draw(st.integers(1, 8))):
        soil[data.draw(st.integers(0, min(len(soil), 700) - 1))] = data.draw(st.integers(0, 255))
    try:
        face.parse(bytes(soil), LIMITS)
    except face.FaceError as error:
        assert re.fullmatch(r"[a-z0-9-]{1,40}", error.reason)
