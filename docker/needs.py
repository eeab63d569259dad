"""Print what pyproject.toml asks for, core and the extras that are named: a layer of its own in an image."""

# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """Print a requirement a line; where an extra asks for another of ours, what that one asks for."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    known, wanted = project["optional-dependencies"], [*project["dependencies"]]
    while extras:
        needs = known[extras.pop(0)]
        own = [each for each in needs if each.startswith("facerelay[")]
        extras += [name for each in own for name in each.partition("[")[2].rstrip("]").split(",")]
        wanted += [each for each in needs if each not in own]
    sys.stdout.write("\n".join(dict.fromkeys(wanted)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
