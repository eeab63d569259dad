"""What cameras' pictures become, beside others in the same run: `make bench-eyes`.

Sections: *accuracy* on labelled pictures; *cpu* per 720p frame; *visits*, one face each; *bytes*, and
whether the picture sent is the one to send; *eight* cameras in real time for ten minutes (only when named,
or with --all).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import cv2

from bench.eyes import accuracy, cpu, eight, footage, shots, tables, visits
from bench.processes import BenchError

_RESULTS: Final = Path(__file__).parent.parent / "results"
_SECTIONS: Final = "accuracy", "cpu", "visits", "bytes", "eight"
_PACKAGES: Final = "facerelay", "av", "numpy", "onnxruntime", "opencv-python-headless"


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cv2.setNumThreads(1)
    try:
        media = footage.media()
        for name in options.sections:
            _progress(f"{name} …")
            _keep(name, _measured(name, media, options), options)
    except KeyboardInterrupt:
        _progress("ended before its end: what was measured before is kept")
        return 130
    except BenchError as error:
        _progress(f"bench: {error}")
        return 1
    print(f"all of it is in bench/results/eyes.json, pictures of people in {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.eyes", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(_SECTIONS)}")
    parser.add_argument("--all", action="store_true", help="all sections, the ten minutes of `eight` too")
    parser.add_argument("--repeats", type=int, default=9, help="turns of the cpu section (9)")
    parser.add_argument("--frames", type=int, default=90, help="of each of its runs (90, three seconds)")
    parser.add_argument("--looks", type=int, default=3, help="at each labelled picture, for its cost (3)")
    parser.add_argument("--seeds", type=int, default=4, help="scenes of each kind of crossing and rate (4)")
    parser.add_argument("--seconds", type=float, default=600, help="of the eight cameras (600)")
    parser.add_argument("--out", type=Path, help="folder for pictures of people (a temporary one)")
    options = parser.parse_args()
    strange = set(options.sections) - set(_SECTIONS)
    if strange:
        parser.error(f"no section is called {min(strange)!r}: one of {', '.join(_SECTIONS)}")
    if options.all:
        options.sections = list(_SECTIONS)
    options.sections = options.sections or [name for name in _SECTIONS if name != "eight"]
    options.out = options.out or Path(tempfile.mkdtemp(prefix="facerelay-eyes-"))
    return options


def _measured(name: str, media: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one section in a folder of its own."""
    load, begin = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="facerelay-bench-", ignore_cleanup_errors=True) as name_of:
        folder = Path(name_of)
        sections: dict[str, Callable[[], dict[str, Any]]] = {
            "accuracy": lambda: accuracy.run(media, repeats=options.looks),
            "cpu": lambda: cpu.run(media, folder, repeats=options.repeats, frames=options.frames),
            "visits": lambda: visits.run(media, folder, seeds=options.seeds),
            "bytes": lambda: shots.run(media, options.out, _RESULTS),
            "eight": lambda: eight.run(media, folder, _RESULTS, seconds=options.seconds),
        }
        found = sections[name]()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "when": when, "took_s": round(time.monotonic() - begin), "load_before": round(load, 2),
        "machine": {"cores": os.cpu_count(), "kind": platform.machine(), "system": platform.system()},
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
    } | found  # fmt: skip


def _keep(name: str, found: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print a section, and put it in the place of the last one of its name; the others stay."""
    path = _RESULTS / "eyes.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    report = {each: found if each == name else before.get(each) for each in _SECTIONS}
    text = json.dumps({each: part for each, part in report.items() if part}, indent=1)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    tables.show(name, found)
    if name == "bytes":
        print(f"the contact sheet of the footage: {options.out / found['sheets'][0]}")


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
