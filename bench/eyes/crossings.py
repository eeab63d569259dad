"""People who cross, pass behind one another and come back: one face each, and of each of them."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, Final

from bench.eyes import footage
from bench.eyes.shots import visits_of
from facerelay.edge.eyes.best import Shot
from facerelay.edge.eyes.detect import make_detector

_MAKER: Final = Path(__file__).parents[2] / "tests" / "footage.py"
_RATES: Final = 5, 10, 25
_FIRST_SEED: Final = 1001
"""Beyond the seeds of the tests, which the tracker was made with."""


def run(media: Path, folder: Path, *, seeds: int) -> dict[str, Any]:
    """Play so many scenes of each kind at each rate, with the tests' maker of footage."""
    maker, detector = _maker(), make_detector("yunet")
    scenes = []
    for kind, rate, seed in product(maker.KINDS, _RATES, range(_FIRST_SEED, _FIRST_SEED + seeds)):
        scene = maker.crossing(media, detector, seed=seed, kind=kind, fps=float(rate))
        clip = folder / f"{kind}-{rate}-{seed}.mkv"
        footage.encode(clip, (frame.image for frame in scene.frames()), Fraction(rate))
        shots = [shot for visit in visits_of(clip, detector).values() for shot in visit.sent]
        clip.unlink()
        scenes.append(
            {
                "kind": kind, "fps": rate, "seed": seed, "people": len(scene.walkers),
                "faces": len(shots), "people_shown": len({_who(scene.walkers, shot) for shot in shots}),
            }
        )  # fmt: skip
    return {"scenes": len(scenes), "exact": _exact(scenes), "not_exact": [s for s in scenes if not _right(s)]}


def _who(walkers: Sequence[Any], shot: Shot) -> int:
    """Return whose face a shot shows, by where it should be and how large."""
    x, y, w, h = shot.detection.box

    def unlike(walker: Any) -> float:  # noqa: ANN401 - of the tests' module
        at = walker.x(shot.pts)
        if at is None:
            return math.inf
        away = math.hypot(x + w / 2 - at, y + h / 2 - walker.level) / walker.face
        return float(away + abs(math.log(h / walker.face)))

    return min(range(len(walkers)), key=lambda number: unlike(walkers[number]))


def _right(scene: dict[str, Any]) -> bool:
    return bool(scene["people"] == scene["faces"] == scene["people_shown"])


def _exact(scenes: list[dict[str, Any]]) -> dict[str, str]:
    """Return by rate in how many scenes each person gave one face."""
    all_, right = Counter(s["fps"] for s in scenes), Counter(s["fps"] for s in scenes if _right(s))
    return {f"crossings, {rate} fps": f"{right[rate]} of {all_[rate]}" for rate in _RATES}


def _maker() -> Any:  # noqa: ANN401 - a module of the tests, which are no package
    spec = importlib.util.spec_from_file_location("tests_footage", _MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
