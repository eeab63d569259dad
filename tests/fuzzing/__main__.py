"""Fuzz the borders for as long as one likes: `make fuzz SECONDS=60 TARGET=face`.

Coverage-guided where atheris is installed (the extra `fuzz`, Linux on x86_64); else by mutations alone. What
it learnt stays in build/fuzz, and so does the input of a finding.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from fuzzing.mutate import Mutator
from fuzzing.targets import Target, targets

_LONGEST: Final = 20_000
_TOO_SLOW_S: Final = 1.0
_HARD_LIMIT_S: Final = 10


def main() -> int:
    """Fuzz each target in its turn; returns 1 where there was a finding."""
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="fuzzing", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="for each target (20)")
    parser.add_argument("--target", choices=sorted(targets()), help="this one alone")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--plain", action="store_true", help="mutations alone")
    options = parser.parse_args()
    guided = not options.plain and importlib.util.find_spec("atheris") is not None
    print("guided by coverage (atheris)" if guided else "by mutations alone")  # noqa: T201
    failed = []
    for name in [options.target] if options.target else sorted(targets()):
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        found = (_guided if guided else _mutated)(name, folder, options.seconds)
        if not found:
            failed.append(name)
    print(f"findings: {', '.join(failed) or 'none'}")  # noqa: T201
    return 1 if failed else 0


def _guided(name: str, folder: Path, seconds: int) -> bool:
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for seed in targets()[name].seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed[:_LONGEST])
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-timeout={_HARD_LIMIT_S}",
        "-rss_limit_mb=2048",
    ]
    command = [
        sys.executable,
        "-m",
        "fuzzing.guided",
        name,
        str(corpus),
        *limits,
        f"-artifact_prefix={folder}/",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    lines = done.stderr.splitlines()
    last = next((each for each in reversed(lines) if each.startswith("Done")), lines[-1:])
    print(f"{name}: {last}", flush=True)  # noqa: T201
    if done.returncode:
        print(done.stdout[-3_000:], "\n".join(lines[-30:]))  # noqa: T201
    return done.returncode == 0


def _mutated(name: str, folder: Path, seconds: int) -> bool:
    target, count, slowest = targets()[name], 0, 0.0
    mutator = Mutator(secrets.randbits(32), target.seeds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutator.next()[:_LONGEST]
        begin = time.process_time()
        if not _survives(target, data, folder, name):
            return False
        slowest, count = max(slowest, time.process_time() - begin), count + 1
    print(f"{name}: {count} runs, the slowest took {1000 * slowest:.1f} ms", flush=True)  # noqa: T201
    return slowest < _TOO_SLOW_S


def _survives(target: Target, data: bytes, folder: Path, name: str) -> bool:
    try:
        target.run(data)
    except Exception as error:  # noqa: BLE001 - any is a finding
        path = folder / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
        path.write_bytes(data)
        print(f"{name}: {error!r}: {path}")  # noqa: T201
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
