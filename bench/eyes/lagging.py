"""The capture role, watched from inside: `python -m bench.eyes.lagging CONFIG SAMPLES`.

Each second a line of JSON is written: how far each camera is behind, frames so far, memory, CPU.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from facerelay import settings
from facerelay.commands import running
from facerelay.config import Camera, Config
from facerelay.edge.capture import capture
from facerelay.edge.eyes.watch import Seen

_EVERY_S: Final = 1.0
_PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(slots=True)
class _Clock:
    """How far one camera has come.

    Attributes:
        begin: Unix time at which its frame of pts 0 was due.
        pts: of the newest frame that was handled.
        worst: most seconds that a frame was handled after it was due, since the last sample.
    """

    begin: float | None = None
    pts: float = 0.0
    worst: float = 0.0
    frames: int = 0
    inspected: int = 0
    late: int = 0

    def take(self, seen: Seen) -> None:
        """Note a frame that has just been handled."""
        frame = seen.frame
        if self.begin is None:
            self.begin = frame.time.timestamp() - frame.pts
        self.pts = frame.pts
        self.worst = max(self.worst, time.time() - self.begin - frame.pts)
        self.frames += 1
        self.inspected += seen.inspected
        self.late += frame.late

    def sample(self) -> dict[str, Any] | None:
        """Return where it is now; None before its first frame."""
        if self.begin is None:
            return None
        worst, self.worst = self.worst, 0.0
        return {
            "lag_s": time.time() - self.begin - self.pts, "worst_s": worst,
            "frames": self.frames, "inspected": self.inspected, "late": self.late,
        }  # fmt: skip


def main(config_path: str, samples: str) -> None:
    """Run the role until a signal ends it."""
    running.set_up_log(verbose=False)
    config = settings.load(Path(config_path))
    clocks = {camera.name: _Clock() for camera in config.camera}

    def observe(camera: Camera, _: Config) -> Callable[[Seen], None]:
        return clocks[camera.name].take

    threading.Thread(target=_write, args=(Path(samples), clocks), name="samples", daemon=True).start()
    running.run(lambda stop: capture(config, running.connector(config), stop=stop, observe=observe))


def _write(path: Path, clocks: dict[str, _Clock]) -> None:
    begin = time.monotonic()
    with path.open("a", encoding="ascii") as file:
        while True:
            time.sleep(_EVERY_S)
            sample = {
                "at_s": time.monotonic() - begin, "rss_mb": _rss_mb(), "cpu_s": time.process_time(),
                "cameras": {name: clock.sample() for name, clock in clocks.items()},
            }  # fmt: skip
            file.write(json.dumps(sample) + "\n")
            file.flush()


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_MB


if __name__ == "__main__":
    main(*sys.argv[1:])
