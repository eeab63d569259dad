"""Print what pyproject.toml asks for, core and the extras that are named: a layer of its own in an image."""

# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """Print a requirement a line."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(n for e in extras for n in project["optional-dependencies"][e])]
    sys.stdout.write("\n".join(wanted) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
