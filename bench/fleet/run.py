"""One run of a fleet: start all of it, play the phases, wait for the last answer, and look at the books."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.fleet.cloud import Cloud, start_cloud, usage
from bench.fleet.figures import Face, audit, books, faces_of, latency
from bench.fleet.plan import OUTBOX, Fleet, Kind, Line, Part, Place
from bench.processes import BenchError, Process, Usage, python
from facerelay.commands.supervise import free_ports

_READY_S: Final = 40.0
_MORE_S: Final = 240.0
Used = dict[str, Usage]
Progress = Callable[[str], None]


@dataclass(slots=True)
class Clock:
    """When each phase began and ended, in Unix seconds, and what each role had used by then."""

    marks: dict[str, tuple[float, float]] = field(default_factory=dict)
    used: dict[str, tuple[Used, Used]] = field(default_factory=dict)
    requests: dict[str, dict[str, int]] = field(default_factory=dict)


def play(fleet: Fleet, folder: Path, progress: Progress) -> dict[str, Any]:
    """Play a fleet in a folder that is made for it, and return what came of it.

    Raises:
        BenchError: a part failed, or did not answer in time.
    """
    folder.mkdir(parents=True)
    (folder / "outboxes").mkdir()
    troubles = fleet.troubles()
    clock = Clock()
    with ExitStack() as stack:
        cloud = start_cloud(fleet, folder, stack)
        lines = _lines(fleet, troubles, cloud, folder)
        parts = _sites(fleet, cloud, lines, folder)
        try:
            for part in parts:
                part.hear("ready", within=_READY_S + fleet.sites / 20)
        except BenchError:
            for process in cloud.start.processes.values():
                process.check()  # whose fault it is
            raise
        progress(f"{fleet.sites} sites are connected, and each has had a receipt")
        _phases(fleet, cloud, parts, clock, progress)
        for part in [*parts, cloud.start.processes["lines"]]:
            part.end()
        counted = json.loads((folder / "counted.json").read_text())
        offered: dict[str, int] = {}
        for at in range(len(parts)):
            offered |= json.loads(_offered(folder, at).read_text(encoding="utf-8"))
        found = [
            face
            for name in fleet.names
            for face in faces_of(folder / "outboxes" / OUTBOX.format(site=name), name)
        ]
        result = {
            "fleet": asdict(fleet),
            "machine": {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[2], 2)},
            "books": books(folder / "outboxes", offered),
            "audit": audit(cloud, found),
        }
    return result | _figures(fleet, troubles, clock, found, counted)


def _lines(fleet: Fleet, troubles: Mapping[str, Kind], cloud: Cloud, folder: Path) -> dict[str, int]:
    """Start the lines that are not plain; return the port of each."""
    begin, end = (fleet.seconds * (1 + share) for share in (0.0, 1.0))
    ports = dict(zip(troubles, free_ports(len(troubles)), strict=True))
    lines = [
        Line(
            listen=ports[name],
            target=cloud.ports[at % len(cloud.ports)],
            kind=kind,
            bytes_s=fleet.slow_bytes_s,
            begin=begin if kind in {"reset", "dead"} else 0,
            end=end if kind in {"reset", "dead"} else 0,
        )
        for at, (name, kind) in enumerate(troubles.items())
    ]
    plan = folder / "lines.json"
    plan.write_text(json.dumps([asdict(line) for line in lines]), encoding="utf-8")
    command = python("bench.fleet.lines", plan, folder / "counted.json")
    cloud.start("lines", command, talks=True).hear("ready")
    return ports


def _offered(folder: Path, at: int) -> Path:
    return folder / f"offered-{at}.json"


def _sites(fleet: Fleet, cloud: Cloud, lines: Mapping[str, int], folder: Path) -> list[Process]:
    """Start the processes that play the sites, each with as many of them."""
    places = [
        Place(site=name, port=lines.get(name, cloud.ports[at % len(cloud.ports)]))
        for at, name in enumerate(fleet.names)
    ]
    processes = []
    for at in range(min(fleet.processes, fleet.sites)):
        part = Part(
            name=f"sites-{at}",
            folder=str(folder / "outboxes"),
            offered=str(_offered(folder, at)),
            places=tuple(places[at :: fleet.processes]),
            rate=fleet.rate,
            play_s=fleet.play_s,
            seed=fleet.seed,
        )
        plan = folder / f"{part.name}.json"
        plan.write_text(json.dumps(part.to_dict()), encoding="utf-8")
        processes.append(cloud.start(part.name, python("bench.fleet.sites", plan), talks=True))
    return processes


def _phases(fleet: Fleet, cloud: Cloud, parts: list[Process], clock: Clock, progress: Progress) -> None:
    if fleet.idle_s:
        _phase("idle", cloud, clock, fleet.idle_s)
    for part in [*parts, cloud.start.processes["lines"]]:
        part.go()
    for name in fleet.phases:
        _phase(name, cloud, clock, fleet.seconds)
        progress(f"{name}: {fleet.seconds:.0f} s played")
    begin = time.time()
    for word in ("given", "answered"):
        for part in parts:
            part.hear(word, within=_MORE_S)
    progress(f"all answered {time.time() - begin:.1f} s after the end of the play")


def _phase(name: str, cloud: Cloud, clock: Clock, seconds: float) -> None:
    """Wait through a phase, and note what it used."""
    before, begin, asked = usage(cloud.start.processes), time.time(), cloud.requests()
    time.sleep(seconds)
    for process in cloud.start.processes.values():
        process.check()
    clock.used[name] = before, usage(cloud.start.processes)
    clock.marks[name] = begin, time.time()
    clock.requests[name] = {kind: n - asked.get(kind, 0) for kind, n in cloud.requests().items()}


def _figures(
    fleet: Fleet,
    troubles: Mapping[str, Kind],
    clock: Clock,
    found: list[Face],
    counted: list[tuple[float, int, int]],
) -> dict[str, Any]:
    """Return what each phase came to."""
    cut = {name for name, kind in troubles.items() if kind in {"reset", "dead"}}
    slow = {name for name, kind in troubles.items() if kind == "slow"}
    phases = {}
    for name, (begin, end) in clock.marks.items():
        faces = [face for face in found if begin <= face.chosen < end]
        before, after = clock.used[name]
        phases[name] = {
            "seconds": round(end - begin, 2),
            "faces": len(faces),
            "faces_per_s": round(len(faces) / (end - begin), 1),
            "receipt_ms": latency(face for face in faces if face.site not in cut | slow),
            "receipt_ms_of_cut": latency(face for face in faces if face.site in cut),
            "receipt_ms_of_slow": latency(face for face in faces if face.site in slow),
            "cpu_share": {
                role: round((after[role].cpu_s - before[role].cpu_s) / (end - begin), 4) for role in after
            },
            "peak_mb": {role: round(each.peak_mb, 1) for role, each in after.items()},
            "requests": clock.requests[name],
            "line_bytes_s": _line_bytes(counted, begin, end, fleet.counted),
        }
    return {"phases": phases, "cpu_us_per_face": _per_face(phases)}


def _line_bytes(
    counted: list[tuple[float, int, int]], begin: float, end: float, lines: int
) -> dict[str, float]:
    """Return bytes a second, up and down, of one line."""
    seen = [each for each in counted if begin <= each[0] <= end]
    if len(seen) < 2 or not lines:
        return {}
    (first, *was), (last, *now) = seen[0], seen[-1]
    span = (last - first) * lines
    return {way: round((b - a) / span, 1) for way, a, b in zip(("up", "down"), was, now, strict=True)}


def _per_face(phases: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return CPU microseconds a face in the first phase: all of it, and beyond what idling costs."""
    name = "before" if "before" in phases else "play"
    busy, idle = phases[name], phases.get("idle")
    rate = busy["faces_per_s"]
    if not rate:
        raise BenchError("no face was offered")
    rest = idle["cpu_share"] if idle else {}
    return {
        role: {
            "all": round(share / rate * 1e6, 1),
            "marginal": round((share - rest.get(role, 0)) / rate * 1e6, 1),
        }
        for role, share in busy["cpu_share"].items()
    }
