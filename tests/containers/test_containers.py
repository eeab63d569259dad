from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import engine
import pytest
from engine import ROOT, Image, Project, docker, inspect

from compose import compose2
from conftest import need
from facerelay import settings
from facerelay.link import wire

pytestmark = pytest.mark.timeout(1800)

CUT_S: Final = float(os.environ.get("WAN_SECONDS", "20"))
SMALL: Final = 120_000_000
USER: Final = "10001"
CLIP: Final = "clips/intel_one-by-one-person-detection.mp4"
PICTURE: Final = (
    "/opt/facerelay/lib/python3.11/site-packages/matplotlib/mpl-data/sample_data/grace_hopper.jpg"
)
"""In the image of the demonstration: a camera that ends at once."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Image]]:
    yield from engine.images(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def house(images: list[Image], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """All of it on this machine, with more faces than usual, from a scene and from a clip if there is one."""
    assert images
    capture: dict[str, Any] = {
        "environment": {"FACERELAY_VISITS__POLICY": "every", "FACERELAY_VISITS__EVERY": "4"}
    }
    if media := os.environ.get("FACERELAY_MEDIA"):
        clip = {"NAME": "clip", "SOURCE": f"/media/{CLIP}"}
        capture["volumes"] = [f"{media}:/media:ro"]
        capture["environment"] |= {f"FACERELAY_CAMERA__1__{name}": value for name, value in clip.items()}
    environ = {"FACERELAY_PAGE": str(free_port())}
    more = tmp_path_factory.mktemp("house") / "more.yaml"
    more.write_text(json.dumps({"services": {"capture": capture}}))
    with engine.started(Project("facerelay-test", [ROOT / "compose.yaml", more], environ)) as project:
        project.healthy()
        yield project


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line of what was measured, also where nothing failed."""

    def out(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return out


def test_images_are_small(images: list[Image], say: Callable[[str], None]) -> None:
    say("\n".join(f"{image.name}: {image.size / 1e6:.0f} MB above {engine.BASE}" for image in images))
    sizes = {image.name: image.size for image in images}
    assert max(sizes["forward"], sizes["store"]) < SMALL


def test_the_images_need_no_registry_of_ours_and_no_newer_builder() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert {base for base, _ in stages} <= {engine.BASE, *(name for _, name in stages)}
    assert set(engine.TARGETS) <= {name for _, name in stages}
    for word in ("# syntax", "--mount", ".crt", ".pem", "://"):
        assert word not in text


@pytest.mark.parametrize("name", ["compose.yaml", "compose.edge.yaml", "compose.cloud.yaml"])
def test_no_port_is_published_beyond_loopback_but_that_of_the_clouds_broker(name: str) -> None:
    ports = re.findall(r"^    ports: (.*)$", (ROOT / name).read_text(), re.MULTILINE)
    tls = '["${FACERELAY_LISTEN:-0.0.0.0:8883}:8883"]'
    assert all(
        port.startswith('["127.0.0.1:') or (name == "compose.cloud.yaml" and port == tls) for port in ports
    )


def test_cameras_are_counted_whatever_the_order_of_the_environment() -> None:
    names = [f"FACERELAY_CAMERA__{number}__{name}" for number in range(12) for name in ("NAME", "SOURCE")]
    environ = {name: "scene" if name.endswith("SOURCE") else f"c{name.split('__')[1]}" for name in names}
    for order in (sorted(environ), sorted(environ, reverse=True)):
        known = settings.load(None, environ={name: environ[name] for name in order})
        assert [camera.name for camera in known.camera] == [f"c{number}" for number in range(12)]


def test_secrets_are_made_once_and_no_authority_is_replaced(tmp_path: Path) -> None:
    need("openssl")
    cloud, site = tmp_path / "cloud", tmp_path / "site"
    assert _secrets(cloud, "faces.example.org", "192.0.2.1").returncode == 0
    first = {path.name: path.read_bytes() for path in cloud.iterdir()}
    assert _secrets(cloud, "another.example.org").returncode == 0
    assert {path.name: path.read_bytes() for path in cloud.iterdir()} == first
    assert stat.S_IMODE(cloud.stat().st_mode) == stat.S_IRWXU
    assert stat.S_IMODE((cloud / "ca.key").stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
    assert _secrets(site).returncode == 0
    assert {path.name for path in site.iterdir()} == {".gitignore", "edge-password"}
    shutil.copy(cloud / "ca.crt", site)
    assert "another authority" in _secrets(site, "faces.example.org").stderr
    assert (site / "ca.crt").read_bytes() == first["ca.crt"]


def test_faces_of_a_clip_are_in_the_bucket_and_on_a_page(house: Project) -> None:
    _eventually(lambda: _books(house)["stored"] > 0)
    page = f"http://127.0.0.1:{house.environ['FACERELAY_PAGE']}"
    key = json.loads(_fetch(f"{page}/api/faces"))["faces"][0]["key"]
    assert _fetch(f"{page}/picture?key={key}").startswith(b"\xff\xd8")
    assert _fetch(f"{page}/thumb?key={key}").startswith(b"RIFF")
    assert b"<html" in _fetch(f"{page}/")


def test_no_container_is_root_or_can_write_to_its_root_or_is_without_limits(house: Project) -> None:
    for part in house.parts():
        container = house.id(part)
        lines = docker("top", container, "-o", "pid,uid").splitlines()[1:]
        assert {line.split()[1] for line in lines} == {USER}, part
        host = inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"], part
        assert host["CapDrop"] == ["ALL"], part
        assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0, part
        assert "Read-only" in house.inside(part, "touch", "/opt/facerelay/x").stderr, part


def test_no_secret_is_in_a_containers_settings_or_log(house: Project) -> None:
    names = ("edge-password", "cloud-password", "bucket-key")
    secrets = [house.inside("store", "cat", f"/run/secrets/{name}").stdout for name in names]
    assert min(map(len, secrets)) > 40
    for part in house.parts():
        container = house.id(part)
        known = docker("inspect", container) + docker("logs", container)
        assert not any(secret in known for secret in secrets), part


@pytest.mark.parametrize(
    ("part", "sees", "not_these"),
    [
        ("capture", "edge-broker", ["cloud-broker", "store", "bucket"]),
        ("forward", "cloud-broker", ["store", "bucket"]),
        ("store", "bucket", ["edge-broker", "capture", "forward"]),
    ],
)  # fmt: skip
def test_the_networks_are_apart(house: Project, part: str, sees: str, not_these: list[str]) -> None:
    assert house.inside(part, "getent", "hosts", sees).returncode == 0
    for name in not_these:
        assert house.inside(part, "timeout", "2", "getent", "hosts", name).returncode != 0, name


def test_a_part_that_ends_is_started_again(house: Project) -> None:
    before = inspect(house.id("forward"))["RestartCount"]
    house.inside("forward", "python", "-c", "import os; os.kill(1, 15)")
    _eventually(lambda: inspect(house.id("forward"))["RestartCount"] > before)
    house.healthy()


def test_each_container_is_killed_and_no_face_is_missing_or_there_twice(
    house: Project, say: Callable[[str], None]
) -> None:
    for part in house.parts():
        before = _books(house)["captured"]
        docker("kill", house.id(part))
        if part != "capture":
            _eventually(partial(_more, house, than=before + 5))
        docker("start", house.id(part))
    house.healthy()
    say(f"each of {len(house.parts())} killed: {_all_there_once(house)}")


def test_the_line_to_the_cloud_is_cut_and_no_face_is_missing_or_there_twice(
    house: Project, say: Callable[[str], None]
) -> None:
    docker("network", "disconnect", f"{house.name}_wan", house.id("forward"))
    end = time.monotonic() + CUT_S
    _eventually(lambda: house.inside("forward", "python", "-m", "facerelay.alive").returncode == 1)
    _eventually(lambda: time.monotonic() > end, timeout=CUT_S + 10)
    assert _books(house)["waiting"] > 0
    docker("network", "connect", f"{house.name}_wan", house.id("forward"))
    house.healthy()
    say(f"cut for {CUT_S:.0f} s: {_all_there_once(house)}")


@pytest.fixture(params=["as installed", "2"])
def program(request: pytest.FixtureRequest) -> list[str]:
    """How Compose is called: the two that there are read one file, and not always alike."""
    if request.param == "as installed":
        return engine.compose_command()
    found = compose2()
    if found is None:
        engine.lacking("Compose 2 is not to be had")
    return found or []


def test_edge_and_cloud_are_two_files_and_certificates_alone_let_a_site_in(
    images: list[Image], tmp_path: Path, portrait: Path, program: list[str]
) -> None:
    assert images
    cloud, edge = _two_sides(tmp_path, portrait, program)
    with engine.started(cloud), engine.started(edge):
        edge.healthy()
        cloud.healthy()
        _eventually(lambda: "site=gate/camera=door" in cloud.inside("store", "facerelay", "ls").stdout)
        assert cloud.inside("store", "facerelay", "doctor").returncode == 0
        _eventually(lambda: _books(edge)["stored"] > 0)
        assert "handshake" not in cloud.log("cloud-broker"), "its own health check is nobody's attempt"
        address = ("127.0.0.1", int(cloud.environ["FACERELAY_LISTEN"].rpartition(":")[2]))
        assert not _let_in(address, tmp_path, with_certificate=False)
        assert _let_in(address, tmp_path, with_certificate=True)
        for project in (cloud, edge):
            _small(project, tmp_path / "cloud/trust/authority.key")
        _enrol(cloud, "revoke", "gate")
        _eventually(lambda: edge.inside("forward", "python", "-m", "facerelay.alive").returncode == 1)
        _eventually(lambda: not _let_in(address, tmp_path, with_certificate=True))
        (tmp_path / "cloud/gate.tar").unlink()
        _enrol(cloud, "edge", "gate")
        _carry(tmp_path)
        _enrol(edge, "join", "--renew", "gate.tar")
        edge.compose("restart")
        edge.healthy()
        cloud.healthy()


def test_nothing_is_made_where_no_machine_was_enrolled(
    images: list[Image], tmp_path: Path, program: list[str]
) -> None:
    assert images
    (tmp_path / "cloud").mkdir()
    environ = {"CLOUD_FOLDER": str(tmp_path / "cloud"), "FACERELAY_LISTEN": f"127.0.0.1:{free_port()}"}
    cloud = Project("facerelay-empty", [ROOT / "compose.cloud.yaml"], environ, program=program)
    with pytest.raises(AssertionError, match="cloud/"), engine.started(cloud):
        pass
    assert not list((tmp_path / "cloud").iterdir())


def _small(project: Project, secret: Path) -> None:
    """See that nobody of a side is root, can change what it was given, or has the authority's key."""
    text = secret.read_text().splitlines()[1]
    for part in project.parts():
        container = project.id(part)
        lines = docker("top", container, "-o", "pid,uid").splitlines()[1:]
        assert {line.split()[1] for line in lines} == {USER}, part
        host = inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"], part
        assert host["CapDrop"] == ["ALL"], part
        assert "no-new-privileges:true" in host["SecurityOpt"], part
        found = project.inside(part, "find", "/etc/facerelay", "-type", "f").stdout.split()
        assert project.inside(part, "grep", "-rlF", text, "/etc/facerelay").stdout == "", part
        assert f"/etc/facerelay/{'cloud' if 'cloud' in project.name else 'edge'}.toml" in found
        mounts = [each for each in inspect(container)["Mounts"] if each["Type"] == "bind"]
        assert {each["RW"] for each in mounts} == {False}, part
        for name in found:
            assert project.inside(part, "touch", name).returncode != 0, name


def _let_in(address: tuple[str, int], folder: Path, *, with_certificate: bool) -> bool:
    """Say hello to the cloud's broker from outside, as the site or as nobody."""
    context = ssl.create_default_context(cafile=str(folder / "cloud/trust/authority.pem"))
    if with_certificate:
        context.load_cert_chain(folder / "site/trust/site.pem", folder / "site/trust/site.key")
    try:
        with (
            socket.create_connection(address, 5) as plain,
            context.wrap_socket(plain, server_hostname="faces.example.org") as line,
        ):
            line.sendall(wire.connect(client_id="gate-outside"))
            return line.recv(4)[3:] == b"\x00"
    except OSError:
        return False


def _two_sides(folder: Path, portrait: Path, program: list[str]) -> tuple[Project, Project]:
    """Do what a user would for a cloud and a site, and return both."""
    pictures = folder / "pictures"
    pictures.mkdir()
    shutil.copy(portrait, pictures)
    keep = {"volumes": ["bucket:/var/lib/facerelay"]}
    name = {"networks": {"wan": {"aliases": ["faces.example.org"]}}}
    (folder / "more.cloud.yaml").write_text(
        json.dumps({
            "services": {"store": keep, "gallery": keep, "cloud-broker": name}, "volumes": {"bucket": {}},
        })
    )  # fmt: skip
    (folder / "more.edge.yaml").write_text(
        json.dumps({
            "services": {"capture": {"volumes": [f"{pictures}:/pictures:ro"]}},
            "networks": {"wan": {"external": True, "name": "facerelay-cloud_wan"}},
        })
    )  # fmt: skip
    environ = {
        "FACERELAY_LISTEN": f"127.0.0.1:{free_port()}", "FACERELAY_PAGE": str(free_port()),
        "CLOUD_FOLDER": str(folder / "cloud"), "SITE_FOLDER": str(folder / "site"),
    }  # fmt: skip
    cloud, edge = (
        Project(
            f"facerelay-{side}", [ROOT / f"compose.{side}.yaml", folder / f"more.{side}.yaml"], environ,
            program=program,
        )
        for side in ("cloud", "edge")
    )  # fmt: skip
    for each in ("cloud", "site"):
        (folder / each).mkdir(mode=0o700)
        os.chown(folder / each, int(USER), int(USER))
    bucket = "file:///var/lib/facerelay/bucket"
    _enrol(cloud, "cloud", "faces.example.org", "cloud-broker", "--site", "gate", "--bucket", bucket)
    (folder / "cloud/bucket-key").touch()
    assert _secrets(folder / "site").returncode == 0
    _carry(folder)
    _enrol(edge, "join", "gate.tar")
    settings_file = folder / "site/edge.toml"
    text = settings_file.read_text()
    assert '\nsource = "0"\n' in text
    settings_file.write_text(text.replace('\nsource = "0"\n', '\nsource = "/pictures"\n'))
    return cloud, edge


def _enrol(project: Project, *words: str) -> str:
    return project.compose("run", "--rm", "-T", "enrol", *words)


def _carry(folder: Path) -> None:
    bundle = folder / "site/gate.tar"
    shutil.copy(folder / "cloud/gate.tar", bundle)
    os.chown(bundle, int(USER), int(USER))


def _secrets(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "docker/secrets.sh"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _books(house: Project) -> Counter[str]:
    """Return the books of all cameras together, as capture's container has them; zeros where it has none."""
    done = house.inside("capture", "facerelay", "ledger", "--json")
    return _sum(json.loads(done.stdout.splitlines()[-1])) if done.stdout else Counter()


def _sum(ledger: dict[str, Any]) -> Counter[str]:
    cameras = ledger["cameras"].values()
    return Counter(
        {name: sum(camera[name] for camera in cameras) for name in ("captured", "stored", "waiting")}
    )


def _cameras() -> range:
    return range(2 if os.environ.get("FACERELAY_MEDIA") else 1)


def _more(house: Project, *, than: int) -> bool:
    return bool(_books(house)["captured"] > than)


def _all_there_once(house: Project) -> str:
    """Let every waiting face have its answer, prove the books from the bucket's own bytes, say how many."""
    house.compose("stop", "capture")
    cameras = [word for n in _cameras() for word in ("--set", f"camera.{n}.source={PICTURE}")]
    house.compose("run", "--rm", "-T", "capture", "capture", "--exit", *cameras)
    found = json.loads(house.compose("run", "--rm", "-T", "audit").splitlines()[-1])
    account = _sum(found)
    assert (found["lost"], found["missing_count"], found["unknown_count"]) == (0, 0, 0)
    assert account["captured"] == account["stored"] > 0
    listed = house.compose("run", "--rm", "-T", "audit", "ls", "faces/", "--json").splitlines()
    ids = [json.loads(line)["key"][-49:-13] for line in listed if line.startswith("{")]
    assert len(ids) == len(set(ids)) == account["stored"]
    house.compose("start", "capture")
    return f"{account['captured']} faces captured, {len(ids)} in the bucket, each once"


def _eventually(true: Callable[[], object], timeout: float = 90) -> None:
    until = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.3)


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - on loopback
        body: bytes = answer.read()
        return body


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
