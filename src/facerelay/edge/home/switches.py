"""Which cameras are paused: kept beside the books, so that what was switched off stays off."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Final

from facerelay.edge.outbox import Outbox
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

ON: Final = b"ON"
OFF: Final = b"OFF"
_NOTE: Final = "paused"


class Switches:
    """A switch a camera.

    Args:
        outbox: keeps them.
        changed: is told of each camera whose switch was turned.
    """

    def __init__(self, outbox: Outbox, *, changed: Callable[[str], None]) -> None:
        self._outbox = outbox
        self._changed = changed
        self._off: set[str] = set()
        self._events: dict[str, threading.Event] = {}
        self._news = False
        self._turned: set[str] = set()
        self._seldom = Seldom(log)

    async def load(self) -> None:
        """Begin with the switches as they were left."""
        try:
            noted = await asyncio.wrap_future(self._outbox.noted(_NOTE))
            names = json.loads(noted or "[]")
        except ValueError:
            names = []
        self._off = {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()

    def paused(self, camera: str) -> threading.Event:
        """Return what is set while a camera is paused."""
        if camera not in self._events:
            self._events[camera] = threading.Event()
            if camera in self._off:
                self._events[camera].set()
                log.warning("camera %s is paused, as its switch was left: nothing is looked at", camera)
        return self._events[camera]

    def state(self, camera: str) -> bytes:
        """Return how a camera's switch stands."""
        return OFF if camera in self._off else ON

    def turn(self, camera: str, payload: bytes) -> None:
        """Obey a command; one of another camera, or neither ON nor OFF, is passed over."""
        if camera not in self._events or payload not in (ON, OFF):
            return
        if payload != self.state(camera):
            (self._off.add if payload == OFF else self._off.discard)(camera)
            (self._events[camera].set if payload == OFF else self._events[camera].clear)()
            self._news = True
            self._turned.add(camera)
        self._changed(camera)

    async def save(self) -> None:
        """Write down how the switches stand, if one was turned, and log it; however often it was, once."""
        for camera in sorted(self._turned):
            stands = "paused" if camera in self._off else "at work"
            log.warning("camera %s is %s by its switch", camera, stands)
        self._turned.clear()
        if not self._news:
            return
        self._news = False
        try:
            await asyncio.wrap_future(self._outbox.note(_NOTE, json.dumps(sorted(self._off))))
        except sqlite3.Error as error:
            self._news = True
            form = "the outbox: %s: a switch stands only until the next start"
            self._seldom.say(logging.ERROR, "disk", form, error)
