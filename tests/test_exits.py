from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest

import days
from chains import Chain, chain, eventually, facerelay
from enrolled import Enrolled
from facerelay.cli import main
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.contract import BucketError
from facerelay.commands.exits import MEANINGS, Exit, code_of
from facerelay.config import Bucket
from servers import free_port

ROLES = {("capture",), ("broker",), ("forward",), ("store",), ("gallery",), ("run",)}
"""They print nothing: what they say is their log."""

LONG = {("demo",)}
"""Runs the whole chain, in its own test."""

FAULT = """
import sys
from facerelay import __main__, cli
from facerelay.commands import init
def broken(*_): raise RuntimeError("never thought of")
init.write = broken
sys.argv = ["facerelay", *sys.argv[1:]]
__main__.run()
"""


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    with chain(folder) as c:
        c.finished(c.feed(2, rate=100))
        bucket = open_bucket(Bucket(url=f"file://{folder}/bucket"))
        asyncio.run(days.make_marks(bucket))
        asyncio.run(days.put_faces(bucket, 3, cameras=("home/yard",)))
        yield c


def _words(c: Chain, portrait: Path, tmp_path: Path) -> dict[str, list[str]]:
    """Say how each command that prints is called."""
    edge = ["-c", str(c.folder / "edge.toml")]
    key = str(c.objects("faces/site=home/camera=door")[0].relative_to(c.folder / "bucket"))
    yard = str(c.objects("faces/site=home/camera=yard")[0].relative_to(c.folder / "bucket"))
    return {
        "init": ["edge", str(tmp_path / "new.toml")],
        "keygen": [str(tmp_path / "owner.key")],
        "bridge mosquitto": edge,
        "completion": ["bash"],
        "top": ["--once", *edge],
        "ledger": edge,
        "resend": edge,
        "report": ["--day", "2026-11-20", "-o", str(tmp_path / "day.html"), *edge],
        "doctor": edge,
        "send": [str(portrait), *edge],
        "detect": [str(portrait)],
        "ls": edge,
        "get": [key, "-o", str(tmp_path), *edge],
        "share": [key, *edge],
        "lifecycle": edge,
        "erase": ["--id", Path(yard).name[14:50], "--wait", "0", "--yes", *edge],
    }


def _enrolling(tmp_path: Path) -> dict[str, list[str]]:
    """Say how each command of `enrol` is called, with a cloud that is enrolled."""
    cloud = ["-c", str(Enrolled.make(tmp_path, sites=()).file), "--out", str(tmp_path / "new.tar")]
    edge = Enrolled.make(tmp_path / "more")
    return {
        "enrol cloud": ["localhost", "--dir", str(tmp_path / "another")],
        "enrol edge": ["gate", *cloud],
        "enrol store": ["second", *cloud],
        "enrol renew": ["store.main", *cloud],
        "enrol revoke": ["store.main", *cloud[:2]],
        "enrol list": cloud[:2],
        "enrol request": ["door", "--dir", str(tmp_path / "device")],
        "enrol join": [str(edge.folder / "door.tar"), "--dir", str(tmp_path / "device")],
    }


COMMANDS = [" ".join(path) for path in _leaves(main) if path not in ROLES | LONG]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_that_prints_prints_lines_of_json(
    running: Chain, name: str, portrait: Path, tmp_path: Path
) -> None:
    words = _enrolling(tmp_path) if "enrol " in name else _words(running, portrait, tmp_path)
    assert name in words, f"say here how `facerelay {name}` is called, and give it --json"
    done = facerelay(*name.split(), *words[name], "--json")
    if name == "share":  # a folder has no links: how they look with a bucket is in its own test
        assert (done.returncode, done.stdout) == (Exit.UNWELL, "")
        return
    assert done.returncode == Exit.FINE, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, name
    assert all(any(fields <= line.keys() for fields in _fields(name)) for line in lines)


def _fields(name: str) -> list[set[str]]:
    """Return the fields that the docs name for a command: all of one of these are in each of its objects."""
    text = (Path(__file__).parents[1] / "docs" / "terminal.md").read_text()
    row = re.search(rf"^\| `{name}` \|[^|]*\|(.*)\|$", text, re.MULTILINE)
    assert row, f"docs/terminal.md does not say what `facerelay {name} --json` prints"
    first, *others = (re.findall(r"`(\w+)`", part) for part in re.sub(r"\([^)]*\)", "", row[1]).split(" or "))
    return [{*first}, *({*first[:-1], *other} for other in others)]


def test_demo_has_its_ledger_as_json_too() -> None:
    assert "--json" in {option for p in main.commands["demo"].params for option in p.opts}


def test_each_exit_code_has_its_meaning() -> None:
    assert list(MEANINGS) == list(Exit)


def test_a_wrong_word_a_wrong_setting_and_a_wrong_address_are_2(tmp_path: Path) -> None:
    none = f"outbox.path={tmp_path}/none.db"
    for words in (
        ["ledgr"], ["top", "--onec"], ["top", "--once", "--set", "brokr.url=x"],
        ["top", "--once", "--set", none, "--set", "bucket.url=ftp://x"], ["--log", "xml", "top"],
        ["report", "--day", "2999-01-01", "--set", "bucket.url=file:///tmp"],
    ):  # fmt: skip
        assert facerelay(*words).returncode == Exit.WRONG, words


def test_a_bucket_out_of_reach_is_3_and_says_nothing_of_faces(tmp_path: Path) -> None:
    bucket = [
        f"outbox.path={tmp_path}/none.db", "bucket.url=s3://faces", "bucket.access_key=a",
        "bucket.secret_key=b", f"bucket.endpoint=http://127.0.0.1:{free_port()}",
    ]  # fmt: skip
    flags = [word for flag in bucket for word in ("--set", flag)]
    for words in (["ls"], ["top", "--once"], ["report", "--day", "2026-11-20"]):
        done = facerelay(*words, *flags)
        assert (done.returncode, done.stdout) == (Exit.UNREACHABLE, ""), words
        assert "check bucket.endpoint" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BucketError("k", "gone", "unreachable"), Exit.UNREACHABLE),
        (BucketError("", "who?", "denied"), Exit.UNREACHABLE),
        (BucketError("", "bad", "setting"), Exit.WRONG),
        (BucketError("k", "none", "missing"), Exit.UNWELL),
        (ConnectionRefusedError("no"), Exit.UNREACHABLE),
        (PermissionError("no"), Exit.UNWELL),
        (ModuleNotFoundError("x", name="x"), Exit.WRONG),
        (RuntimeError("what?"), None),
    ],
)
def test_the_code_of_an_error(error: Exception, code: Exit | None) -> None:
    assert code_of(error) is code


@pytest.mark.parametrize("form", ["plain", "json"])
def test_a_fault_of_ours_is_70_with_its_traceback(tmp_path: Path, form: str) -> None:
    words = ["--log", form, "init", "edge", str(tmp_path / "x.toml")]
    done = subprocess.run(
        [sys.executable, "-c", FAULT, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == Exit.FAULT
    assert "never thought of" in done.stderr
    assert "please report it" in done.stderr
    if form == "json":
        [line] = map(json.loads, done.stderr.splitlines())
        assert (line["level"], "Traceback" in line["exception"]) == ("critical", True)


def test_ctrl_c_is_130(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    words = ["erase", "--yes", "--site", "home", "--set", f"bucket.url=file://{tmp_path}/bucket"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
    # A shell starts what runs behind it with SIGINT ignored, and who inherits that is to leave it so.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, "-m", "facerelay", *words], stderr=subprocess.PIPE, text=True, env=env,
        preexec_fn=heed,  # noqa: PLW1509 - it asks the kernel for one thing
    ) as child:  # fmt: skip
        eventually(lambda: list((tmp_path / "bucket").rglob("*.json")))  # the tombstone: it waits from now on
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == Exit.INTERRUPTED
    assert "Traceback" not in said
