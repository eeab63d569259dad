"""One run of one chain: play the phases, wait until nothing moves, and look into the bucket."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.chains import Chain, Variant, running
from bench.faces import Phase, read_offered
from bench.processes import S3, Usage

Run = Callable[[Variant, Sequence[Phase], Path, S3 | None], AbstractContextManager[Chain]]

_QUIET_S = 2.0
_LOOK_S = 0.2
_LONGEST_S = 120.0
_WATCHED_RATE = 500
"""Faces a second up to which a folder is watched: beyond, watching would cost what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one phase of one run gave.

    Attributes:
        stored: faces of the phase whose bytes lie in the bucket, each counted once.
        doubled: objects beyond those.
        rate: stored faces a second, from the first offer to the last arrival.
        arrival_ms: from the offer until it lay in the bucket, of each stored face, where known.
        receipt_ms: from the offer until the outbox had the receipt.
        cpu_us: of each process, per stored face, user and system.
        peak_mb: of each process, resident.
    """

    variant: Variant
    phase: Phase
    stored: int
    doubled: int
    rate: float
    arrival_ms: Sequence[float]
    receipt_ms: Sequence[float]
    cpu_us: Mapping[str, float]
    peak_mb: Mapping[str, float]

    @property
    def lost(self) -> int:
        """Faces offered that do not lie in the bucket."""
        return self.phase.count - self.stored


def measure(
    variant: Variant, phases: Sequence[Phase], folder: Path, s3: S3 | None, *, run: Run = running
) -> list[Result]:
    """Run a chain through its phases, and return what each gave; `run` puts it together.

    Raises:
        BenchError: a part failed, or a face came that was not offered.
    """
    folder.mkdir()
    with run(variant, phases, folder, s3) as chain:
        chain.warm()
        used = [_play(chain, phases, at) for at in range(len(phases))]
        return [_result(variant, phase, chain, usage) for phase, usage in zip(phases, used, strict=True)]


def _play(chain: Chain, phases: Sequence[Phase], at: int) -> tuple[dict[str, Usage], dict[str, Usage]]:
    """Play one phase, and return the processes' usage before and after."""
    before = _usage(chain)
    expected = chain.bucket.count() + phases[at].count
    slow = 0 < phases[at].rate <= _WATCHED_RATE
    with chain.bucket.watched() if slow else nullcontext():
        chain.feeder.go()
        for word in ("begin", "given", "answered"):
            chain.feeder.hear(word)
        _settle(chain, expected)
    return before, _usage(chain)


def _usage(chain: Chain) -> dict[str, Usage]:
    return {name: process.usage() for name, process in chain.processes.items()}


def _settle(chain: Chain, expected: int) -> None:
    """Return once all have arrived, or no more do."""
    begin = moved = time.monotonic()
    count = chain.bucket.count()
    while count < expected and time.monotonic() - moved < _QUIET_S and time.monotonic() - begin < _LONGEST_S:
        time.sleep(_LOOK_S)
        before, count = count, chain.bucket.count()
        if count != before:
            moved = time.monotonic()


def _result(
    variant: Variant, phase: Phase, chain: Chain, usage: tuple[dict[str, Usage], dict[str, Usage]]
) -> Result:
    offered = read_offered(chain.offered)
    found = Counter(chain.bucket.contents())
    strange = set(found) - set(offered)
    assert not strange, f"{len(strange)} objects are not byte for byte what was offered"
    mine = {sha256: at for sha256, (name, at) in offered.items() if name == phase.name}
    assert len(mine) == phase.count
    stored = {sha256: at for sha256, at in mine.items() if sha256 in found}
    arrivals, receipts = chain.bucket.arrivals(), chain.receipts()
    last = max((arrivals or receipts).get(sha256, 0) for sha256 in stored)
    before, after = usage
    return Result(
        variant=variant,
        phase=phase,
        stored=len(stored),
        doubled=sum(found[sha256] - 1 for sha256 in stored),
        rate=len(stored) / (last - min(mine.values())),
        arrival_ms=_since(stored, arrivals),
        receipt_ms=_since(stored, receipts) if variant.level == "receipt" else [],
        cpu_us={name: (after[name].cpu_s - before[name].cpu_s) * 1e6 / len(stored) for name in after},
        peak_mb={name: after[name].peak_mb for name in after},
    )


def _since(offered: Mapping[str, float], there: Mapping[str, float]) -> list[float]:
    return [(there[sha256] - at) * 1000 for sha256, at in offered.items() if sha256 in there]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
