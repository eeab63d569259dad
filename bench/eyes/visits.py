"""One face a visit: how many of the shipped pipeline come of footage whose visits are known."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from bench.eyes import crossings, footage
from bench.eyes.loops import Ours
from facerelay.edge.cameras.camera import SCENE
from facerelay.edge.eyes.detect import make_detector

NOBODY: Final = "no-faces_nasa_world.mp4", "intel_one-by-one-person-detection.mp4"
"""Clips in which nobody shows a face that a person would keep."""

_SCENE_VISITS: Final = 10


def run(media: Path, folder: Path, *, seeds: int) -> dict[str, Any]:
    """Play each source once at the default settings, and again with other ones where that says something."""
    detector = make_detector("yunet")
    ours, open_, tiled = Ours(detector), Ours(detector, motion=False), Ours(detector, tiles=2)
    slow, slower = Ours(detector, max_fps=10), Ours(detector, max_fps=5)
    rows = []
    for kind, name, source, expected in _sources(media, folder):
        counts = {"default": ours(source).messages}
        if kind != "mixed":
            counts |= {"no motion gate": open_(source).messages, "10 fps": slow(source).messages}
        if kind == "visitors":
            counts["5 fps"] = slower(source).messages
        if kind == "group":
            counts["tiles = 2"] = tiled(source).messages
        rows.append({"kind": kind, "source": name, "expected": expected, "faces": counts})
    crossed = crossings.run(media, folder, seeds=seeds)
    return {"rows": rows, "exact": _exact(rows) | crossed["exact"], "crossings": crossed}


def _sources(media: Path, folder: Path) -> Iterator[tuple[str, str, Path | str, int]]:
    """Yield kind, name, source, and the visits in it."""
    clips = footage.signers(media)
    yield from (("signer", clip.stem, clip, 1) for clip in clips)
    yield from (("group", name, media / "clips" / name, count) for name, count in footage.GROUPS.items())
    yield from (("nobody", name, media / "clips" / name, 0) for name in NOBODY)
    yield "scene", "the built-in scene", SCENE, _SCENE_VISITS
    scene = footage.encode(folder / "visitors.mkv", footage.visitors(media, 10), Fraction(10))
    yield "visitors", "people come and go at four places", scene, footage.arrivals(footage.ROUND_S)
    half = len(clips) // 2
    for left, right in zip(clips[:half], clips[half:], strict=True):
        name = f"{left.stem} | {right.stem}"
        yield "mixed", name, _mixed(folder, left, right), 2
    group, count = next(iter(footage.GROUPS.items()))
    yield "mixed", f"{group} | {clips[0].stem}", _mixed(folder, media / "clips" / group, clips[0]), count + 1


def _mixed(folder: Path, left: Path, right: Path) -> Path:
    to = folder / f"{left.stem}-{right.stem}.mkv"
    return footage.encode(to, footage.side_by_side((left, right)), footage.rate(left))


def _exact(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return for each kind and setting in how many sources the faces are as many as the visits."""
    found: dict[str, list[bool]] = {}
    for row in rows:
        for setting, count in row["faces"].items():
            found.setdefault(f"{row['kind']}, {setting}", []).append(count == row["expected"])
    return {name: f"{sum(right)} of {len(right)}" for name, right in found.items()}
