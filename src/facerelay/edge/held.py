"""Faces that a store holds in an open shard: safe on this disk, and next to nothing of them in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from facerelay.edge.outbox import Waiting
from facerelay.messages import Hello, Receipt

LAST_S: Final = 900.0
"""A face that was held for so long without another word is sent again: longer than a shard is open."""

_SPREAD_S: Final = 10.0
"""What a store had in memory when it fell is sent again within such a time: other edges do the same."""

_HEX: Final = 16


class Holder(NamedTuple):
    """A process of a store: what it held is gone with it."""

    store: str
    instance: str | None = None
    run: str | None = None


class _Kept(NamedTuple):
    row: int
    since: float
    hash16: int
    holder: Holder


class Resend(NamedTuple):
    """A face that is to be read from the disk, and sent again."""

    row: int
    id: str


class Held:
    """What is held, by whom, since when; and what of it is to be sent again.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}  # in the order of `since`
        self._lost: list[tuple[float, list[Resend]]] = []
        self._holders: dict[Holder, Holder] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, face: Waiting, holder: Holder) -> None:
        """Take a face that a store holds."""
        self._kept.pop(face.id, None)
        known = self._holders.setdefault(holder, holder)
        self._kept[face.id] = _Kept(face.row, self._clock(), int(face.sha256[:_HEX], 16), known)

    def gone(self, ids: Iterable[str]) -> None:
        """Forget faces that wait no longer."""
        for face_id in ids:
            self._kept.pop(face_id, None)
        if not self._kept:
            self._holders.clear()

    def for_s(self, receipt: Receipt) -> float | None:
        """Return for how many seconds the face of a receipt was held; None where it is not held."""
        kept = self._kept.get(receipt.id)
        if kept is None or kept.hash16 != int(receipt.sha256[:_HEX], 16):
            return None
        return self._clock() - kept.since

    def on_hello(self, hello: Hello) -> None:
        """Take note that a process began anew: what was held by the one in whose place it is went with it.

        The same process that connects again has lost nothing, nor have others of its name.
        """
        place = hello.store, hello.instance
        gone = {
            one
            for one in self._holders
            if one.run in hello.lost or (one[:2] == place and (hello.run is None or one.run != hello.run))
        }
        lost = [Resend(kept.row, face_id) for face_id, kept in self._kept.items() if kept.holder in gone]
        for holder in gone:
            del self._holders[holder]
        for again in lost:
            del self._kept[again.id]
        if lost:
            self._lost.append((self._clock() + random.uniform(0, _SPREAD_S), lost))  # noqa: S311 - jitter

    def due(self) -> list[Resend]:
        """Return what is to be sent again from now on; it is held no more."""
        now = self._clock()
        found = []
        while self._kept:
            face_id, kept = next(iter(self._kept.items()))
            if kept.since > now - LAST_S:
                break
            del self._kept[face_id]
            found.append(Resend(kept.row, face_id))
        found += [again for at, lost in self._lost if at <= now for again in lost]
        self._lost = [(at, lost) for at, lost in self._lost if at > now]
        return found
