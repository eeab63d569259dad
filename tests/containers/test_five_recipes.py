from __future__ import annotations

import hashlib
import html
import json
import os
import pickle
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cv2
import engine
import numpy as np
import pytest
from engine import ROOT, Image, Project, docker, inspect

from compose import VERSION, compose2
from recipes import RECIPES, Recipe
from servers import free_port

pytestmark = pytest.mark.timeout(1800)

PORTRAIT: Final = (
    "/opt/facerelay/lib/python3.11/site-packages/matplotlib/mpl-data/sample_data/grace_hopper.jpg"
)
"""In the image of the demonstration: a camera that ends at once."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Image]]:
    yield from engine.images(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module", params=RECIPES, ids=lambda recipe: recipe.name)
def site(
    request: pytest.FixtureRequest, images: list[Image], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Recipe, Project]]:
    """A recipe as its page says to start it, from a copy of its folder, on ports of its own."""
    assert images
    recipe: Recipe = request.param
    program = compose2()
    if program is None:
        engine.lacking(f"Compose 2 is not installed, and {VERSION} is not to be had")
    here = tmp_path_factory.mktemp("checkout")
    for name in ("examples", "docker"):
        shutil.copytree(ROOT / name, here / name)
    folder = here / "examples" / recipe.folder
    environ = {"FACERELAY_PAGE": str(free_port()), "FACERELAY_LINKS": str(free_port())}
    file = folder / (f"compose.{recipe.approach}.yaml" if recipe.approach else "compose.yaml")
    project = Project(f"facerelay-test-{recipe.name}", [file], environ, folder, program or [])
    with _shared(folder / "mnt", wanted=recipe.mounted), engine.started(project):
        project.healthy()
        yield recipe, project


@contextmanager
def _shared(folder: Path, *, wanted: bool) -> Iterator[None]:
    """Let a mount in the folder be seen by all, as it is wherever systemd runs."""
    if wanted and not Path("/dev/fuse").exists():
        pytest.skip("no FUSE here: the recipe's mount is not tried")
    if not wanted or os.geteuid():
        yield
        return
    folder.mkdir()
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-R", str(folder)], check=True)


def test_nobody_is_root_but_who_mounts_and_no_root_can_be_written_to(site: tuple[Recipe, Project]) -> None:
    recipe, project = site
    parts = project.parts()
    assert ("mount" in parts) == recipe.mounted
    for part in parts:
        container = project.id(part)
        users = {line.split()[1] for line in docker("top", container, "-o", "pid,uid").splitlines()[1:]}
        assert ("0" in users) == (part == "mount"), part
        host = inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"], part
        assert host["CapDrop"] == ["ALL"], part
        assert not host["Privileged"], part


def test_what_a_plain_client_publishes_is_in_the_bucket_and_its_pickle_is_refused(
    site: tuple[Recipe, Project], jpeg: bytes
) -> None:
    recipe, project = site
    png = cv2.imencode(".png", np.full((32, 24, 3), 7, np.uint8))[1].tobytes()
    for payload in (png, jpeg, pickle.dumps({"frame": 1, "face": png})):
        project.compose("run", "--rm", "-T", "plain", given=payload)
    wanted = {hashlib.sha256(picture).hexdigest() for picture in (png, jpeg)}
    until = time.monotonic() + 60
    while len(keys := _listed(project, "foreign/")) < 2:
        assert time.monotonic() < until, project.log("store")
    fetch = f"facerelay get {' '.join(keys)} -o /tmp/got >&2 && find /tmp/got -type f -exec sha256sum {{}} +"
    got = project.compose("run", "--rm", "-T", "--entrypoint", "sh", "audit", "-c", fetch)
    assert {line.split()[0] for line in got.splitlines()} == wanted
    assert all(hash_ in "".join(keys) for hash_ in wanted)
    said = project.compose("logs", "store")
    assert re.search(rf"{re.escape(recipe.topic)}.*pickle.*send the JPEG or PNG bytes themselves", said), said


def test_no_face_of_the_camera_is_lost_and_a_page_for_everybody_shows_them(
    site: tuple[Recipe, Project],
) -> None:
    _, project = site
    if "page" in project.parts():
        assert _shown(project).startswith(b"\x89PNG")
    project.compose("stop", "capture")
    last = ("--set", f"camera.0.source={PORTRAIT}")
    project.compose("run", "--rm", "-T", "capture", "capture", "--exit", *last)
    found = json.loads(
        project.compose("run", "--rm", "-T", "audit", "ledger", "--audit", "--json").splitlines()[-1]
    )
    door = found["cameras"]["home/door"]
    assert (found["lost"], found["missing_count"], found["unknown_count"]) == (0, 0, 0)
    assert door["captured"] == door["stored"] > 0
    assert len([key for key in _listed(project, "faces/") if "." in key]) == door["stored"]


def _shown(project: Project) -> bytes:
    """Return the newest picture on the page for everybody, by its link."""
    until = time.monotonic() + 60
    while True:
        page = _fetched(f"http://127.0.0.1:{project.environ['FACERELAY_PAGE']}/").decode()
        if found := re.search(r'src="([^"]+)"', page):
            return _fetched(html.unescape(found[1]))
        assert time.monotonic() < until, page
        time.sleep(1)


def _listed(project: Project, prefix: str) -> list[str]:
    """Return the keys of objects; what s3fs keeps for a folder is none."""
    lines = project.compose("run", "--rm", "-T", "audit", "ls", prefix, "--json").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry["key"] for entry in found if entry["size"]]


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - on loopback
        body: bytes = answer.read()
        return body
