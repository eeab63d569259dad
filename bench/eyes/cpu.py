"""CPU per 720p frame, from the file to the outbox, on one thread, ours and others in turn."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from bench.eyes import footage, stages
from bench.eyes.loops import BareAv, BareCv2, FaceDetectorYN, Haar, Lean, Ours, Outcome, Seeds
from facerelay.edge.cameras.raster import Image
from facerelay.edge.eyes.detect import Detector, make_detector

OURS, OPEN, SEEDS = "ours", "ours, no motion gate", "seeds: Haar, PNG a face"
CV2, AV, LEAN = "bare: cv2, YuNet", "bare: PyAV, YuNet", "bare: our reader and search"
FULL, FULL_CV2 = "ours, full-range video", "bare: cv2, YuNet, full-range video"
VBR, VBR_STILL, VBR_NOISY = "ours, VBR", "ours, still, VBR", "ours, still with noise, VBR"
STILL, NOISY, NOISY_OPEN = "ours, still", "ours, still with noise", "ours, still with noise, no motion gate"
_FPS: Final = Fraction(30)
_SPLIT: Final = "busy", "busy, full range", "still", "still with noise"


@dataclass(slots=True)
class _Entry:
    """One loop on one clip, and what each of its runs cost, in CPU milliseconds a frame."""

    loop: Callable[[Path], Outcome]
    clip: Path
    ms: list[float] = field(default_factory=list)
    outcome: Outcome | None = None

    def run(self) -> float:
        """Run once; CPU of all of the process's threads."""
        gc.collect()
        begin = time.process_time()
        self.outcome = self.loop(self.clip)
        return 1000 * (time.process_time() - begin) / self.outcome.frames


def run(media: Path, folder: Path, *, repeats: int, frames: int) -> dict[str, Any]:
    """Make the clips, run all loops in turn so often, and then the pipeline with clocks in it."""
    clips = _clips(media, folder, frames)
    detector = make_detector("yunet")
    entries = _entries(clips, detector)
    for entry in entries.values():
        entry.run()  # warms up; not counted
    names = list(entries)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            entries[name].ms.append(entries[name].run())
        print(f"cpu {turn + 1}/{repeats}", file=sys.stderr, flush=True)
    for entry in entries.values():
        assert entry.outcome is not None
        assert entry.outcome.frames == frames
    split = {name: _split(clips[name], detector, max(3, repeats // 3)) for name in _SPLIT}
    mbit = {name: clip.stat().st_size * 8e-6 / (frames / _FPS) for name, clip in clips.items()}
    return {
        "frames": frames, "repeats": repeats,
        "clips_mbit_s": {name: round(float(rate), 2) for name, rate in mbit.items()},
        "rows": {name: _row(entry, entries) for name, entry in entries.items()},
        "ratios": _ratios({name: entry.ms for name, entry in entries.items()}),
        "split_ms": split,
        "still_of_busy_without_decoding": {
            name: round(_undecoded(split[name]) / _undecoded(split["busy"]), 4)
            for name in ("still", "still with noise")
        },
    }  # fmt: skip


def _clips(media: Path, folder: Path, frames: int) -> dict[str, Path]:
    moving = list(footage.busy(media, frames))
    held = moving[:1] * frames
    kinds: dict[str, tuple[list[Image], dict[str, bool]]] = {
        "busy": (moving, {}),
        "busy, full range": (moving, {"full_range": True}),
        "busy, VBR": (moving, {"varying": True}),
        "still": (held, {}),
        "still with noise": (held, {"noise": True}),
        "still, VBR": (held, {"varying": True}),
        "still with noise, VBR": (held, {"noise": True, "varying": True}),
    }
    return {
        name: footage.encode(folder / f"{number}.mkv", pictures, _FPS, **how)
        for number, (name, (pictures, how)) in enumerate(kinds.items())
    }


def _entries(clips: Mapping[str, Path], detector: Detector) -> dict[str, _Entry]:
    busy, full, noisy = clips["busy"], clips["busy, full range"], clips["still with noise"]
    return {
        OURS: _Entry(Ours(detector), busy),
        CV2: _Entry(BareCv2(detector), busy),
        OPEN: _Entry(Ours(detector, motion=False), busy),
        AV: _Entry(BareAv(detector), busy),
        "FaceDetectorYN .9, cv2": _Entry(BareCv2(FaceDetectorYN()), busy),
        SEEDS: _Entry(Seeds(Haar()), busy),
        LEAN: _Entry(Lean(detector), busy),
        FULL: _Entry(Ours(detector), full),
        FULL_CV2: _Entry(BareCv2(detector), full),
        STILL: _Entry(Ours(detector), clips["still"]),
        NOISY: _Entry(Ours(detector), noisy),
        NOISY_OPEN: _Entry(Ours(detector, motion=False), noisy),
        VBR: _Entry(Ours(detector), clips["busy, VBR"]),
        VBR_STILL: _Entry(Ours(detector), clips["still, VBR"]),
        VBR_NOISY: _Entry(Ours(detector), clips["still with noise, VBR"]),
    }


def _row(entry: _Entry, entries: Mapping[str, _Entry]) -> dict[str, Any]:
    outcome = entry.outcome
    assert outcome is not None
    return {
        "ms": round(statistics.median(entry.ms), 3),
        "ms_runs": [round(ms, 3) for ms in entry.ms],
        "of_ours": _ratio(entry.ms, entries[OURS].ms),
        "inspected": outcome.inspected, "faces": outcome.faces,
        "messages": outcome.messages, "bytes": outcome.bytes,
    }  # fmt: skip


def _ratios(ms: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return what must be shown; the limit is the quicker of the two bare loops."""
    bare = min((CV2, AV), key=lambda name: statistics.median(ms[name]))
    return {
        "ours / bare": _ratio(ms[OURS], ms[bare]),
        "ours without motion gate / bare": _ratio(ms[OPEN], ms[bare]),
        "ours / our reader and search": _ratio(ms[OURS], ms[LEAN]),
        "ours / bare, full-range video": _ratio(ms[FULL], ms[FULL_CV2]),
        "ours / seeds": _ratio(ms[OURS], ms[SEEDS]),
        "still / busy": _ratio(ms[STILL], ms[OURS]),
        "still with noise / busy": _ratio(ms[NOISY], ms[OURS]),
        "still / busy, VBR": _ratio(ms[VBR_STILL], ms[VBR]),
        "still with noise / busy, VBR": _ratio(ms[VBR_NOISY], ms[VBR]),
    }


def _ratio(some: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Return the median and the range of the ratios within each turn."""
    paired = [one / other for one, other in zip(some, others, strict=True)]
    return {
        "median": round(statistics.median(paired), 4),
        "least": round(min(paired), 4),
        "most": round(max(paired), 4),
    }


def _undecoded(parts: Mapping[str, float]) -> float:
    return parts["all"] - parts["decode"]


def _split(clip: Path, detector: Detector, repeats: int) -> dict[str, float]:
    """Return CPU milliseconds a frame by stage, medians; the outbox's own thread is one of them."""
    ours, found = Ours(detector), []
    for _ in range(repeats):
        gc.collect()
        whole, mine = time.process_time(), time.thread_time()
        with stages.clocked(detector) as clocks:
            frames = ours(clip).frames
        mine, whole = time.thread_time() - mine, time.process_time() - whole
        named = {name: clocks.spent[name] for name in stages.NAMES if name != "rest"}
        missing = [name for name in named if not clocks.calls[name]]
        assert not missing, f"no time was taken of {missing}"
        parts = named | {"outbox's thread": whole - mine, "rest": mine - sum(named.values()), "all": whole}
        found.append({name: 1000 * seconds / frames for name, seconds in parts.items()})
    return {name: round(statistics.median(each[name] for each in found), 3) for name in found[0]}
