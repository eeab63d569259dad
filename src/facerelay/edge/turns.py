"""Whose live face goes next: in each round a camera sends its best one, and the best of all goes first.

So a camera in poor light is not starved by one in good light, and of each the best arrives. A round ends when
no live face is left of a camera that has not sent in it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final

Camera = tuple[str, str]
_STALE: Final = 64


@dataclass(slots=True)
class _Queue:
    """A camera's faces, the best first; one that left is passed over when it comes to the front."""

    round: int
    faces: list[tuple[float, int, str]] = field(default_factory=list)
    count: int = 0


class Turns:
    """The order of live faces, by their ids; a handful of heap operations for each."""

    def __init__(self) -> None:
        self._where: dict[str, Camera] = {}
        self._queues: dict[Camera, _Queue] = {}
        self._heads: list[tuple[int, float, int, str]] = []
        self._round = 0
        self._sent: set[Camera] = set()

    def add(self, face_id: str, camera: Camera, *, quality: float, row: int) -> None:
        """Take in a face; of two that are as good the one of the lower row is the better."""
        queue = self._queues.get(camera)
        if queue is None:
            queue = self._queues[camera] = _Queue(self._round + (camera in self._sent))
        entry = (-quality, row, face_id)
        heapq.heappush(queue.faces, entry)
        queue.count += 1
        self._where[face_id] = camera
        if queue.faces[0] is entry:
            heapq.heappush(self._heads, (queue.round, *entry))

    @property
    def first(self) -> str | None:
        """The face whose turn it is; None where there is none."""
        while self._heads:
            number, *_, face_id = self._heads[0]
            if camera := self._where.get(face_id):
                queue = self._queues[camera]
                if queue.round == number and queue.faces[0][2] == face_id:
                    return face_id
            heapq.heappop(self._heads)
        return None

    def sent(self, face_id: str) -> None:
        """Let the first face go: its camera has had its turn in this round."""
        camera = self._where[face_id]
        queue = self._queues[camera]
        if queue.round > self._round:
            self._round = queue.round
            self._sent.clear()
        self._sent.add(camera)
        queue.round += 1
        self.drop(face_id)

    def drop(self, face_id: str) -> None:
        """Let a face go that was not sent: its camera keeps its turn."""
        camera = self._where.pop(face_id)
        queue = self._queues[camera]
        queue.count -= 1
        if not queue.count:
            del self._queues[camera]
        elif queue.faces[0][2] == face_id:
            while queue.faces[0][2] not in self._where:
                heapq.heappop(queue.faces)
            heapq.heappush(self._heads, (queue.round, *queue.faces[0]))
        self._tidy(queue)

    def _tidy(self, queue: _Queue) -> None:
        """Keep what has left from filling the heaps."""
        if len(queue.faces) > 2 * queue.count + _STALE:
            queue.faces = [entry for entry in queue.faces if entry[2] in self._where]
            heapq.heapify(queue.faces)
        if len(self._heads) > 2 * len(self._queues) + _STALE:
            self._heads = [(each.round, *each.faces[0]) for each in self._queues.values()]
            heapq.heapify(self._heads)
