"""What an erasure would delete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from facerelay.cloud import proofs


@dataclass(frozen=True, slots=True)
class Survey:
    """What an erasure would delete: objects by the place where they lie, and by site and camera."""

    places: Mapping[str, int]
    cameras: Mapping[str, int]


def counted(found: Sequence[tuple[str, str]], tars: Iterable[str] = ()) -> Survey:
    """Count what was found: keys, and the camera or topic that each is of; and tars to be written anew."""
    return Survey(
        proofs.places([*(key for key, _ in found), *tars]),
        dict(sorted(Counter(camera for _, camera in found).items())),
    )
