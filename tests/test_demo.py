from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from buckets import seaweed
from chains import facerelay
from conftest import need
from facerelay.edge.cameras.scene import Scene

VISITS = Scene().visits


def demo(folder: Path, *words: str) -> dict[str, Any]:
    done = facerelay("demo", "--dir", str(folder), "--exit", *words)
    assert done.returncode == 0, done.stderr
    books: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert books["lost"] == 0
    return books


def test_the_built_in_scene_ends_with_a_face_per_visit_and_books_that_close(tmp_path: Path) -> None:
    books = demo(tmp_path)
    scene = books["cameras"]["demo/scene"]
    assert (scene["captured"], scene["stored"], scene["waiting"]) == (VISITS, VISITS, 0)
    faces = list(tmp_path.glob("*/bucket/faces/**/*.jpg"))
    assert len(faces) == VISITS
    for path in faces:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()
            photo = image.getexif().get_ifd(0x8769)
            assert image.getexif()[0x0110] == "demo/scene"
            assert photo[0x9003].startswith("20")
            known = json.loads(photo[0x9286].removeprefix(b"ASCII\0\0\0"))
            assert 0.7 <= known["score"] <= 1
            assert known["frame"] == [1280, 720]


def test_into_s3(tmp_path: Path) -> None:
    with seaweed() as weed:
        keys = {"endpoint": weed.endpoint, "access_key": weed.access_key, "secret_key": weed.secret_key}
        flags = [word for key, value in keys.items() for word in ("--set", f"bucket.{key}={value}")]
        books = demo(tmp_path, "--bucket", "s3://faces/here", *flags)
    assert books["cameras"]["demo/scene"]["stored"] == VISITS


@pytest.mark.parametrize(
    "words",
    [
        ["--edge-broker", "mosquitto"],
        ["--cloud-broker", "mosquitto"],
        ["--edge-broker", "mosquitto", "--cloud-broker", "mosquitto", "--link", "bridge"],
    ],
    ids=["edge", "cloud", "bridge"],
)
def test_with_mosquitto(tmp_path: Path, words: list[str]) -> None:
    need("mosquitto")
    assert demo(tmp_path, *words)["cameras"]["demo/scene"]["stored"] == VISITS


@pytest.mark.parametrize("delivery", ["fast", "broker"])
def test_without_receipts_the_books_say_sent(tmp_path: Path, delivery: str) -> None:
    scene = demo(tmp_path, "--set", f"delivery={delivery}")["cameras"]["demo/scene"]
    assert (scene["sent"], scene["stored"], scene["captured"]) == (VISITS, 0, VISITS)


def test_grey_png_of_every_detection_as_the_write_ups_send_them(tmp_path: Path, portrait: Path) -> None:
    books = demo(
        tmp_path, "--source", str(portrait), "--set", "visits.policy=every", "--set", "picture.format=png",
        "--set", "picture.grey=true", "--set", "topics.faces=w251/face_detector", "--set", "qos=2",
    )  # fmt: skip
    assert books["cameras"]["demo/grace_hopper"]["stored"] == 1
    [path] = tmp_path.glob("*/bucket/faces/**/*.png")
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "L")


@pytest.mark.media
@pytest.mark.timeout(300)
def test_the_clips(tmp_path: Path, media: Path) -> None:
    cameras = demo(tmp_path, "--source", str(media / "clips"))["cameras"]
    stored = {name.removeprefix("demo/"): account["stored"] for name, account in cameras.items()}
    signers = [n for name, n in stored.items() if name.startswith("intel_asl_")]
    assert len(signers) == 20
    assert 18 <= sum(signers) <= 22
    assert stored["intel_preview_face-demographics-walking-and-pause"] == 3
    assert stored["no-faces_nasa_world"] == 0
    assert stored["intel_one-by-one-person-detection"] <= 1


def test_ctrl_c_ends_cleanly_with_the_ledger(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "facerelay",
        "demo",
        "--dir",
        str(tmp_path),
        "--source",
        "scene",
        "--no-pace",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("*/bucket/faces/**/*.jpg"))) < 3:
            assert time.monotonic() < until
            time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert "demo/scene" in said
    assert not _left_behind(tmp_path)


def _left_behind(folder: Path) -> list[str]:
    """Return the command lines of processes that still work in a folder."""
    lines = [_command_line(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [line for line in lines if str(folder) in line and "pytest" not in line]


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_no_password_of_a_camera_is_shown_or_left_readable(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "facerelay", "demo", "--dir", str(tmp_path), "--source"]
    with subprocess.Popen([*command, "rtsp://admin:hunter2@127.0.0.1:9/x"], stderr=subprocess.PIPE) as child:
        until = time.monotonic() + 30
        while not list(tmp_path.glob("*/logs/capture.log")):
            assert time.monotonic() < until
            time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=60)
    assert b"hunter2" not in said
    [run] = tmp_path.iterdir()
    assert run.stat().st_mode & 0o077 == 0
    assert all("hunter2" not in log.read_text() for log in run.glob("logs/*"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--source", "nowhere.mp4"], 1, "no such file"),
        (["--source", "scene", "--set", "brokr.url=x"], 2, "did you mean 'broker'"),
        (["--link", "bridge"], 2, "--edge-broker mosquitto"),
        (["--sorce", "x"], 2, "--source"),
    ],
)
def test_a_mistake_ends_at_once_and_says_what_to_do(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    done = facerelay("demo", "--dir", str(tmp_path), "--exit", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*/bucket")), "nothing was begun"
