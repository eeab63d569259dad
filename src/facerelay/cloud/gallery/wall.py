"""Pages of the wall, a face among its neighbours, and the timeline: all from the bucket's own order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from facerelay.cloud import keys
from facerelay.cloud.gallery import asked, reading
from facerelay.cloud.gallery.asked import Asked
from facerelay.cloud.gallery.cache import Learnt
from facerelay.cloud.gallery.counted import counting
from facerelay.cloud.gallery.listings import Listings
from facerelay.cloud.gallery.obeying import Obedience
from facerelay.cloud.gallery.reading import Reader
from facerelay.cloud.gallery.walk import MOST_REQUESTS, TOP, Spot, Stretch, Walk, spot_at, spot_of, time_of

MOST_READS: Final = 240
"""Faces that one page reads to learn their quality, at most."""

_MOST_SCANNED: Final = 3_000
_STRIDE: Final = 240
_NEIGHBOURS: Final = 20
_VISIT: Final = timedelta(minutes=10)


@dataclass(slots=True)
class _Shown:
    """What a page shows so far, and how far down it is sure."""

    faces: list[dict[str, Any]]
    reads: int = 0
    scanned: int = 0


class Wall:
    """Answers what pages ask, within a bound of requests each."""

    def __init__(self, listings: Listings, reader: Reader, obedience: Obedience) -> None:
        self._listings = listings
        self._reader = reader
        self._obedience = obedience

    async def places(self) -> dict[str, Any]:
        """Return the sites and their cameras."""
        found = await Walk(self._listings).cameras()
        return {"sites": [{"site": site, "cameras": cameras} for site, cameras in found.items()]}

    async def page(self, wanted: Asked) -> dict[str, Any]:
        """Return a page of faces, newest first, and where the next one begins.

        It may hold fewer than were asked for, or none, and have a next one: then its requests are spent.

        Raises:
            BucketError: the bucket cannot be read.
        """
        walk = Walk(self._listings, site=wanted.site, camera=wanted.camera)
        looking = asyncio.create_task(self._obedience.look())  # meanwhile, not afterwards
        try:
            return await self._page(walk, wanted)
        finally:
            await asyncio.gather(looking, return_exceptions=True)

    async def _page(self, walk: Walk, wanted: Asked) -> dict[str, Any]:
        shown = _Shown([])
        start: Spot | None = wanted.start
        stride = wanted.limit
        with counting() as tally:
            while start is not None and len(shown.faces) < wanted.limit:
                stretch = await walk.stretch(start, stride, requests=MOST_REQUESTS - tally.requests)
                stride = min(2 * stride, _STRIDE)
                start = await self._take(shown, stretch, wanted, start)
                spent = tally.requests >= MOST_REQUESTS or shown.scanned >= _MOST_SCANNED
                if spent or shown.reads >= MOST_READS:
                    break
        return {
            "faces": shown.faces,
            "next": start and asked.cursor_of(start),
            "searched_to": time_of(start.stamp) if start and start.stamp[:1].isdecimal() else None,
        }

    async def _take(self, shown: _Shown, stretch: Stretch, wanted: Asked, start: Spot) -> Spot | None:
        """Show what is wanted of the stretch past `start`; return where to go on, or None at the end."""
        chosen = await self._obedience.left([spot.key for spot in stretch.spots])
        known = await self._reader.known(chosen)
        if wanted.quality:
            unknown = [key for key in chosen if key not in known][: MOST_READS - shown.reads]
            shown.reads += len(unknown)
            known |= await self._reader.learn(unknown)
            known |= {key: Learnt() for key in unknown if key not in known}  # gone since it was listed
        shown.scanned += len(chosen)
        begin = start
        for key in chosen:
            if wanted.quality and key not in known:
                return start
            if not wanted.quality or (known[key].quality or 0) >= wanted.quality:
                shown.faces.append(reading.describe(key, known))
            start = spot_of(key) or start
            if len(shown.faces) == wanted.limit:
                return None if stretch.reached is None and key == chosen[-1] else start
        if stretch.reached is None:
            return None
        last = stretch.spots[-1] if stretch.spots else None
        return last if last and last.stamp == stretch.reached else min(begin, Spot(stretch.reached, TOP.key))

    async def neighbours(self, key: str, learnt: Learnt) -> dict[str, Any]:
        """Return the faces before and after one at its camera, and those of its visit in time's order."""
        before, after = await asyncio.gather(self._beside(key, back=True), self._beside(key, back=False))
        near = [one for one in [*reversed(before), *after] if _apart(one, key) <= _VISIT]
        known = await self._reader.known(near) | {key: learnt}
        known |= await self._reader.learn([one for one in near if one not in known])
        same = [one for one in near if learnt.visit and one in known and known[one].visit == learnt.visit]
        return {
            "earlier": reading.describe(before[0], known) if before else None,
            "later": reading.describe(after[0], known) if after else None,
            "visit": [reading.describe(one, known) for one in sorted([*same, key], key=_name)],
        }

    async def _beside(self, key: str, *, back: bool) -> Sequence[str]:
        facts, spot = keys.parse(key), spot_of(key)
        if facts is None or spot is None:
            return ()
        walk = Walk(self._listings, site=facts.site, camera=facts.camera, back=back)
        try:
            edge = spot_at(facts.time - _VISIT if back else facts.time + _VISIT)
        except OverflowError:  # the first minutes or the last that there are
            edge = spot
        stretch = await walk.stretch(spot, _NEIGHBOURS, until=edge)
        return await self._obedience.left([one.key for one in stretch.spots])


def _apart(one: str, other: str) -> timedelta:
    first, second = keys.parse(one), keys.parse(other)
    return abs(first.time - second.time) if first and second else timedelta.max


def _name(key: str) -> str:
    return key.rpartition("/")[2]
