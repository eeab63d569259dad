from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chains import chain, eventually
from facerelay import alive, settings
from facerelay.commands import vitals


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facerelay.alive"]
    env = os.environ | {alive.VARIABLE: str(path)}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, check=False)


def test_the_check_goes_by_what_the_role_has_said(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    assert "not said yet" in check(path).stdout
    alive.say(path, "")
    assert (check(path).returncode, check(path).stdout) == (0, "well\n")
    alive.say(path, "not connected to mqtt://b:1883")
    assert (check(path).returncode, check(path).stdout) == (1, "not connected to mqtt://b:1883\n")


def test_what_was_said_long_ago_or_is_not_readable_is_not_well(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.write_text(f"{time.monotonic() - 2 * alive.STALE_S}\n")
    assert "not spoken" in alive.read(path)
    for hostile in (b"", b"nan\n", b"\xff\n", b"1e999\n", b"x" * 100_000):
        path.write_bytes(hostile)
        assert alive.read(path)


def test_without_the_variable_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(alive.VARIABLE, raising=False)

    async def role() -> int:
        return 7

    async def look() -> str:
        raise AssertionError("nobody asked")

    assert asyncio.run(vitals.beside(role(), look)) == 7


def test_whatever_a_look_finds_or_fails_with_is_said() -> None:
    async def well() -> str:
        return ""

    async def ill() -> str:
        return "not connected"

    async def broken() -> str:
        raise OSError("no disk")

    assert asyncio.run(vitals.wrong((well, well))) == ""
    assert asyncio.run(vitals.wrong((well, ill, broken))) == "not connected; no disk"


def test_a_good_look_is_gone_by_for_a_while_and_a_bad_one_is_not() -> None:
    findings = iter(["bad", "", "never asked"])

    async def look() -> str:
        return next(findings)

    async def ask() -> list[str]:
        seldom = vitals.seldom(look, every=1000)
        return [await seldom() for _ in range(4)]

    assert asyncio.run(ask()) == ["bad", "", "", ""]


def test_a_bucket_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    good = settings.load(None, flags=[f"bucket.url=file://{tmp_path}/bucket"], environ={})
    assert asyncio.run(vitals.bucket(good)()) == ""
    (tmp_path / "file").write_text("no folder")
    bad = settings.load(None, flags=[f"bucket.url=file://{tmp_path}/file/bucket"], environ={})
    assert "bucket" in asyncio.run(vitals.bucket(bad)())


def test_each_role_says_that_it_is_well_and_what_it_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every role of a chain writes its own file; then the cloud's broker is gone."""
    with chain(tmp_path) as c:
        files = {}
        for name in ("cloud-broker", "edge-broker", "store", "forward"):
            files[name] = tmp_path / f"{name}.alive"
            monkeypatch.setenv(alive.VARIABLE, str(files[name]))
            c[name].kill()
            c[name].restart()
        eventually(lambda: all(alive.read(path) == "" for path in files.values()), timeout=60)
        c["cloud-broker"].kill()
        eventually(lambda: "not connected" in alive.read(files["store"]), timeout=60)
        eventually(lambda: "both brokers" in alive.read(files["forward"]), timeout=60)
        assert alive.read(files["edge-broker"]) == ""


def test_the_gallery_says_whether_its_page_answers(tmp_path: Path) -> None:
    config = settings.load(None, flags=[f"bucket.url=file://{tmp_path}/bucket", "gallery.port=1"], environ={})
    assert "does not answer" in asyncio.run(vitals.page(config)())
