from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from chains import facerelay
from conftest import need
from terminal import terminal

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
STARTS = {
    "bash": (["--norc", "-i"], "source {script}"),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -u -d {folder}/dump; source {script}"),
    "fish": (["--no-config", "-i"], "source {script}"),
}


@pytest.mark.parametrize("shell", STARTS)
def test_a_real_shell_completes_commands_and_options(shell: str, tmp_path: Path) -> None:
    program = need(shell)
    done = facerelay("completion", shell)
    assert done.returncode == 0, done.stderr
    script = tmp_path / "script"
    script.write_text(done.stdout)
    words, load = STARTS[shell]
    with terminal([program, *words], PATH=PATH, HOME=str(tmp_path), columns=200) as typed:
        typed.type(load.format(script=script, folder=tmp_path) + "; echo lo''aded\n")
        typed.until("loaded")
        typed.type("facerelay led\t--he\t\n")
        typed.until("Usage: facerelay ledger")


def test_the_script_as_json() -> None:
    done = facerelay("completion", "fish", "--json")
    known = json.loads(done.stdout)
    assert known["shell"] == "fish"
    assert "complete" in known["script"]


def test_an_unknown_shell_is_refused_by_name() -> None:
    done = facerelay("completion", "tcsh")
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
