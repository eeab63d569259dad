from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from chains import facerelay
from facerelay.commands.detect import detect
from facerelay.config import Config
from facerelay.edge.cameras.raster import Image, Pixels
from facerelay.edge.eyes.detect import configured
from facerelay.edge.eyes.quality import measure
from facerelay.edge.eyes.search import Search

TURNS = range(1, 9)
"""What the EXIF orientation may be."""


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def faces(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the faces of the one picture."""
    [line] = lines(capsys)
    return cast("list[dict[str, Any]]", line["faces"])


def read(path: Path) -> Image:
    return cast("Image", cv2.imread(str(path)))


def png(width: int, height: int) -> bytes:
    """Make a PNG that says it is of a size, and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def test_each_picture_is_a_line_in_the_order_given(tmp_path: Path, portrait: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((90, 120, 3), np.uint8))
    names = ("empty.png", "text.jpg", portrait, "none.jpg")
    files = [str(tmp_path / name) for name in names]
    done = facerelay("detect", *files)
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["file"] for each in found] == files
    assert found[0]["faces"] == []
    assert "neither JPEG" in found[1]["error"]
    assert len(found[2]["faces"]) == 1
    assert "No such file" in found[3]["error"]
    assert f"facerelay: {files[1]}: neither JPEG" in done.stderr
    assert f"facerelay: {files[3]}: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_face_is_what_the_live_pipeline_finds(portrait: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config()
    assert detect(config, [portrait]) == 0
    [face] = faces(capsys)
    raster = Pixels(read(portrait))
    [expected] = Search(configured(config.detect)).find(raster)
    assert face["box"] == pytest.approx(expected.box, abs=0.01)
    assert face["score"] == pytest.approx(expected.score, abs=1e-4)
    assert np.allclose(face["landmarks"], expected.landmarks, atol=0.01)
    quality = measure(raster, expected)
    assert face["quality"] == pytest.approx({"total": quality.total, **quality.parts}, abs=1e-4)


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "jpg"])
def test_pictures_of_every_kind_are_read(
    tmp_path: Path, portrait: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    image = read(portrait)
    for name, form in (("colour", image), ("grey", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))):
        path = tmp_path / f"{name}.{ending}"
        assert cv2.imwrite(str(path), form)
        assert detect(Config(), [path]) == 0
        [face] = faces(capsys)
        assert face["score"] > 0.8


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_picture_is_taken_as_it_is_displayed(
    tmp_path: Path, portrait: Path, capsys: pytest.CaptureFixture[str], turn: int, ending: str
) -> None:
    undo = {
        2: Pillow.Transpose.FLIP_LEFT_RIGHT, 3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM, 5: Pillow.Transpose.TRANSPOSE, 6: Pillow.Transpose.ROTATE_90,
        7: Pillow.Transpose.TRANSVERSE, 8: Pillow.Transpose.ROTATE_270,
    }  # fmt: skip
    with Pillow.open(portrait) as upright:
        lying = upright.transpose(undo[turn]) if turn in undo else upright.copy()
    exif = Pillow.Exif()
    exif[0x112] = turn
    lying.save(tmp_path / f"lying.{ending}", exif=exif)
    assert detect(Config(), [tmp_path / f"lying.{ending}", portrait]) == 0
    one, other = lines(capsys)
    assert np.allclose(one["faces"][0]["box"], other["faces"][0]["box"], atol=3)
    assert np.allclose(one["faces"][0]["landmarks"], other["faces"][0]["landmarks"], atol=3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither JPEG"),
        (png(60_000, 60_000), "60000x60000 is more than the limit"),
        (png(16_385, 1), "16385x1 is more than the limit"),
        (png(0, 5), "no width or no height"),
        (png(500, 500)[:40], "cannot be decoded"),
        (bmp(2_000_000_000, -2_000_000_000), "2000000000x2000000000 is more than the limit"),
        (bmp(-5, 5), "no width or no height"),
        (bmp(100, 100)[:20], "ends inside its header"),
        (bmp(1, 1)[:14] + struct.pack("<IHH", 12, 65_535, 65_535), "65535x65535 is more than the limit"),
        (bmp(100, 100), "cannot be decoded"),
        (b"\x80\x04N.", "pickle"),
    ],
)
def test_a_hostile_picture_is_an_error_and_the_rest_goes_on(
    tmp_path: Path, portrait: Path, capsys: pytest.CaptureFixture[str], data: bytes, said: str
) -> None:
    (tmp_path / "hostile").write_bytes(data)
    assert detect(Config(), [tmp_path / "hostile", portrait]) == 1
    bad, good = lines(capsys)
    assert said in bad["error"]
    assert "faces" not in bad
    assert len(good["faces"]) == 1


def test_a_name_that_controls_a_terminal_is_shown_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\x1b[31m\xc2\x9b\xc3\xa9.jpg"))
    bad.write_bytes(b"no picture")
    assert detect(Config(), [bad]) == 1
    said = capsys.readouterr()
    assert r"/\udcff\x1b[31m\x9b" + "\xe9.jpg: neither JPEG" in said.err
    assert json.loads(said.out)["file"] == str(bad)


def test_a_file_without_end_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert detect(Config(), [Path("/dev/zero"), Path("/")]) == 1
    endless, folder = lines(capsys)
    assert "more than the limit" in endless["error"]
    assert folder["error"] == "Is a directory"


def test_annotated_copies_never_write_over_anything(
    tmp_path: Path, portrait: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = portrait.read_bytes(), tmp_path / "a"
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"precious")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "face.jpg").write_bytes(data)
    (folder / "face-2.jpg").symlink_to(outside)
    files = [tmp_path / "a" / "face.jpg", tmp_path / "b" / "face.jpg"]
    assert detect(Config(), files, draw=folder) == 0
    assert len(lines(capsys)) == 2
    assert {each.name for each in folder.iterdir()} == {"face.jpg", *(f"face-{n}.jpg" for n in (2, 3, 4))}
    assert (folder / "face.jpg").read_bytes() == data
    assert outside.read_bytes() == b"precious"
    assert (folder / "face-3.jpg").read_bytes() == (folder / "face-4.jpg").read_bytes()


def test_an_annotated_copy_shows_the_box(
    tmp_path: Path, portrait: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(Config(), [portrait], draw=tmp_path / "new" / "folder") == 0
    [face] = faces(capsys)
    drawn = read(tmp_path / "new" / "folder" / "grace_hopper.jpg")
    assert drawn.shape == read(portrait).shape
    x, y, w, h = (round(value) for value in face["box"])
    for column, row in ((x, y + h // 2), (x + w, y + h // 2), (x + w // 2, y + h)):
        blue, green, red = (int(value) for value in drawn[row, column])
        assert green > max(blue, red) + 30


def test_a_long_name_is_cut_in_the_folder(tmp_path: Path, portrait: Path) -> None:
    path = tmp_path / ("ü" * 120 + ".jpg")
    path.write_bytes(portrait.read_bytes())
    assert detect(Config(), [path, path], draw=tmp_path / "out") == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_options_stand_for_settings(tmp_path: Path, portrait: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff name.jpg"
    Path(os.fsdecode(path)).write_bytes(portrait.read_bytes())
    few = facerelay("detect", "--threshold", "0.99", "--size", "320", "--tiles", "2", os.fsdecode(path))
    assert few.returncode == 0, few.stderr
    assert json.loads(few.stdout)["faces"] == []
    assert os.fsencode(json.loads(few.stdout)["file"]) == path
    haar = facerelay("detect", "--set", "detect.model=haar", str(portrait))
    assert json.loads(haar.stdout)["faces"][0]["landmarks"] == []
    for words in (["--tiles", "9"], ["--model", "yolo"], ["--set", "detect.threshold=2"]):
        wrong = facerelay("detect", *words, str(portrait))
        assert wrong.returncode == 2
        assert "detect." in wrong.stderr
        assert wrong.stdout == ""


def hits(found: dict[str, Any], labelled: list[list[float]]) -> tuple[int, int, int]:
    """Return how many faces of 30 px and more there are, are found (IoU 0.5), and what else is."""
    wanted = [box for box in labelled if box[3] >= 30]
    others = [box for box in labelled if box[3] < 30]
    hit, wrong = 0, 0
    for face in found["faces"]:
        best = max(wanted, key=lambda box: overlap(face["box"], box), default=None)
        if best is not None and overlap(face["box"], best) >= 0.5:
            hit += 1
            wanted.remove(best)
        elif all(overlap(face["box"], box) < 0.5 for box in others):
            wrong += 1
    return hit + len(wanted), hit, wrong


def overlap(one: list[float], other: list[float]) -> float:
    sides = [min(one[at] + one[at + 2], other[at] + other[at + 2]) - max(one[at], other[at]) for at in (0, 1)]
    shared = max(0.0, sides[0]) * max(0.0, sides[1])
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


@pytest.mark.media
@pytest.mark.parametrize(
    ("name", "tiles", "least"),
    [("dlib", 1, (1.0, 0.9)), ("wider", 1, (0.75, 0.93)), ("wider", 2, (0.82, 0.87))],
)
def test_labelled_faces_are_found(
    media: Path, capsys: pytest.CaptureFixture[str], name: str, tiles: int, least: tuple[float, float]
) -> None:
    folder = media / "labelled"
    known = json.loads((folder / f"{name}.json").read_text())
    config = Config.model_validate({"detect": {"tiles": tiles}})
    assert detect(config, [folder / name / file for file in known]) == 0
    counts = [hits(*each) for each in zip(lines(capsys), (k["boxes"] for k in known.values()), strict=True)]
    there, hit, wrong = (sum(column) for column in zip(*counts, strict=True))
    recall, precision = hit / there, hit / (hit + wrong)
    assert (recall >= least[0], precision >= least[1]) == (True, True), (recall, precision)
