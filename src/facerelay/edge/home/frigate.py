"""Faces on Frigate's topics, for automations that were written for it.

Source: Frigate, "MQTT", topics `available`, `events`, `<camera>/<object>`, `<camera>/<object>/snapshot`,
`<camera>/detect/set` and `/state`.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import Any, Final

from facerelay.edge.home.assistant import OFFLINE, ONLINE
from facerelay.edge.home.board import Board
from facerelay.edge.home.switches import Switches
from facerelay.edge.home.witness import Captured, Ended, News
from facerelay.face import Face
from facerelay.mqtt import Message

_NOT_KNOWN: Final[dict[str, Any]] = {
    "sub_label": None, "false_positive": False, "current_zones": [], "entered_zones": [], "thumbnail": None,
    "has_snapshot": False, "has_clip": False, "stationary": False, "motionless_count": 0,
    "position_changes": 0, "attributes": {}, "current_attributes": [],
}  # fmt: skip
"""Fields that Frigate has and facerelay does not: always so, for templates that read them."""


class Frigate:
    """Says of each visit what Frigate would: that it began, got a better picture, and ended.

    Args:
        prefix: of all topics.
        label: what a face is called.
        board: where it is said.
        switches: how each camera's stands.
        images: whether snapshots are published.
    """

    def __init__(self, *, prefix: str, label: str, board: Board, switches: Switches, images: bool) -> None:
        self._prefix = prefix
        self._label = label
        self._board = board
        self._switches = switches
        self._images = images
        self._cameras: set[str] = set()
        self._visits: dict[tuple[str, int], dict[str, Any]] = {}
        self._board.keep(self.available, ONLINE)

    @property
    def available(self) -> str:
        """Where capture says that it is there."""
        return f"{self._prefix}/available"

    @property
    def commands(self) -> str:
        """The filter of the cameras' switches."""
        return f"{self._prefix}/+/detect/set"

    def appear(self, camera: str) -> None:
        """Tell of a camera; the face of an earlier run goes off the broker."""
        self._cameras.add(camera)
        self._board.show(self._topic(camera, self._label, "snapshot"), b"")
        self.switched(camera)
        self._count(camera)

    def switched(self, camera: str) -> None:
        """Tell how a camera's switch stands."""
        self._board.keep(self._topic(camera, "detect", "state"), self._switches.state(camera))

    def take(self, news: News) -> None:
        """Tell of a face, or of a visit's end."""
        if isinstance(news, Ended):
            self._end(news)
        else:
            self._show(news)

    def hear(self, message: Message) -> None:
        """Act on a switch that was turned, not on one that was kept of old."""
        if message.retain:
            return
        for camera in self._cameras:
            if message.topic == self._topic(camera, "detect", "set"):
                self._switches.turn(camera, message.payload)

    async def leave(self) -> None:
        """Say that nobody watches any more, and take off the faces."""
        self._board.keep(self.available, OFFLINE)
        await self._board.leave()

    def _show(self, news: Captured) -> None:
        face = news.frozen.face
        visit = face.camera, face.track
        before = self._visits.get(visit)
        after = tracked(face, label=self._label, began=news.began, before=before)
        self._visits[visit] = after
        if self._images:
            self._board.show(self._topic(face.camera, self._label, "snapshot"), news.frozen.data)
        self._say("new" if before is None else "update", before or after, after)
        if before is None:
            self._count(face.camera)

    def _end(self, news: Ended) -> None:
        before = self._visits.pop((news.camera, news.track), None)
        if before is not None:
            end = max(news.last.timestamp(), before["frame_time"])
            self._say("end", before, before | {"end_time": end, "active": False})
            self._count(news.camera)

    def _say(self, kind: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        payload = json.dumps({"type": kind, "before": before, "after": after})
        self._board.say(f"{self._prefix}/events", payload)

    def _count(self, camera: str) -> None:
        """Tell how many there are now whose face was captured."""
        there = Counter(name for name, _ in self._visits)[camera]
        for name in (self._label, "all"):
            self._board.keep(self._topic(camera, name), str(there), retain=False)

    def _topic(self, *levels: str) -> str:
        return "/".join([self._prefix, *levels])


def tracked(
    face: Face, *, label: str, began: datetime, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a visit as Frigate tells of a tracked object.

    Args:
        face: its newest face.
        label: what a face is called.
        began: when the visit did.
        before: what was told of it before.
    """
    x, y, width, height = face.box
    box, region = [x, y, x + width, y + height], [0, 0, *face.frame]
    taken, start = face.time.timestamp(), began.timestamp()
    picture = {
        "frame_time": taken, "box": box, "area": width * height, "region": region,
        "score": round(face.score, 4), "attributes": [],
    }  # fmt: skip
    first = {"id": f"{start:.6f}-{face.id[-6:]}", "start_time": start, "top_score": 0.0}
    known: dict[str, Any] = before or first
    return {
        "id": known["id"], "camera": face.camera, "frame_time": taken, "snapshot": picture, "label": label,
        "top_score": max(known["top_score"], round(face.score, 4)), "start_time": known["start_time"],
        "end_time": None, "score": round(face.score, 4), "box": box, "area": width * height,
        "ratio": round(width / max(1, height), 4), "region": region, "active": True, **_NOT_KNOWN,
        "facerelay": {"id": face.id, "site": face.site, "quality": round(face.quality, 4)},
    }  # fmt: skip
