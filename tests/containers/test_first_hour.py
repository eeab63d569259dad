from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import engine
import pytest
from engine import BASE, ROOT, docker

pytestmark = pytest.mark.timeout(1500)

BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME: Final = "facerelay-test-first-hour"
NEEDS: Final = ("curl", "openssl")
"""What the page asks for beside Python."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A machine with Python and nothing of ours but a clone, in the home of somebody who is not root."""
    with engine.running(tmp_path_factory.mktemp("engine")):
        engine.have_base()
        docker("run", "-d", "--init", "--name", NAME, BASE, "sleep", "infinity")
        try:
            words = " ".join(NEEDS)
            install = f"which {words} || (apt-get update && apt-get install -y {words})"
            docker("exec", NAME, "sh", "-c", install, timeout=300)
            docker("exec", NAME, "useradd", "--create-home", "someone")
            _clone(tmp_path_factory.mktemp("clone") / "facerelay")
            yield NAME
        finally:
            docker("rm", "-f", "-v", NAME)


def _clone(folder: Path) -> None:
    """Give the machine the files that git knows or would take, as they are now."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = [
        name for name in subprocess.check_output(listed, text=True).split("\0") if (ROOT / name).is_file()
    ]
    packed = folder.with_suffix(".tar")
    subprocess.run(
        ["tar", "-C", str(ROOT), "--transform", "s,^,facerelay/,", "-cf", str(packed), "--null", "-T", "-"],
        input="\0".join(names), text=True, check=True,
    )  # fmt: skip
    with packed.open("rb") as data:
        command = ["docker", "exec", "-i", "-u", "someone", "-w", "/home/someone", NAME, "tar", "-xf", "-"]
        subprocess.run(command, stdin=data, check=True)


def test_the_first_hour_in_a_fresh_container_ends_with_faces_in_a_bucket(machine: str) -> None:
    page = (ROOT / "docs" / "first-hour.md").read_text()
    for need in NEEDS:
        assert f"`{need}`" in page.partition("## ")[0]
    script = "\n".join(BLOCK.findall(page))
    typed = ["docker", "exec", "-i", "-u", "someone", "-w", "/home/someone", machine, "bash"]
    done = subprocess.run(
        [*typed, "-eux"], input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{_logs(machine)}"
    assert done.stdout.count('"lost": 0') == 2  # of the two demonstrations
    assert "10 of 10 faces there, 0 lost" in done.stdout
    assert done.stdout.count(": stored faces/") == 2
    assert _count(machine, "bucket/faces") == 11
    assert _count(machine, "cloud/bucket/faces") == 1


def _logs(machine: str) -> str:
    return docker("exec", "-w", "/home/someone", machine, "sh", "-c", "tail -n 20 logs/*.log", check=False)


def _count(machine: str, folder: str) -> int:
    found = docker("exec", "-w", "/home/someone", machine, "find", folder, "-name", "*.jpg")
    return len(found.splitlines())
