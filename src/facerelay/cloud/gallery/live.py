"""New faces as they land, told to all who listen: one watcher for all of them, and none while nobody does."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from facerelay.cloud import keys
from facerelay.cloud.contract import BucketError
from facerelay.cloud.gallery.listings import Change, Listings
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

MOST_LISTENERS: Final = 40
_QUEUE: Final = 400
_MOST_OF_A_CHANGE: Final = 200
_MOST_NUDGES: Final = 50
"""Hours of sites to look at; where receipts name more, all cameras are looked at as without them."""

_REMEMBERED: Final = 2_000
_PING_S: Final = 15.0
_REST: Final = 3
_NET_S: Final = 30.0
"""With receipts to go by, the bucket is looked at all the same after so long."""

_GATHER_S: Final = 0.1
_SLOW_S: Final = 5.0
_AWAKE_S: Final = 600.0
_FEW_SITES: Final = 4
_LATE: Final = timedelta(minutes=2)
_MINUTE: Final = timedelta(minutes=1)


@dataclass(eq=False, slots=True)
class _Listener:
    """Who listens, to what; `queue` ends with None when it is to be sent away."""

    site: str | None
    camera: str | None
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE))


class Live:
    """Tells listeners of faces that appear and vanish, by looking at the partitions in which they would.

    A look lists, of each camera, the present hour, and now and then its latest one, for clocks that are
    wrong. Looks are `look_s` apart, and three times as far as the last one took. Where somebody nudges it
    (a receipt names a site and a time), it looks there, and everywhere else only every half minute.

    Args:
        listings: tell it what changed.
        describe: makes a face, as JSON has it, from its key.
        is_erased: whether a face is not to be told of.
        look_s: seconds between looks.
        beside: done before each look, such as looking at new tombstones.
        landed: returns the hours' partitions in which many faces appeared at once since it was asked.
    """

    def __init__(
        self,
        listings: Listings,
        *,
        describe: Callable[[str], dict[str, Any]],
        is_erased: Callable[[str], bool],
        look_s: float,
        beside: Callable[[], Awaitable[None]],
        landed: Callable[[], Awaitable[set[str]]],
    ) -> None:
        self._listings = listings
        self._describe = describe
        self._is_erased = is_erased
        self._look_s = look_s
        self._beside = beside
        self._landed = landed
        self._listeners: set[_Listener] = set()
        self._watching: asyncio.Task[None] | None = None
        self._told_gone: OrderedDict[str, None] = OrderedDict()
        self._nudged: set[str] = set()
        self._nudge = asyncio.Event()
        self._changed_at: dict[str, float] = {}
        self._slow_at = self._full_at = -float("inf")
        self._latest: list[str] = []
        self._seldom = Seldom(log, every_s=60)
        self.nudges: Callable[[], bool] = lambda: False
        """Whether somebody nudges it reliably now."""

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    async def listen(
        self, *, site: str | None = None, camera: str | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events: `hello`, then `face` and `erased`, and comments in between.

        Who does not take them as they come is sent away, and may come again; so is who is one too many.
        """
        if self.full():
            return
        listener = self._enter(site, camera)
        try:
            yield b"retry: 2000\n" + _event("hello", {})
            while True:
                try:
                    async with asyncio.timeout(_PING_S):
                        event = await listener.queue.get()
                except TimeoutError:
                    event = b": still here\n\n"
                if event is None:
                    return
                yield event
        finally:
            self._leave(listener)

    def full(self) -> bool:
        """Whether nobody else may listen."""
        return len(self._listeners) >= MOST_LISTENERS

    def nudge(self, site: str, at: datetime) -> None:
        """Say that faces of a site have landed which were taken about that time."""
        if self._listeners:
            for moment in {f"{at + shift:%Y-%m-%dT%H}" for shift in (timedelta(), -_LATE)}:
                self._nudged.add(f"{keys.ROOT}/site={site}|date={moment[:10]}/hour={moment[11:]}")
            if len(self._nudged) > _MOST_NUDGES:
                self._nudged.clear()
                self._full_at = -float("inf")
            self._nudge.set()

    def tell(self, change: Change) -> None:
        """Take note of a change in a partition."""
        if not self._listeners:
            return
        self._changed_at[change.prefix] = time.monotonic()
        for name in sorted(change.added)[-_MOST_OF_A_CHANGE:]:
            key = f"{change.prefix}/{name}"
            if not self._is_erased(key):
                self._told_gone.pop(key, None)
                self._send("face", key, self._describe(key))
        for name in change.gone:
            self.tell_erased(f"{change.prefix}/{name}")

    def tell_erased(self, key: str) -> None:
        """Say that a face is gone, once: its tombstone, its deletion and the next listing all tell of it."""
        if not self._listeners or key in self._told_gone:
            return
        self._told_gone[key] = None
        if len(self._told_gone) > _REMEMBERED:
            self._told_gone.popitem(last=False)
        self._send("erased", key, {"key": key})

    async def close(self) -> None:
        """Send everybody away."""
        for listener in list(self._listeners):
            self._dismiss(listener)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            self._watching = None

    def _enter(self, site: str | None, camera: str | None) -> _Listener:
        listener = _Listener(site, camera)
        self._listeners.add(listener)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
            self._watching.add_done_callback(self._ended)
        return listener

    def _leave(self, listener: _Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Send everybody away if the watcher fell: they come again, and there is a new one."""
        if task.cancelled():
            return
        log.error("the watcher for new faces fell", exc_info=task.exception())
        self._watching = None
        for listener in list(self._listeners):
            self._dismiss(listener)

    def _send(self, name: str, key: str, data: dict[str, Any]) -> None:
        facts = keys.parse(key)
        if facts is None:
            return
        event = _event(name, data)
        for listener in list(self._listeners):
            if listener.site in {None, facts.site} and listener.camera in {None, facts.camera}:
                try:
                    listener.queue.put_nowait(event)
                except asyncio.QueueFull:
                    self._dismiss(listener)

    def _dismiss(self, listener: _Listener) -> None:
        """Send one away: its events are thrown away, and the end put in their place."""
        self._listeners.discard(listener)
        while not listener.queue.empty():
            listener.queue.get_nowait()
        listener.queue.put_nowait(None)

    async def _watch(self) -> None:
        """Look until nobody listens; a bucket that fails is looked at more seldom."""
        while True:
            begin = time.monotonic()
            try:
                await self._beside()
                await self._look_as_due(begin)
            except BucketError as error:
                self._seldom.say(logging.WARNING, "look", "the gallery cannot look for new faces: %s", error)
                await asyncio.sleep(_SLOW_S)
            await self._rest(time.monotonic() - begin)

    async def _look_as_due(self, now: float) -> None:
        if not self.nudges() or now - self._full_at >= _NET_S:
            self._full_at = now
            await self._look()
        elif self._nudged:
            await self._look_where_nudged()

    async def _rest(self, took: float) -> None:
        if not self.nudges():
            await asyncio.sleep(max(self._look_s - took, _REST * took))
            return
        await asyncio.sleep(max(_GATHER_S, _REST * took))
        with suppress(TimeoutError):
            async with asyncio.timeout(_SLOW_S):
                await self._nudge.wait()
        self._nudge.clear()

    async def _look(self) -> None:
        cameras = await self._cameras()
        now, monotonic = datetime.now(UTC), time.monotonic()
        if monotonic - self._slow_at >= _SLOW_S:
            self._slow_at = monotonic
            self._latest = await self._latest_hours(cameras)
            wanted = set(self._latest)
        else:
            wanted = {hour for hour in self._latest if monotonic - self._changed_at.get(hour, 0) < _AWAKE_S}
        self._changed_at = {k: at for k, at in self._changed_at.items() if monotonic - at < _AWAKE_S}
        for moment in {now, now - _LATE}:
            wanted |= {f"{camera}/date={moment:%Y-%m-%d}/hour={moment:%H}" for camera in cameras}
        await self._refresh(wanted | await self._landed())

    async def _look_where_nudged(self) -> None:
        nudged, self._nudged = self._nudged, set()
        wanted = set()
        for one in nudged:
            site, _, rest = one.partition("|")
            cameras = await self._listings.names(site, age_s=_SLOW_S)
            wanted |= {f"{site}/camera={camera}/{rest}" for camera in cameras}
        await self._refresh(wanted | await self._landed())

    async def _refresh(self, wanted: set[str]) -> None:
        now = datetime.now(UTC)
        levels = await asyncio.gather(*(self._listings.level(hour, age_s=0) for hour in wanted))
        busy = [hour for hour, level in zip(wanted, levels, strict=True) if level.busy]
        minutes = {f"{hour}/{moment:%H%M}" for hour in busy for moment in (now, now - _MINUTE)}
        present = [minute for minute in minutes if minute[-4:-2] == minute[-7:-5]]
        await asyncio.gather(*(self._listings.level(minute, age_s=0) for minute in present))

    async def _cameras(self) -> list[str]:
        """Return the prefixes of all cameras; where there are few sites, a new one is seen at once."""
        age_s = self._look_s / 2
        sites = await self._listings.names(keys.ROOT, age_s=age_s)
        age_s = age_s if len(sites) <= _FEW_SITES else _SLOW_S
        prefixes = [f"{keys.ROOT}/site={site}" for site in sites]
        found = await asyncio.gather(*(self._listings.names(each, age_s=age_s) for each in prefixes))
        return [
            f"{site}/camera={camera}" for site, each in zip(prefixes, found, strict=True) for camera in each
        ]

    async def _latest_hours(self, cameras: list[str]) -> list[str]:
        found = await asyncio.gather(*map(self._latest_hour, cameras))
        return [hour for hour in found if hour]

    async def _latest_hour(self, camera: str) -> str | None:
        latest = keys.tomorrow()
        dates = [one for one in await self._listings.names(camera, age_s=_SLOW_S) if one <= latest]
        if not dates:
            return None
        date = f"{camera}/date={dates[-1]}"
        hours = await self._listings.names(date, age_s=_SLOW_S)
        return f"{date}/hour={hours[-1]}" if hours else None


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
