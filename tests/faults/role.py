"""A role of ours under a clock that can be set wrong: `python -m faults.role CLOCK WORDS…`."""

from __future__ import annotations

import sys
from pathlib import Path

from facerelay.__main__ import run
from facerelay.cloud import store
from faults.clock import Clock

if __name__ == "__main__":
    assert store  # loaded before the clock is taken
    Clock(Path(sys.argv[1])).take()
    del sys.argv[1]
    run()
