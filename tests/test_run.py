"""All roles of one side by one command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from chains import eventually, facerelay
from conftest import need
from enrolled import Enrolled
from facerelay import settings
from facerelay.commands.run import Kept, Reload, roles_of
from facerelay.commands.supervise import Role
from facerelay.settings import ConfigError
from servers import answers

CLOUD = '[cloud]\nurl = "mqtts://faces.example.org:8883"\n'
CAMERA = '[[camera]]\nname = "door"\nsource = "scene"\n'
BUCKET = '[bucket]\nurl = "file://bucket"\n'
AWAY = '[broker]\nurl = "mqtts://faces.example.org:8883"\n'


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        (CLOUD + CAMERA, ["broker", "forward", "capture"]),
        (CLOUD, ["broker", "forward"]),
        ("direct = true\n" + AWAY + CAMERA, ["capture"]),
        (CLOUD + CAMERA + BUCKET, ["broker", "forward", "capture"]),  # an edge that audits
        (BUCKET, ["broker", "store", "gallery"]),
        (AWAY + BUCKET, ["store", "gallery"]),  # one more store, with the broker elsewhere
        (AWAY.replace("faces.example.org", "localhost") + BUCKET, ["store", "gallery"]),  # beside the first
        (AWAY + 'listen = "0.0.0.0"\n' + BUCKET, ["broker", "store", "gallery"]),
        (AWAY + 'mosquitto = "mosquitto.conf"\n' + BUCKET, ["broker", "store", "gallery"]),
    ],
)
def test_a_file_calls_for_its_roles(tmp_path: Path, text: str, roles: list[str]) -> None:
    (tmp_path / "x.toml").write_text(text)
    assert roles_of(settings.load(tmp_path / "x.toml", environ={})) == roles


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither a camera nor a bucket"),
        (CAMERA, "add a [cloud] section"),
        ("brocker = 1\n", "did you mean"),
    ],
)
def test_a_file_that_calls_for_nothing_says_so(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    done = facerelay("run", "-c", str(tmp_path / "x.toml"))
    assert done.returncode == 2
    assert says in done.stderr


def test_mosquitto_without_its_file_says_which(tmp_path: Path) -> None:
    need("mosquitto")
    (tmp_path / "x.toml").write_text('[broker]\nmosquitto = "away.conf"\n' + BUCKET)
    done = facerelay("run", "-c", str(tmp_path / "x.toml"))
    assert done.returncode == 2
    assert "away.conf: no such file" in done.stderr


def test_what_falls_is_started_again_later_each_time() -> None:
    now = [100.0]
    kept = Kept(Role("false", [sys.executable, "-c", "raise SystemExit(1)"]), clock=lambda: now[0])
    waits: list[float] = []
    kept.look()
    for _ in range(8):
        assert kept.role.process is not None
        kept.role.process.wait(20)
        kept.look()  # sees that it fell
        assert kept.role.process is None
        began = now[0]
        while kept.role.process is None:
            now[0] += 0.5
            kept.look()
        waits.append(now[0] - began)
    assert kept.role.process is not None
    kept.role.process.wait(20)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_one_with_wrong_settings_is_not_started_again() -> None:
    kept = Kept(Role("wrong", [sys.executable, "-c", "raise SystemExit(2)"]))
    kept.look()
    assert kept.role.process is not None
    kept.role.process.wait(20)
    with pytest.raises(ConfigError, match="wrong cannot run with these settings"):
        kept.look()


def test_a_file_is_seen_to_change_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mosquitto.acl"
    watched = Reload(path, anew=False)
    assert not watched.changed()
    path.write_text("one")
    assert watched.changed()
    assert not watched.changed()
    (tmp_path / "fresh").write_text("two")
    (tmp_path / "fresh").replace(path)
    assert watched.changed()
    path.unlink()
    assert watched.changed()


@contextmanager
def running(cloud: Enrolled, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    log = cloud.folder / "run.log"
    command = [sys.executable, "-m", "facerelay", "run", "-c", str(cloud.file), *more]
    with log.open("wb") as out:
        role = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield role
    finally:
        role.kill()
        role.wait(20)


def children(role: subprocess.Popen[bytes]) -> dict[str, int]:
    """Return the process ids of the roles by what their command lines say."""
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            words = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has just ended
        named = re.search(r"\b(?:(broker|store|gallery) -c|(mosquitto) -c)", words)
        if int(parent) == role.pid and named:
            found[named[1] or named[2]] = int(folder.name)
    return found


def _is_another(role: subprocess.Popen[bytes], name: str, pid: int) -> bool:
    return children(role).get(name, pid) != pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("mosquitto", [False, True])
def test_a_killed_role_comes_back_and_all_end_with_the_command(tmp_path: Path, mosquitto: bool) -> None:  # noqa: FBT001 - a parameter
    cloud = Enrolled.make(tmp_path, mosquitto=mosquitto)
    with running(cloud, "--without", "gallery") as role:
        eventually(lambda: answers(cloud.port) and len(children(role)) == 2)
        for name, pid in children(role).items():
            os.kill(pid, signal.SIGKILL)
            eventually(partial(_is_another, role, name, pid))
        eventually(lambda: answers(cloud.port))
        pids = children(role).values()
        role.terminate()
        assert role.wait(30) == 0
        assert not any(map(alive, pids))
        assert not answers(cloud.port)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word to a child is Linux's")
@pytest.mark.parametrize("mosquitto", [False, True])
def test_nothing_stays_behind_when_the_command_is_killed(tmp_path: Path, mosquitto: bool) -> None:  # noqa: FBT001 - a parameter
    cloud = Enrolled.make(tmp_path, mosquitto=mosquitto)
    with running(cloud, "--without", "gallery") as role:
        eventually(lambda: answers(cloud.port) and len(children(role)) == 2)
        pids = list(children(role).values())
        role.kill()
        role.wait(20)
        eventually(lambda: not any(map(alive, pids)) and not answers(cloud.port))


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    cloud = Enrolled.make(tmp_path)
    with running(cloud, "--without", "gallery", "--without", "store") as first:
        eventually(lambda: "the broker listens" in (cloud.folder / "run.log").read_text())
        assert first.poll() is None
        log = cloud.folder / "second.log"
        command = [sys.executable, "-m", "facerelay", "run", "-c", str(cloud.file), "--without", "store"]
        with log.open("wb") as out:
            second = subprocess.Popen([*command, "--without", "gallery"], stdout=out, stderr=out)
        eventually(lambda: "is a broker running there already" in log.read_text())
        second.terminate()
        assert second.wait(20) == 0
