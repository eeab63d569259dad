"""The software bill of materials: what `pip install facerelay[all]` brings, as pinned, in CycloneDX 1.6.

cyclonedx-py lists an environment; here it is given the version that it cannot know and the licences that
packages do not state in a form for machines, and is held against pyproject.toml.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
STATED: Final = {"protobuf": "BSD-3-Clause", "pyrage": "MIT"}
"""Licences read in the packages' own files, where their metadata names none."""

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
_ASK: Final = "import importlib.metadata as m; print(m.version('facerelay'))"

Bom = dict[str, Any]


class BomError(Exception):
    """The list is not what it should be."""


def wanted() -> set[str]:
    """Return the names that pyproject.toml asks for at run time, those of all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    [everything] = extras["all"]
    names = re.findall(r"[\w-]+", everything.partition("[")[2])
    lines = [*project["dependencies"], *(line for name in names for line in extras[name])]
    return {_plain(line) for line in lines} - {"facerelay"}


def pinned() -> dict[str, str]:
    """Return the versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {_plain(name): version for name, _, version in (line.partition("==") for line in lines)}


def list_environment(program: str, python: Path) -> Bom:
    """Return what cyclonedx-py finds, which has validated it, with our own version and all licences."""
    command = [program, "environment", str(python), "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--sv", "1.6", "--output-reproducible", "--validate", "-o", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - by our own words
    if done.returncode != 0:
        raise BomError(f"{program} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    bom: Bom = json.loads(done.stdout)
    version = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - as above
    own = bom["metadata"]["component"]
    own |= {"version": version, "purl": f"pkg:pypi/facerelay@{version}"}
    for one in bom["components"]:
        stated = STATED.get(_plain(one["name"]))
        if stated and not one.get("licenses"):
            one["licenses"] = [{"license": {"id": stated, "acknowledgement": "concluded"}}]
    return bom


def faults(bom: Bom) -> list[str]:
    """Return what is wrong with a list, a line each."""
    there = {_plain(one["name"]): one for one in bom["components"]}
    pins = pinned()
    lines = [f"{name} is asked for by pyproject.toml, and not listed" for name in wanted() - there.keys()]
    for name, one in there.items():
        if one["version"] != pins.get(name):
            lines.append(f"{name} {one['version']} is not as pinned: {pins.get(name, 'not at all')}")
        if not one.get("licenses"):
            lines.append(f"{name} states no licence: read it, and name it in supply/sbom.py")
    return sorted(lines)


def main(program: str, python: Path, target: Path) -> int:
    """Write the list, and return the exit code."""
    try:
        bom = list_environment(program, python)
        wrong = faults(bom)
    except BomError as error:
        wrong = [str(error)]
    for line in wrong:
        sys.stderr.write(f"sbom: {line}\n")
    if wrong:
        return 1
    target.write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"sbom: {len(bom['components'])} packages in {target}\n")
    return 0


def _plain(requirement: str) -> str:
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
