"""What is sent instead of one PNG per face per frame, and whether it is the picture to send."""

from __future__ import annotations

import copy
import math
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2

from bench.eyes import footage, sheet
from bench.eyes.loops import Haar, Ours, Outcome, Seeds
from bench.eyes.stages import replaced
from facerelay.edge import watcher
from facerelay.edge.cameras.camera import SCENE, open_camera
from facerelay.edge.cameras.frame import Frame
from facerelay.edge.eyes.best import BestShot, Decision, Policy, Shot
from facerelay.edge.eyes.crop import crop_box
from facerelay.edge.eyes.detect import Detector, make_detector
from facerelay.edge.eyes.search import Search
from facerelay.edge.eyes.track import Update

_MARGIN: Final = 0.3
_NEAR: Final = 0.95


@dataclass(slots=True)
class Visit:
    """All that was seen of a track: each detection's view, the good ones' quality, and what was sent."""

    views: list[sheet.View] = field(default_factory=list)
    sent: list[Shot] = field(default_factory=list)

    @property
    def best(self) -> sheet.View:
        """The good view of the highest quality."""
        return max((v for v in self.views if v.quality is not None), key=lambda view: view.quality or 0)


class _Both:
    """The policy as shipped, and beside it one that measures every frame and never sends before the end."""

    def __init__(self, shipped: Policy, patient: Policy) -> None:
        self._shipped, self._patient = shipped, patient
        self.visits: dict[int, Visit] = {}

    def update(self, frame: Frame, tracked: Update) -> Decision:
        decision, measured = self._shipped.update(frame, tracked), self._patient.update(frame, tracked)
        for look in measured.looks:
            assert frame.raster is not None
            cut = frame.raster.cut(crop_box(look.detection.box, frame.raster.size, _MARGIN))
            total = None if look.quality is None else look.quality.total
            self.visits.setdefault(look.track, Visit()).views.append(
                sheet.View(frame.pts, sheet.thumb(cut), total)
            )
        self._take(decision.shots)
        return decision

    def finish(self, ended: Sequence[int]) -> list[Shot]:
        self._patient.finish(ended)
        return self._take(self._shipped.finish(ended))

    def _take(self, shots: list[Shot]) -> list[Shot]:
        for shot in shots:
            self.visits[shot.track].sent.append(shot)
        return shots


def run(media: Path, out: Path, pictures: Path) -> dict[str, Any]:
    """Count messages and bytes, compare each choice with its track, and write contact sheets.

    Args:
        media: the footage.
        out: where the sheet of the footage goes.
        pictures: where the sheet of the built-in scene goes, which shows nobody of the footage.
    """
    detector = make_detector("yunet")
    groups = {
        "signers": footage.signers(media),
        **{name: [media / "clips" / name] for name in footage.GROUPS},
    }
    sent = {name: _totals(clips, detector) for name, clips in groups.items()}
    sent["all"] = {
        way: {unit: sum(each[way][unit] for each in sent.values()) for unit in ("messages", "bytes")}
        for way in next(iter(sent.values()))
    }
    clips = [clip for group in groups.values() for clip in group]
    visits = {name: visit for clip in clips for name, visit in visits_of(clip, detector).items()}
    scene = visits_of(SCENE, detector)
    written = [
        sheet.write(out / "eyes-chosen.png", _rows(visits)),
        sheet.write(pictures / "eyes-scene.jpg", _rows(scene)),
    ]
    return {
        "sent": {name: each | {"fewer": _fewer(each)} for name, each in sent.items()},
        "quality": {"clips": _quality(visits), "scene": _quality(scene)},
        "visits": {name: _choice(visit) for name, visit in (visits | scene).items()},
        "sheets": [path.name for path in written],
    }


def _totals(clips: Sequence[Path], detector: Detector) -> dict[str, dict[str, int]]:
    """Return messages and bytes of each way to send the faces of some clips."""
    ours, seeds = Ours(detector), Seeds(Haar())
    outcomes: dict[str, list[Outcome]] = {"ours": [], "png": [], "grey png": [], "seeds": []}
    for clip in clips:
        colour, grey = _each_detection(clip, detector)
        for way, outcome in zip(outcomes, (ours(clip), colour, grey, seeds(clip)), strict=True):
            outcomes[way].append(outcome)
    return {
        way: {"messages": sum(o.messages for o in some), "bytes": sum(o.bytes for o in some)}
        for way, some in outcomes.items()
    }


def _each_detection(clip: Path, detector: Detector) -> tuple[Outcome, Outcome]:
    """Return what one PNG, in colour and in grey, of each detection's bare box in each frame comes to."""
    search, frames, colour, grey = Search(detector), 0, [], []
    for frame in open_camera(str(clip), pace=False, stop=threading.Event()):
        assert frame.raster is not None
        frames += 1
        for each in search.find(frame.raster):
            face = frame.raster.cut(crop_box(each.box, frame.raster.size, 0.0))
            colour.append(len(cv2.imencode(".png", face)[1]))
            grey.append(len(cv2.imencode(".png", cv2.cvtColor(face, cv2.COLOR_BGR2GRAY))[1]))
    first, second = (Outcome(frames, frames, len(s), len(s), sum(s)) for s in (colour, grey))
    return first, second


def visits_of(source: Path | str, detector: Detector) -> dict[str, Visit]:
    """Play a source through the shipped pipeline, and return by name the visits of which a face was sent."""
    with _measuring() as made:
        Ours(detector)(source)
    (policy,) = made
    name = Path(source).stem.removeprefix("intel_")
    return {f"{name} {track}": visit for track, visit in policy.visits.items() if visit.sent}


@contextmanager
def _measuring() -> Iterator[list[_Both]]:
    """Let each camera's policy have one beside it that measures every frame."""
    made: list[_Both] = []

    def make(**settings: Any) -> _Both:  # noqa: ANN401 - whatever the policy is told
        patient = BestShot(**settings | {"gate": copy.deepcopy(settings["gate"]), "wait_s": math.inf})
        made.append(_Both(BestShot(**settings), patient))
        return made[-1]

    with replaced(watcher, "BestShot", make):
        yield made


def _fewer(sent: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    """Return how many times fewer messages and bytes ours are than each other way's."""
    ours = sent["ours"]
    return {
        way: {unit: round(each[unit] / ours[unit], 1) for unit in ours}
        for way, each in sent.items()
        if way != "ours"
    }


def _choice(visit: Visit) -> dict[str, Any]:
    chosen, best = visit.sent[0], visit.best
    return {
        "chosen": round(chosen.quality, 4), "at_s": round(chosen.pts, 3),
        "best": round(best.quality or 0, 4), "best_at_s": round(best.pts, 3),
        "of_best": round(chosen.quality / (best.quality or 1), 4),
        "detections": len(visit.views), "good": sum(v.quality is not None for v in visit.views),
        "parts": {name: round(part, 3) for name, part in chosen.parts.items()},
    }  # fmt: skip


def _quality(visits: dict[str, Visit]) -> dict[str, Any]:
    """Return how near the chosen pictures come to the best of their tracks, over whole tracks."""
    ratios = [_choice(visit)["of_best"] for visit in visits.values()]
    return {
        "visits": len(ratios),
        "within_5_percent": sum(ratio >= _NEAR for ratio in ratios),
        "median": statistics.median(ratios),
        "least": min(ratios),
    }


def _rows(visits: dict[str, Visit]) -> list[sheet.Row]:
    return [
        sheet.Row(
            name,
            sheet.View(visit.sent[0].pts, sheet.thumb(visit.sent[0].crop), visit.sent[0].quality),
            visit.best,
            (visit.views[0], visit.views[len(visit.views) // 2], visit.views[-1]),
        )
        for name, visit in visits.items()
    ]
