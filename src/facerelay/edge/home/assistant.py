"""Home Assistant's side: devices that it finds by itself, their states, and a switch for each camera."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Final

from facerelay.edge.home.board import Board
from facerelay.edge.home.discovery import Names, camera_device, site_device
from facerelay.edge.home.switches import Switches
from facerelay.edge.home.today import Today
from facerelay.edge.home.witness import Ended, News
from facerelay.face import Face
from facerelay.messages import Ledger, LinkHealth
from facerelay.mqtt import Message

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
_UNKNOWN: Final = "None"
"""What Home Assistant takes for a state that is not known."""

_BIRTH_S: Final = 3.0
_JITTER: Final = random.Random()  # noqa: S311 - spreads answers, keeps no secret


class Assistant:
    """Says of each camera what Home Assistant shows.

    Args:
        names: topics and ids.
        board: where it is said.
        today: counts.
        switches: how each camera's stands.
        images: whether the last face of a camera is published.
        picture: the format of faces.
    """

    def __init__(
        self,
        *,
        names: Names,
        board: Board,
        today: Today,
        switches: Switches,
        images: bool,
        picture: str,
    ) -> None:
        self._names = names
        self._board = board
        self._today = today
        self._switches = switches
        self._images = images
        self._picture = picture
        self._cameras: set[str] = set()
        self._answer: asyncio.TimerHandle | None = None
        self._keep(names.config(), json.dumps(site_device(names)))
        self._keep(names.available, ONLINE)

    def appear(self, camera: str) -> None:
        """Tell of a camera; the face of an earlier run goes off the broker."""
        self._cameras.add(camera)
        known = camera_device(self._names, camera, images=self._images, picture=self._picture)
        self._keep(self._names.config(camera), json.dumps(known))
        self._board.show(self._names.state("image", camera=camera), b"")
        self._count(camera)
        self.switched(camera)

    def switched(self, camera: str) -> None:
        """Tell how a camera's switch stands."""
        self._keep(self._names.state("capture", camera=camera), self._switches.state(camera))

    def take(self, news: News) -> None:
        """Tell of a face; of the ends of visits nothing is told."""
        if isinstance(news, Ended):
            return
        face = news.frozen.face
        self._count(face.camera)
        if self._images:
            self._board.show(self._names.state("image", camera=face.camera), news.frozen.data)
        self._board.say(self._names.state("face", camera=face.camera), json.dumps(event(face)))

    def linked(self, up: bool | None) -> None:  # noqa: FBT001 - a state, not a switch
        """Tell how the link stands; None is not known."""
        self._keep(self._names.state("link"), {True: "ON", False: "OFF", None: _UNKNOWN}[up])

    def books(self, books: Ledger, health: LinkHealth | None) -> None:
        """Tell what the books say, and how the link does."""
        site = self._names.site
        for camera in self._cameras:
            self._count(camera)
            if account := books.cameras.get(f"{site}/{camera}"):
                for name in ("waiting", "dropped", "refused"):
                    self._keep(self._names.state(name, camera=camera), str(getattr(account, name)))
                self._keep(self._names.state("dark", camera=camera), "ON" if account.dark_since else "OFF")
        self._keep(self._names.state("lost"), _UNKNOWN if books.lost is None else str(books.lost))
        if health is not None:
            self._keep(self._names.state("uplink"), f"{health.up_bytes_s:.0f}")
            self._keep(self._names.state("oldest"), f"{health.oldest_s or 0:.0f}")

    def hear(self, message: Message) -> None:
        """Act on a switch that was turned, and on Home Assistant's return; not on what was kept of old."""
        if message.retain:
            return
        if message.topic == self._names.birth and message.payload == ONLINE and self._answer is None:
            loop = asyncio.get_running_loop()
            self._answer = loop.call_later(_JITTER.uniform(0, _BIRTH_S), self._say_again)
        for camera in self._cameras:
            if message.topic == self._names.command(camera):
                self._switches.turn(camera, message.payload)

    async def leave(self) -> None:
        """Say that nobody watches any more, and take off the faces."""
        self._keep(self._names.available, OFFLINE)
        await self._board.leave()

    def _say_again(self) -> None:
        self._answer = None
        self._board.again()

    def _count(self, camera: str) -> None:
        self._keep(self._names.state("today", camera=camera), str(self._today.of(camera)))

    def _keep(self, topic: str, payload: str | bytes) -> None:
        self._board.keep(topic, payload)


def event(face: Face) -> dict[str, object]:
    """Return what is told of a face: no picture."""
    return {
        "event_type": "face",
        "id": face.id,
        "site": face.site,
        "camera": face.camera,
        "time": face.time.isoformat(),
        "quality": round(face.quality, 4),
        "score": round(face.score, 4),
        "visit": f"{face.run}-{face.track}",
    }
