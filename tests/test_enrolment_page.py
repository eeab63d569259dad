"""The page on enrolment, typed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import need
from servers import free_port

PAGE = Path(__file__).parents[1] / "docs" / "enrolment.md"
HEAD = "### With Mosquitto"
LATEST_S = 60.0


@dataclass
class Typed:
    """A command of a transcript, where it is typed, and what it says."""

    side: str
    words: str
    says: list[str]


def transcript(text: str) -> list[Typed]:
    found: list[Typed] = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if prompt := re.fullmatch(r"(cloud|edge)\$ (.*)", line):
                found.append(Typed(prompt[1], prompt[2], []))
            else:
                found[-1].says.append(line)
    return found


def pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split("…")))


class Walk:
    """Two folders, each a machine's, on free ports of this one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.port = free_port()
        url = f"mqtts://localhost:{self.port}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {name: value for name, value in os.environ.items() if not name.startswith("FACERELAY_")}
        self._given = {
            "cloud": given | {"PATH": path, "FACERELAY_BROKER__URL": url, "FACERELAY_GALLERY__PORT": "0"},
            "edge": given | {
                "PATH": path, "FACERELAY_CLOUD__URL": url, "FACERELAY_CAMERA__0__SOURCE": "scene",
                "FACERELAY_BROKER__URL": f"mqtt://127.0.0.1:{free_port()}",
            },
        }  # fmt: skip
        self._given["gate"] = self._given["edge"]
        for side in self._given:
            (folder / side).mkdir()

    def type(self, typed: Typed) -> None:
        words = typed.words.replace("faces.example.org", "localhost")
        if words.startswith("facerelay run"):
            self._stack.enter_context(self._running(typed.side, words, typed.says))
            return
        until = time.monotonic() + LATEST_S
        wanted = "\n".join(map(pattern, typed.says))
        while not re.fullmatch(wanted, said := self.once(typed.side, words)):
            assert words.startswith("facerelay ls"), said
            assert time.monotonic() < until, said
        conf = self.folder / "cloud" / "mosquitto.conf"
        if conf.exists():
            conf.write_text(conf.read_text().replace("listener 8883 ", f"listener {self.port} "))
        bundle = self.folder / "cloud" / "door.tar"
        if bundle.exists():
            bundle.rename(self.folder / "edge" / bundle.name)  # it is carried there

    def once(self, side: str, words: str) -> str:
        done = subprocess.run(
            words.split(), cwd=self.folder / side, env=self._given[side], check=False, timeout=LATEST_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout.split("\n", 1)[0] if words.startswith("facerelay ls") else done.stdout.rstrip("\n")

    @contextmanager
    def _running(self, side: str, words: str, says: list[str]) -> Iterator[None]:
        log = self.folder / f"{side}.log"
        with log.open("w") as out:
            role = subprocess.Popen(
                words.split(), cwd=self.folder / side, env=self._given[side], stdin=subprocess.DEVNULL,
                stdout=out, stderr=out,
            )  # fmt: skip
        try:
            until = time.monotonic() + LATEST_S
            while not all(re.search(f"^{pattern(line)}$", log.read_text(), re.MULTILINE) for line in says):
                assert time.monotonic() < until, log.read_text()
                assert role.poll() is None, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            role.terminate()
            code = role.wait(LATEST_S)
        assert code == 0, log.read_text()


@pytest.mark.parametrize("broker", ["embedded", "mosquitto"])
def test_the_walk_typed_to_the_letter_ends_with_a_face_in_the_bucket(tmp_path: Path, broker: str) -> None:
    if broker == "mosquitto":
        need("mosquitto")
    first, _, second = PAGE.read_text().partition(HEAD)
    typed = transcript(first if broker == "embedded" else second)
    assert [each.words.split()[1] for each in typed] == ["enrol", "run", "enrol", "run", "ls"]
    with ExitStack() as stack:
        walk = Walk(tmp_path, stack)
        for each in typed:
            walk.type(each)


def test_the_other_commands_of_the_page_do_as_they_say(tmp_path: Path) -> None:
    text = PAGE.read_text()
    with ExitStack() as stack:
        walk = Walk(tmp_path, stack)
        walk.once("cloud", "facerelay enrol cloud faces.example.org")
        [block] = re.findall(r"^```\n(facerelay enrol request.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines():
            at, other = ("edge", "cloud") if "# on the device" in line else ("cloud", "edge")
            walk.once(at, line.split("#", maxsplit=1)[0].strip())
            for made in (*(tmp_path / at).glob("door.csr"), *(tmp_path / "cloud").glob("door.tar")):
                made.rename(tmp_path / other / made.name)
        rows = re.findall(r"^\|[^|]*\| (`facerelay enrol .*) \|$", text.partition("## More")[2], re.MULTILINE)
        commands = [each for row in rows for each in re.findall(r"`(facerelay enrol [^`]+)`", row)]
        assert len(commands) > 8
        for command in commands:
            if " join " in command:
                walk.once("gate", command)
                continue
            known = sorted((tmp_path / "cloud/trust/devices").glob("site.gate.*"))
            walk.once("cloud", command.replace("ID", known[0].name.split(".")[2] if known else ""))
            for bundle in (tmp_path / "cloud").glob("gate.tar"):
                bundle.replace(tmp_path / "gate" / bundle.name)
            if command.endswith("edge gate"):
                walk.once("gate", "facerelay enrol join gate.tar")
