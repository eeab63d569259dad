"""The faces of all cameras in the order of time, from the bucket's own order: few partitions are listed."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from facerelay.cloud import keys
from facerelay.cloud.gallery.counted import counting
from facerelay.cloud.gallery.listings import Listings, hour_of

MOST_REQUESTS: Final = 400
"""Of one page, before the last wave of at most 64 more."""

_END: Final = "~"
"""Sorts after all that a stamp can hold."""

OPEN_S: Final = 1.0
"""A listing of what is being written now is no older than this."""

CLOSED_S: Final = 30.0
"""Nor is one of an hour that has ended: faces come late after an outage."""

SITES_S: Final = 5.0
"""Nor is one of sites."""

CAMERAS_S: Final = 30.0
"""Nor is one of a site's cameras; while somebody listens, they are looked at more often."""

_FAR_S: Final = 10.0
_MANY: Final = 100
_EACH_S: Final = 0.01
"""So much older a listing may be for each partition that is to be opened beyond `_MANY`: else those of very
many would all be too old before the last one is read, page after page."""

_LATE: Final = timedelta(minutes=2)
_WAVE: Final = 64
_MOST_AHEAD: Final = 16


class Spot(NamedTuple):
    """A face's place in the order of time: `2026-11-21T150304.000123`, and its key."""

    stamp: str
    key: str


TOP: Final = Spot(_END, _END)
"""After all faces."""

BOTTOM: Final = Spot("", "")
"""Before all faces."""


class _Node(NamedTuple):
    """A partition not yet opened; `edge` is the first stamp that it can hold, as the walk goes."""

    edge: str
    prefix: str


@dataclass(slots=True)
class Stretch:
    """Faces in the order of the walk.

    Attributes:
        spots: them.
        reached: the stamp up to which no face is left out; None: there are no more.
    """

    spots: list[Spot] = field(default_factory=list)
    reached: str | None = None


class _Ahead:
    """Says how many hours to open at once, so that a bucket far away with few faces is not asked in turn.

    As many as are likely to be needed by the faces of those opened before, and at most twice as many as
    the last time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._hours: set[str] = set()
        self._last = 0

    def edges(self, found: int) -> int:
        """Return how many, when so many faces are found."""
        if not self._hours:
            return 1
        likely = (self._most - found) * len(self._hours) // max(1, found) + 1
        self._last = max(1, min(likely, 2 * self._last, _MOST_AHEAD))
        return self._last

    def note(self, wave: Sequence[_Node]) -> None:
        """Take note of what was opened."""
        self._hours |= {node.edge for node in wave if hour_of(node.prefix)}
        self._last = max(1, self._last)


class Walk:
    """Goes through faces by time, over all cameras or those that are asked for.

    A partition is opened only when no face that was found can be before all that it may hold. So a stretch
    costs about two listings a camera, less what is still known.

    Args:
        listings: of the bucket.
        site: its name; None for all.
        camera: its name; None for all.
        back: newest first; else oldest first.
    """

    def __init__(
        self,
        listings: Listings,
        *,
        site: str | None = None,
        camera: str | None = None,
        back: bool = True,
    ) -> None:
        self._listings = listings
        self._site = site
        self._camera = camera
        self._back = back

    async def stretch(
        self, start: Spot, most: int, *, requests: int = MOST_REQUESTS, until: Spot | None = None
    ) -> Stretch:
        """Return the next faces past `start`, which is not among them.

        Args:
            start: where the last stretch ended.
            most: faces, at most.
            requests: where so many are spent, it ends early: by no more than a wave of them later.
            until: beyond that, one face is enough.

        Raises:
            BucketError: the bucket cannot be read.
        """
        found: list[Spot] = []
        ahead = _Ahead(most)
        pending = [_Node(start.stamp, keys.ROOT)]
        widest = 1
        with counting() as tally:
            while pending:
                widest = max(widest, len(pending))
                edge = self._first(node.edge for node in pending)
                enough = 1 if until and self._is_before(until.stamp, edge) else most
                if len(found) >= enough and self._is_before(found[enough - 1].stamp, edge):
                    break
                if tally.requests >= requests:
                    sure = [spot for spot in found if self._is_before(spot.stamp, edge)]
                    return Stretch(sure[:most], edge if len(sure) < most else sure[most - 1].stamp)
                wave = self._wave(pending, ahead.edges(len(found)))
                opened = await asyncio.gather(*(self._open(node.prefix, start, widest) for node in wave))
                ahead.note(wave)
                found = self._sorted([*found, *(spot for spots, _ in opened for spot in spots)], most)
                done = set(wave)
                pending = [node for node in pending if node not in done]
                pending += [node for _, nodes in opened for node in nodes]
        ended = not pending and len(found) <= most
        if until and pending:
            found = [spot for spot in found if self._is_before(spot.stamp, edge)]
        return Stretch(found[:most], None if ended else found[:most][-1].stamp)

    def _wave(self, pending: Sequence[_Node], edges: int) -> list[_Node]:
        """Return the partitions to open next: those of the first so many edges."""
        chosen = set(sorted({node.edge for node in pending}, reverse=self._back)[:edges])
        wave = [node for node in pending if node.edge in chosen]
        return sorted(wave, key=lambda node: node.edge, reverse=self._back)[:_WAVE]

    async def cameras(self) -> dict[str, list[str]]:
        """Return the cameras of each site.

        Raises:
            BucketError: the bucket cannot be read.
        """
        sites = await self._listings.names(keys.ROOT, age_s=SITES_S)
        wanted = [site for site in sites if self._site in {None, site}]
        found = await asyncio.gather(
            *(self._listings.names(f"{keys.ROOT}/site={site}", age_s=CAMERAS_S) for site in wanted)
        )
        cameras = ([camera for camera in each if self._camera in {None, camera}] for each in found)
        return {site: each for site, each in zip(wanted, cameras, strict=True) if each}

    async def prefixes(self) -> list[str]:
        """Return the prefix of each camera."""
        return [
            f"{keys.ROOT}/site={site}/camera={camera}"
            for site, cameras in (await self.cameras()).items()
            for camera in cameras
        ]

    async def _open(self, prefix: str, start: Spot, widest: int) -> tuple[list[Spot], list[_Node]]:
        """Return what lies in a partition, one of so many: faces, or further partitions."""
        listed = await self._listings.level(prefix, age_s=max(age(prefix), (widest - _MANY) * _EACH_S))
        if hour := hour_of(prefix):
            date = hour[-18:-8]
            if listed.busy:
                minutes = _until_now(hour, listed.names)
                return [], self._nodes(((f"{hour}/{each}", f"{date}T{each}") for each in minutes), start)
            spots = [Spot(f"{date}T{name[:13]}", f"{hour}/{name}") for name in listed.names]
            return [spot for spot in spots if self._is_past(spot, start)], []
        level = list(keys.LEVELS)[prefix.count("/")]
        below = [(name, f"{prefix}/{level}={name}") for name in listed.names]
        if level in {"site", "camera"}:
            asked = self._site if level == "site" else self._camera
            return [], [_Node(start.stamp, each) for name, each in below if asked in {None, name}]
        date = "" if level == "date" else f"{prefix[-10:]}T"
        return [], self._nodes(((each, f"{date}{name}") for name, each in below), start)

    def _nodes(self, parts: Iterable[tuple[str, str]], start: Spot) -> list[_Node]:
        """Return the partitions that may hold faces past `start`, by what their stamps begin with."""
        latest = keys.tomorrow()
        found = []
        for prefix, begin in parts:
            end = begin + _END
            if begin[:10] <= latest and (begin <= start.stamp if self._back else end >= start.stamp):
                edge = min(end, start.stamp) if self._back else max(begin, start.stamp)
                found.append(_Node(edge, prefix))
        return found

    def _is_past(self, spot: Spot, start: Spot) -> bool:
        return spot < start if self._back else spot > start

    def _is_before(self, stamp: str, edge: str) -> bool:
        """Whether a face comes before all that a partition may hold."""
        return stamp > edge if self._back else stamp < edge

    def _first(self, edges: Iterable[str]) -> str:
        return max(edges) if self._back else min(edges)

    def _sorted(self, spots: Sequence[Spot], most: int) -> list[Spot]:
        """Return the first ones, and one more, which tells that there are more."""
        choose = heapq.nlargest if self._back else heapq.nsmallest
        return choose(most + 1, spots)


def age(prefix: str) -> float:
    """Return how old, in seconds, a listing may be: that of the present hour is looked at again at once."""
    parts = prefix.split("/")
    if len(parts) <= len(keys.LEVELS) - 1:
        return (SITES_S, CAMERAS_S, _FAR_S)[len(parts) - 1]
    moment = f"{datetime.now(UTC) - _LATE:%Y-%m-%dT%H%M}"
    begin = "T".join(
        [parts[3].removeprefix("date="), *(part.removeprefix("hour=") for part in parts[4:][-1:])]
    )
    return OPEN_S if begin >= moment[: len(begin)] else CLOSED_S


def _until_now(hour: str, minutes: Sequence[str]) -> Sequence[str]:
    """Return the minutes of an hour that may have faces: time goes on while they are remembered."""
    now = f"{datetime.now(UTC):%Y-%m-%dT%H%M}"
    if f"{hour[-18:-8]}T{hour[-2:]}" != now[:13]:
        return minutes
    return [f"{hour[-2:]}{minute:02}" for minute in range(max(len(minutes), int(now[-2:]) + 1))]


def spot_of(key: str) -> Spot | None:
    """Return the place of a face; None where it is not a face's key."""
    if keys.parse(key) is None:
        return None
    prefix, _, name = key.rpartition("/")
    return Spot(f"{prefix[-18:-8]}T{name[:13]}", key)


def spot_at(at: datetime) -> Spot:
    """Return the place just after all faces of a time."""
    try:
        text = at.astimezone(UTC).isoformat(timespec="microseconds")
    except OverflowError:  # the first day or the last that there is
        text = at.isoformat(timespec="microseconds")
    return Spot(text[:26].replace(":", ""), _END)


def time_of(stamp: str) -> str:
    """Return a stamp, or the beginning of one, as ISO 8601; what it lacks is the latest that it can be."""
    date, _, clock = stamp.partition("T")
    digits = clock.rstrip(_END)
    hour, minute, rest = digits[:2] or "23", digits[2:4] or "59", digits[4:] or "59.999999"
    return f"{date}T{hour}:{minute}:{rest}+00:00"
