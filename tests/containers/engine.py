"""A container engine for tests: started if need be, given base images and ours, ended by its pid."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "python:3.11-slim-bookworm"
DEBIAN: Final = "debian:bookworm-slim"
TARGETS: Final = ("forward", "store", "gallery", "broker", "edge", "demo", "bucket")
RECIPE_TARGETS: Final = ("mosquitto", "s3fs", "plain")
WANTED: Final = os.environ.get("TEST_CONTAINERS", "")
"""Unset: these tests are not asked for; `1`: they run where they can; `must`: they fail where they cannot."""

_START_S: Final = 30.0
_BUILD_S: Final = 1500.0


def lacking(what: str) -> None:
    """Skip loudly, or fail where these tests have to run."""
    if WANTED == "must":
        pytest.fail(f"{what}, and here the containers must be tested")
    pytest.skip(f"{what}: the containers are not tested (`make container-setup` installs an engine)")


def docker(*words: str, check: bool = True, timeout: float = 120) -> str:
    """Run a command of the engine's client, and return what it says on standard output."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-3000:]}"
    return done.stdout.strip()


def inspect(name: str) -> dict[str, Any]:
    """Return all that the engine knows of a container or an image."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", name))
    return found[0]


def compose_command() -> list[str]:
    """Return how Compose is called here: a part of the client, or a program of its own."""
    plugin = ["docker", "compose"]
    if subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0:
        return plugin
    if found := shutil.which("docker-compose"):
        return [found]
    lacking("Compose is not installed")
    return []


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Have an engine: the one that answers, or one that is started here and ended again."""
    if not WANTED:
        pytest.skip("the containers are tested by `make test-containers`")
    if shutil.which("docker") is None:
        lacking("no container engine is installed")
    if _answers():
        yield
        return
    program = shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None or os.geteuid() != 0:
        lacking("no container engine answers, and none can be started (it takes root)")
    log = folder / "dockerd.log"
    with log.open("wb") as out:
        engine = subprocess.Popen([program or ""], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_S
        while not _answers():
            if engine.poll() is not None or time.monotonic() > until:
                lacking(f"the container engine does not start: {log.read_text()[-500:]}")
            time.sleep(0.2)
        yield
    finally:
        engine.send_signal(signal.SIGTERM)
        engine.wait(_START_S)


def _answers() -> bool:
    done = subprocess.run(["docker", "version"], capture_output=True, check=False)
    return done.returncode == 0


def have_base() -> None:
    """Have the base images: from here, from a registry, or from the program that BASE_IMAGES names."""
    stand_in = os.environ.get("BASE_IMAGES") or "false"
    for name in (BASE, DEBIAN):
        ways = (["docker", "image", "inspect", name], ["docker", "pull", "-q", name], [stand_in])
        if not any(_succeeds(way) for way in ways):
            lacking(f"no registry gives {name}, and BASE_IMAGES names no program that makes it")


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Image:
    """One of our images, and its bytes above its base."""

    name: str
    size: int


def images(folder: Path) -> Iterator[list[Image]]:
    """Yield our images, for a session: each is built once."""
    with running(folder):
        yield build()


@cache
def build() -> list[Image]:
    """Build all our images, each layer once, and return them."""
    have_base()
    buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False)
    env = os.environ | ({} if buildx.returncode == 0 else {"DOCKER_BUILDKIT": "0"})
    parts = [("facerelay-recipe-", target, ROOT / "examples" / "parts") for target in RECIPE_TARGETS]
    for prefix, target, context in [("facerelay-", target, ROOT) for target in TARGETS] + parts:
        command = ["docker", "build", "--target", target, "-t", f"{prefix}{target}", str(context)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=_BUILD_S, check=False)
        assert done.returncode == 0, f"{target}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    base = inspect(BASE)["Size"]
    return [Image(target, inspect(f"facerelay-{target}")["Size"] - base) for target in TARGETS]


@dataclass(frozen=True, slots=True)
class Project:
    """A system that Compose has started; its parts are called by their names in the files."""

    name: str
    files: Sequence[Path]
    environ: dict[str, str]
    folder: Path = ROOT
    program: Sequence[str] = ()
    """How Compose is called; as it is found here if empty."""

    def compose(self, *words: str, check: bool = True, timeout: float = 180, given: bytes = b"") -> str:
        """Run Compose on it with `given` on standard input, and return what it says on standard output."""
        files = [word for file in self.files for word in ("-f", str(file))]
        where = ["-p", self.name, "--project-directory", str(self.folder)]
        done = subprocess.run(
            [*(self.program or compose_command()), *where, *files, *words], input=given, capture_output=True,
            env=os.environ | self.environ, timeout=timeout, check=False,
        )  # fmt: skip
        said = done.stderr.decode(errors="replace")[-3000:]
        assert not check or done.returncode == 0, f"{' '.join(words)}: {said}"
        return done.stdout.decode(errors="replace")

    def id(self, part: str) -> str:
        """Return the container of a part."""
        label = f"label=com.docker.compose.service={part}"
        project = f"label=com.docker.compose.project={self.name}"
        found = docker("ps", "-aq", "--filter", project, "--filter", label, "--filter", "status=running")
        return found or docker("ps", "-aq", "--filter", project, "--filter", label)

    def parts(self) -> list[str]:
        """Return the parts that should run on and on."""
        project = f"label=com.docker.compose.project={self.name}"
        found = map(inspect, docker("ps", "-aq", "--filter", project).split())
        return sorted(
            each["Config"]["Labels"]["com.docker.compose.service"]
            for each in found
            if each["HostConfig"]["RestartPolicy"]["Name"] not in {"", "no"}
        )

    def health(self, part: str) -> str:
        """Return `healthy`, or what is said of it instead."""
        state = inspect(self.id(part))["State"]
        return str(state.get("Health", {}).get("Status", state["Status"])) if state["Running"] else "ended"

    def healthy(self, timeout: float = 120) -> None:
        """Wait until every part says that it does its work."""
        until = time.monotonic() + timeout
        while ill := {part: found for part in self.parts() if (found := self.health(part)) != "healthy"}:
            assert time.monotonic() < until, f"{ill}\n" + "\n".join(map(self.log, ill))
            time.sleep(0.5)

    def log(self, part: str) -> str:
        """Return its last words, and what its health check said last."""
        container = self.id(part)
        said = inspect(container)["State"].get("Health", {}).get("Log", [])[-1:]
        done = subprocess.run(
            ["docker", "logs", "--tail", "20", container], capture_output=True, text=True, check=False
        )
        return f"== {part} {said}\n{done.stdout}{done.stderr}"

    def inside(self, part: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside a part."""
        command = ["docker", "exec", self.id(part), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def started(project: Project) -> Iterator[Project]:
    """Start a system from nothing, and leave nothing of it."""
    try:
        project.compose("up", "-d", "--no-build")
        yield project
    finally:
        project.compose("down", "-v", "--remove-orphans", "-t", "5", check=False)
