"""What a store counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from facerelay.metrics import Spread

_PUT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class Counters:
    """What a store did since it started; refusals, quarantine and discards by reason.

    Attributes:
        held: faces taken into open shards; of these each is stored, erased or refused later.
        shards: that were closed, and how many bytes their tars had.
        puts: seconds that the bucket took for each object.
        failures: tries that it did not take; each is made again.
    """

    stored: int = 0
    duplicates: int = 0
    erased: int = 0
    foreign: int = 0
    bytes: int = 0
    held: int = 0
    shards: int = 0
    shard_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    puts: Spread = field(default_factory=lambda: Spread(_PUT_S))
    failures: int = 0

    def __str__(self) -> str:
        plain = f"stored {self.stored} ({self.bytes} bytes), duplicates {self.duplicates}"
        plain += f", erased {self.erased}, foreign {self.foreign}"
        if self.held:
            plain += f", held {self.held}, shards {self.shards} ({self.shard_bytes} bytes)"
        for name in ("refused", "quarantined", "discarded"):
            reasons = getattr(self, name)
            parts = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
            plain += f", {name} {reasons.total()}" + (f" ({parts})" if parts else "")
        return plain
