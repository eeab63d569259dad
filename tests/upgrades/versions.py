"""Two versions of facerelay side by side: today's, and the first one, built from this repository's history.

A version is a folder that processes get by PYTHONPATH; the environment's packages serve both.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from chains import Part, eventually
from conftest import need
from facerelay.link.mosquitto import mosquitto_listener
from facerelay.sections import Broker
from servers import answers, free_port

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
FIRST = "f26fe0bc26f77b42bf504816f58533ce9f4723f0"
"""The first version: the last state before cameras, the finding of faces, and the books grew."""

_MAX_MESSAGE = 1_000_000

Kind = Literal["embedded", "mosquitto"]
Side = Literal["edge", "cloud"]
Link = Literal["forward", "bridge"]
_SIDES: Final[tuple[Side, ...]] = ("cloud", "edge")


@dataclass(frozen=True)
class Version:
    """A version to run.

    Attributes:
        name: for people.
        path: folders to look in before the environment's own.
        feeder: the script that captures faces at a rate, as this version does it.
        golden: what it says and keeps, as it wrote it down.
    """

    name: str
    path: tuple[Path, ...]
    feeder: Path
    golden: Path

    @property
    def python(self) -> list[str]:
        """The words that begin a command of this version."""
        environment = [f"PYTHONPATH={os.pathsep.join(map(str, self.path))}"] if self.path else []
        return ["env", *environment, sys.executable]

    def run(self, *words: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command line of this version to its end: `-c CODE`, or `-m facerelay …`."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
        return subprocess.run(
            [*self.python, *words], input=told, capture_output=True, text=True, timeout=60, env=env,
            cwd="/", check=False,
        )  # fmt: skip


TODAY = Version("today's", (), TESTS / "feeder.py", TESTS / "golden/v1")


def first_version() -> Version:
    """Return the first version: its wheel, built once and unpacked under build/.

    Skips where this checkout cannot have it: no git, no repository, or one without its whole history, as CI
    systems like to make. Where the history is whole and lacks the commit, that is a failure.
    """
    place = ROOT / "build" / "upgrades" / FIRST[:12]
    if not place.exists():
        _see_history()
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                _build(place)
    tests = place / "source" / "tests"
    return Version("the first", (place / "wheel", tests), tests / "feeder.py", tests / "golden/v1")


def _see_history() -> None:
    if shutil.which("git") is None or _git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip(
            "the first version is built from history, and this checkout has none: git fetch --unshallow"
        )
    assert _git("cat-file", "-t", FIRST) == "commit", f"a whole history without {FIRST}: it was written anew"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _build(place: Path) -> None:
    """Build the wheel with the environment's own hatchling, and unpack it; there at once, or not at all."""
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    source = new / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", FIRST], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "x"], input=archive.stdout, cwd=source, check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    wheels = ["--no-deps", "--no-build-isolation", "-q", "-w", str(new)]
    subprocess.run([*pip, "wheel", *wheels, str(source)], check=True)
    (wheel,) = new.glob("*.whl")
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--target", str(new / "wheel"), str(wheel)], check=True
    )
    new.rename(place)


@dataclass
class Pair:
    """An edge and a cloud, each of its version, in one folder."""

    folder: Path
    edge: Version
    cloud: Version
    urls: Mapping[str, str]
    parts: dict[str, Part] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Part:
        return self.parts[name]

    def file(self, side: str) -> str:
        return str(self.folder / f"{side}.toml")

    def role(self, name: str, side: Side, version: Version | None = None) -> Part:
        """Start a role, of its side's version unless another one is said."""
        version = version or (self.edge if side == "edge" else self.cloud)
        key = f"{side}-broker" if name == "broker" else name
        return self.start(key, version, name, "-c", self.file(side))

    def start(self, key: str, version: Version, *words: str) -> Part:
        """Start a command of a version."""
        part = Part(key, [*version.python, "-m", "facerelay", *words], self.folder / f"{key}.log")
        self.parts[key] = part
        part.start()
        return part

    def feed(self, count: int, rate: float, version: Version | None = None) -> Part:
        """Start to capture faces; it ends when each, and each that waited before, has its answer."""
        version = version or self.edge
        command = [*version.python, str(version.feeder), self.file("edge"), str(count), str(rate)]
        part = Part("feeder", command, self.folder / "feeder.log")
        self.parts["feeder"] = part
        part.start()
        return part

    def capture(self, version: Version | None = None) -> None:
        """Have the edge's version watch its cameras to their end, and have all answered."""
        self._well(
            (version or self.edge).run("-m", "facerelay", "capture", "--exit", "-c", self.file("edge"))
        )

    def finished(self, part: Part, timeout: float = 60) -> None:
        """Wait for the end of a feeder, which must have been a good one."""
        assert part.process is not None
        try:
            code = part.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = -1
        assert code == 0, self.logs()

    def books(self, version: Version = TODAY) -> dict[str, Any]:
        """Return the ledger of the edge's outbox, by the word of a version's audit."""
        done = version.run("-m", "facerelay", "ledger", "--json", "--audit", "-c", self.file("edge"))
        self._well(done)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def reported(self) -> list[dict[str, Any]]:
        """Return the books that the store has written into the bucket."""
        return [json.loads(path.read_bytes()) for path in self.objects("ledger")]

    def objects(self, prefix: str = "faces") -> list[Path]:
        return sorted(p for p in (self.folder / "bucket" / prefix).rglob("*") if p.is_file())

    def logs(self) -> str:
        return "\n".join(f"== {part.name}\n{part.text()[-2000:]}" for part in self.parts.values())

    def _well(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}\n{self.logs()}"


@contextmanager
def pair(
    folder: Path,
    *,
    edge: Version,
    cloud: Version,
    brokers: Kind,
    link: Link = "forward",
    cameras: Mapping[str, Path] | None = None,
    sides: Mapping[str, str] | None = None,
    site: str = "home",
) -> Iterator[Pair]:
    """Run an edge of one version with a cloud of another: brokers, link and store; faces come by `feed`.

    Args:
        folder: for all of it.
        edge: the version of the edge's broker, forwarder and capture.
        cloud: the version of the cloud's broker and store.
        brokers: of both sides.
        link: the edge's forwarder, or its Mosquitto's bridge as the edge's version writes it.
        cameras: pictures by name, each a camera.
        sides: more TOML by side.
        site: the edge's.
    """
    urls = {side: f"mqtt://127.0.0.1:{free_port()}" for side in ("edge", "cloud")}
    found = Pair(folder, edge, cloud, urls)
    for side in urls:
        (folder / f"{side}.toml").write_text(
            _settings(side, site, urls, cameras or {}) + (sides or {}).get(side, "")
        )
    try:
        for which in _SIDES:
            _start_broker(found, which, brokers, bridged=link == "bridge")
        found.role("store", "cloud")
        if link == "forward":
            found.role("forward", "edge")
        yield found
    finally:
        for part in reversed(found.parts.values()):
            part.end()


def _settings(side: str, site: str, urls: Mapping[str, str], cameras: Mapping[str, Path]) -> str:
    """Return settings that both versions know."""
    text = f'site = "{site}"\n[broker]\nurl = "{urls[side]}"\ndata = "{side}-broker"\n'
    text += '[bucket]\nurl = "file://bucket"\n'
    if side == "cloud":
        return text
    text += f'[cloud]\nurl = "{urls["cloud"]}"\n'
    text += "".join(f'[[camera]]\nname = "{name}"\nsource = "{source}"\n' for name, source in cameras.items())
    return text + "[outbox]\noverdue_s = 2.0\n"  # the last section: a test may add to it


def _start_broker(found: Pair, side: Side, kind: Kind, *, bridged: bool) -> None:
    port = int(found.urls[side].rpartition(":")[2])
    if kind == "embedded":
        found.role("broker", side)
    else:
        bridge = ""
        if bridged and side == "edge":
            done = found.edge.run("-m", "facerelay", "bridge", "mosquitto", "-c", found.file("edge"))
            assert done.returncode == 0, done.stderr
            bridge = done.stdout
        state = found.folder / f"{side}-broker"
        state.mkdir()
        conf = found.folder / f"{side}-mosquitto.conf"
        listener = Broker(url=found.urls[side])
        conf.write_text(mosquitto_listener(listener, data=state, max_message=_MAX_MESSAGE) + bridge)
        part = Part(
            f"{side}-broker", [need("mosquitto"), "-c", str(conf)], found.folder / f"{side}-broker.log"
        )
        found.parts[part.name] = part
        part.start()
    eventually(lambda: answers(port))
