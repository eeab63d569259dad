"""Eight 720p cameras of 10 frames a second in one capture process, in real time: lag and memory."""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from bench.eyes import footage
from bench.processes import Process, python, wait_for_port
from facerelay.commands.supervise import free_ports, ours

CAMERAS, FPS = 8, 10
_SETTLED_S: Final = 60.0
_BEHIND_S: Final = 1.0

_SAY_EVERY_S: Final = 15.0


def run(media: Path, folder: Path, pictures: Path, *, seconds: float) -> dict[str, Any]:
    """Run broker, store and the capture role for so long; draw what the capture role's samples say."""
    clip = _clip(media, folder, seconds)
    samples = _play(clip, folder, seconds)
    assert len(samples) > 2, "no samples came"
    _plot(samples, pictures / "eyes-memory.png")
    return {"cameras": CAMERAS, "fps": FPS, "seconds": seconds} | _summary(samples) | _faces(folder)


def _clip(media: Path, folder: Path, seconds: float) -> Path:
    turn = footage.encode(folder / "turn.mkv", footage.visitors(media, FPS), Fraction(FPS))
    return footage.repeated(turn, folder / "long.mkv", seconds + footage.ROUND_S)


def _play(clip: Path, folder: Path, seconds: float) -> list[dict[str, Any]]:
    (port,) = free_ports(1)
    config = _config(folder, clip, port)
    with ExitStack() as stack:

        def start(name: str, command: Sequence[str]) -> Process:
            process = Process(name, command, folder / f"{name}.log")
            stack.callback(process.end)
            return process

        wait_for_port(port, start("broker", ours("broker", "-c", str(config))))
        store = start("store", ours("store", "-c", str(config)))
        capture = start("capture", python("bench.eyes.lagging", config, folder / "samples"))
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            store.check()
            capture.check()
            print(f"eight: {left:.0f} s to go", file=sys.stderr, flush=True)
            time.sleep(min(_SAY_EVERY_S, left))
    return [json.loads(line) for line in (folder / "samples").read_text(encoding="ascii").splitlines()]


def _config(folder: Path, clip: Path, port: int) -> Path:
    """Write one file for all three roles: the edge publishes straight to the broker."""
    path = folder / "bench.toml"
    lines = [
        'site = "bench"', "direct = true",
        "[broker]", f"url = {json.dumps(f'mqtt://127.0.0.1:{port}')}", 'data = "broker-data"',
        "[bucket]", f"url = {json.dumps(f'file://{folder}/bucket')}",
    ]  # fmt: skip
    for number in range(1, CAMERAS + 1):
        lines += ["[[camera]]", f'name = "camera-{number}"', f"source = {json.dumps(str(clip))}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _summary(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last, first = samples[-1], samples[0]
    lags = {name: [lag for _, lag in _of(samples, name, "lag_s")] for name in last["cameras"]}
    worst = {name: [lag for _, lag in _of(samples, name, "worst_s")] for name in last["cameras"]}
    settled = [each for each in samples if each["at_s"] >= min(_SETTLED_S, last["at_s"] / 2)]
    return {
        "samples": len(samples),
        "visits_begun": CAMERAS * footage.arrivals(last["at_s"]),
        "behind_by_more_than_1_s": sum(max(each) > _BEHIND_S for each in lags.values()),
        "lag_s_most": {name: round(max(each), 3) for name, each in lags.items()},
        "lag_s_median": {name: round(statistics.median(each), 3) for name, each in lags.items()},
        "frame_handled_after_due_s_most": {name: round(max(each), 3) for name, each in worst.items()},
        "frames": {
            unit: {name: camera[unit] for name, camera in last["cameras"].items()}
            for unit in ("frames", "inspected", "late")
        },
        "cpu_of_one_core": round((last["cpu_s"] - first["cpu_s"]) / (last["at_s"] - first["at_s"]), 3),
        "rss_mb": {
            "first": round(first["rss_mb"], 1),
            "settled": round(settled[0]["rss_mb"], 1),
            "last": round(last["rss_mb"], 1),
            "most": round(max(each["rss_mb"] for each in samples), 1),
            "settled_from_s": round(settled[0]["at_s"]),
            "mb_a_minute_since": round(60 * _slope([(s["at_s"], s["rss_mb"]) for s in settled]), 3),
        },
    }


def _of(samples: Sequence[Mapping[str, Any]], camera: str, what: str) -> Iterator[tuple[float, float]]:
    """Yield time and value of a camera's samples, from its first frame on."""
    for each in samples:
        if each["cameras"][camera] is not None:
            yield each["at_s"], each["cameras"][camera][what]


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the straight line nearest to some points, by least squares."""
    across, up = (statistics.fmean(values) for values in zip(*points, strict=True))
    spread = sum((x - across) ** 2 for x, _ in points)
    return sum((x - across) * (y - up) for x, y in points) / spread


def _faces(folder: Path) -> dict[str, Any]:
    """Return how many faces the outbox took, and what became of them by the end."""
    with sqlite3.connect(f"file:{folder / 'outbox.db'}?mode=ro", uri=True) as db:
        found = dict(db.execute("SELECT state, count(*) FROM faces GROUP BY state"))
    db.close()
    return {"faces": found}


def _plot(samples: Sequence[Mapping[str, Any]], to: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - only here, and its backend before its pyplot

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5.5), layout="constrained")
    above.plot([s["at_s"] for s in samples], [s["rss_mb"] for s in samples], color="#1f5fa8")
    above.set(ylabel="resident memory, MB", ylim=(0, 1.2 * max(s["rss_mb"] for s in samples)))
    above.set_title(f"facerelay capture: {CAMERAS} file cameras, 1280x720, {FPS} frames a second each")
    most = _BEHIND_S
    for name in samples[-1]["cameras"]:
        at, worst = zip(*_of(samples, name, "worst_s"), strict=True)
        below.plot(at, worst, lw=0.8, label=name)
        most = max(most, *worst)
    below.axhline(_BEHIND_S, color="#a02020", lw=1, ls="--")
    below.set(
        xlabel="seconds",
        ylabel="slowest frame of each second,\nseconds after it was due",
        ylim=(0, 1.1 * most),
    )
    below.legend(ncols=4, fontsize="small", frameon=False)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    plt.close(figure)
