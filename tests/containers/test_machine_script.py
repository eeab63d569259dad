"""The cloud machine's own script, with a real engine under it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import engine
import pytest
from engine import Image, Project
from test_containers import USER, free_port

from facerelay import settings
from test_cloud_machine import SCRIPT, describe, document, head, machine, repository

__all__ = ["document", "machine", "repository"]  # fixtures

pytestmark = pytest.mark.timeout(1800)
NAME = "facerelay-machine"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Image]]:
    yield from engine.images(tmp_path_factory.mktemp("engine"))


def test_the_machine_starts_enrolled_and_hands_out_bundles(
    images: list[Image],
    machine: Path,
    repository: Path,
    tmp_path: Path,
) -> None:
    assert images
    script, etc = machine / SCRIPT.removeprefix("/"), machine / "etc/facerelay"
    script.write_text(script.read_text().replace(f"\nuser={os.getuid()}\n", f"\nuser={USER}\n"))
    (etc / "bucket.toml").write_text('[bucket]\nurl = "file:///tmp/bucket"\n')
    describe(machine, repository=repository, commit=head(repository))
    environ = {
        "COMPOSE_PROJECT_NAME": NAME, "FACERELAY_LISTEN": f"127.0.0.1:{free_port()}",
        "FACERELAY_PAGE": str(free_port()), "CLOUD_FOLDER": str(etc / "cloud"),
    }  # fmt: skip

    def say(*words: str) -> bytes:
        command = ["sh", str(script), *words]
        env = os.environ | environ
        done = subprocess.run(command, capture_output=True, env=env, timeout=300, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    cloud = Project(NAME, [machine / "opt/facerelay/compose.cloud.yaml"], environ)
    try:
        say("up")
        cloud.healthy()
        assert settings.load(etc / "cloud/cloud.toml", environ={}).bucket.url == "file:///tmp/bucket"
        bundle = tmp_path / "door.tar"
        bundle.write_bytes(say("site", "door"))
        join = ["-m", "facerelay", "enrol", "join", str(bundle), "--dir", str(tmp_path / "site")]
        subprocess.run([sys.executable, *join], check=True, capture_output=True, timeout=60)
        assert b"door " in say("enrol", "list")
        say("enrol", "revoke", "door")
        assert b"revoked" in say("enrol", "list")
        cloud.healthy()
    finally:
        cloud.compose("down", "-v", "-t", "5", check=False)
