"""Flame graphs of the two Python processes between outbox and a null S3 server, Mosquitto's bridge the link.

`python -m bench.flame` writes `bench/results/flame-feeder.svg` and `flame-store.svg`. Needs py-spy on the
path, and the right to look into one's own processes (root, or `kernel.yama.ptrace_scope` 0).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.chains import Variant, running
from bench.faces import Phase
from bench.processes import program

_RESULTS: Final = Path(__file__).parent / "results"
_NAMES: Final = ("feeder", "store")
_FACES: Final = 40_000
_SECONDS: Final = 6
_HERTZ: Final = 400


def main() -> int:
    """Record both while the chain is as busy as it can be."""
    spy = program("py-spy")
    with tempfile.TemporaryDirectory(prefix="facerelay-bench-", ignore_cleanup_errors=True) as folder:
        phases = [Phase("flame", _FACES)]
        variant = Variant("receipt", "mosquitto", "bridge", "null")
        (Path(folder) / "chain").mkdir()
        with running(variant, phases, Path(folder) / "chain", None) as chain:
            chain.warm()
            chain.feeder.go()
            chain.feeder.hear("begin")
            watching = [
                subprocess.Popen(
                    [
                        spy, "record", "--pid", str(pid), "--duration", str(_SECONDS), "--rate", str(_HERTZ),
                        "--threads", "--output", str(_RESULTS / f"flame-{name}.svg"),
                    ],
                    stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
                )
                for name, pid in zip(_NAMES, (chain.feeder.pid, chain.processes["store"].pid), strict=True)
            ]  # fmt: skip
            codes = [process.wait() for process in watching]
    for name in _NAMES:
        graph = _RESULTS / f"flame-{name}.svg"
        said = graph.read_text(encoding="utf-8")
        graph.write_text(re.sub(r">[^<]*py-spy record[^<]*<", f">{name}<", said), encoding="utf-8")
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
