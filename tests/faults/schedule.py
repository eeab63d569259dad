"""What breaks when, and for how long: this follows from the seed alone, so that a failing seed replays."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_BEGIN_S: Final = 2.0
_GAP_S: Final = (1.0, 4.0)
_REST_S: Final = 1.0
_LONG: Final = 0.15
"""How many of the faults outlast what is usual: the keep-alives of brokers and sessions among it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to break something: its part, and seconds at least and at most, as a rule and at times."""

    name: str
    target: str
    usual: tuple[float, float]
    long: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `at` seconds after the beginning, healed `seconds` later."""

    at: float
    kind: str
    target: str
    seconds: float


_PARTS: Final = ("forward", "edge-broker", "cloud-broker", "store", "feeder")
KINDS: Final = (
    *(Kind(f"kill-{part}", part, (0.1, 3), (5, 10)) for part in _PARTS),
    *(Kind(f"stop-{part}", part, (0.5, 5), (16, 30)) for part in _PARTS),
    Kind("wipe-edge-broker", "edge-broker", (0.1, 3), (5, 10)),
    Kind("wipe-cloud-broker", "cloud-broker", (0.1, 3), (5, 10)),
    Kind("link-stall", "link", (1, 6), (16, 30)),
    Kind("link-reset", "link", (0.1, 3), (5, 10)),
    Kind("link-dead", "link", (0.1, 3), (5, 10)),
    Kind("link-delay", "link", (2, 8), (10, 20)),
    Kind("bucket-500", "bucket", (1, 5), (10, 20)),
    Kind("bucket-503", "bucket", (1, 5), (10, 20)),
    Kind("bucket-slow", "bucket", (1, 5), (10, 20)),
    Kind("bucket-silent", "bucket", (1, 5), (16, 30)),
    Kind("clock-back", "clock", (2, 8), (10, 20)),
    Kind("disk-full", "disk", (1, 5), (8, 12)),
)


def without(prefixes: Sequence[str]) -> tuple[Kind, ...]:
    """Return all kinds but those whose names begin so."""
    return tuple(kind for kind in KINDS if not kind.name.startswith(tuple(prefixes)))


def schedule(seed: int, combination: str, seconds: float, kinds: Sequence[Kind] = KINDS) -> Iterator[Fault]:
    """Yield the faults of a run in the order of their time; a longer run of the same seed begins alike.

    Every kind comes once before one comes again. A part that is still broken, or hardly healed, is left
    alone; different parts are broken at once now and then.
    """
    rng = random.Random(f"{seed} {combination}")  # noqa: S311 - to be made again, not to be secret
    deck: list[Kind] = []
    free_at: dict[str, float] = {}
    at = _BEGIN_S
    while True:
        at += rng.uniform(*_GAP_S)
        deck = deck or rng.sample(kinds, len(kinds))
        kind = deck.pop()
        lasts = rng.uniform(*(kind.long if rng.random() < _LONG else kind.usual))
        if at >= seconds:
            return
        if free_at.get(kind.target, 0) <= at:
            free_at[kind.target] = at + lasts + _REST_S
            yield Fault(round(at, 2), kind.name, kind.target, round(min(lasts, seconds - at), 2))
