"""Read the books that edges have told, from the bucket."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from datetime import datetime
from typing import Final

from facerelay.alarms import Report
from facerelay.cloud.contract import Bucket, BucketError
from facerelay.face import SLUG
from facerelay.messages import MOST_PARTS, Ledger, WireError
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

ROOT: Final = "ledger"
PART: Final = r"[1-9][0-9]{0,3}"
KEY: Final = re.compile(rf"{ROOT}/site=({SLUG})/([0-9a-f]{{8,64}})(?:\.({PART}))?\.json")
EMPTY: Final = frozenset({"missing", "too-large"})
"""Faults of an object that is no ledger."""

_MOST_OF_SITE: Final = 250
_MOST_CAMERAS_OF_SITE: Final = 4_000
"""Books of a site beyond these are not read: who may write one site's must not hide all others'."""

_MOST_READ: Final = 5_000
"""Outboxes of all sites together whose books are read: those heard last."""

_AT_ONCE: Final = 16
_seldom = Seldom(log)
_Found = dict[tuple[str, str], dict[int, datetime]]
"""By site and outbox: when each of its parts was written."""


def key_of(site: str, outbox: str, part: int) -> str:
    """Return the key of the books of an outbox, or of a further part of them."""
    return f"{ROOT}/site={site}/{outbox}" + (f".{part}" if part else "") + ".json"


async def read_books(bucket: Bucket) -> AsyncIterator[Report]:
    """Yield what each outbox has reported to the bucket, put together from its parts, and when.

    A part that is not of the same books as the first counts for nothing; one that is not there is logged.
    Of a site with very many outboxes those heard last are read, of very many cameras the first.

    Raises:
        BucketError: the bucket cannot be read.
    """
    found: _Found = {}
    async for entry in bucket.list(ROOT):
        if named := KEY.fullmatch(entry.key):
            site, outbox, part = named.groups(default="0")
            found.setdefault((site, outbox), {})[int(part)] = entry.modified
    places = _latest(found)
    room = Counter({site: _MOST_CAMERAS_OF_SITE for site, _ in found})
    for at in range(0, len(places), _AT_ONCE):
        batch = places[at : at + _AT_ONCE]
        whole = await asyncio.gather(*(_whole(bucket, *place, there) for place, there in batch))
        for ((site, _), there), books in zip(batch, whole, strict=True):
            if books:
                yield Report(site, _fitted(site, books, room), there.get(0))


async def read_outbox(bucket: Bucket, site: str, outbox: str) -> Ledger | None:
    """Return what one outbox has reported to the bucket; None where it has not.

    Raises:
        BucketError: the bucket cannot be read.
    """
    begin = f"{ROOT}/site={site}/{outbox}"
    found = set()
    async with aclosing(bucket.list(f"{ROOT}/site={site}", after=begin)) as entries:  # type: ignore[type-var]
        async for entry in entries:
            if not entry.key.startswith(f"{begin}."):
                break
            found.add(entry.key)
    there = [part for part in range(MOST_PARTS) if key_of(site, outbox, part) in found]
    return await _whole(bucket, site, outbox, there) if there[:1] == [0] else None


def _latest(found: _Found) -> list[tuple[tuple[str, str], dict[int, datetime]]]:
    """Return the outboxes that were heard last, of each site so many at most."""
    order = sorted(found.items(), key=lambda each: max(each[1].values()), reverse=True)
    places, seen = [], Counter[str]()
    for place, there in order:
        seen[place[0]] += 1
        if seen[place[0]] <= _MOST_OF_SITE:
            places.append((place, there))
    for site, n in seen.items():
        if n > _MOST_OF_SITE:
            form = "site %s has the books of %d outboxes: %d are read"
            _seldom.say(logging.WARNING, "outboxes", form, site, n, _MOST_OF_SITE)
    if len(places) > _MOST_READ:
        form = "the books of %d outboxes: the %d heard last are read"
        _seldom.say(logging.WARNING, "all", form, len(places), _MOST_READ)
    return sorted(places[:_MOST_READ], key=lambda each: each[0])


def _fitted(site: str, books: Ledger, room: Counter[str]) -> Ledger:
    """Return the books with as many cameras as there is still room for at their site."""
    left = room[site]
    room[site] -= min(left, len(books.cameras))
    if len(books.cameras) <= left:
        return books
    form = "site %s has the books of more than %d cameras: read no further"
    _seldom.say(logging.WARNING, "cameras", form, site, _MOST_CAMERAS_OF_SITE)
    return books.model_copy(update={"cameras": dict(list(books.cameras.items())[:left])})


async def _whole(bucket: Bucket, site: str, outbox: str, there: Collection[int]) -> Ledger | None:
    """Put the books of an outbox together from the parts that are there."""
    head = await _read(bucket, key_of(site, outbox, 0))
    if head is None:
        return None
    cameras = dict(head.cameras)
    missing = 0
    for number in range(1, head.parts):
        if len(cameras) > _MOST_CAMERAS_OF_SITE:
            break
        part = await _read(bucket, key_of(site, outbox, number)) if number in there else None
        if part is None or (part.part, part.parts) != (number, head.parts):
            missing += 1
        else:
            cameras |= part.cameras
    if missing:
        form = "the books of outbox %s of site %s are not whole: %d of %d parts have not come yet"
        log.warning(form, outbox, site, missing, head.parts)
    return head.model_copy(update={"cameras": cameras, "parts": 1})


async def _read(bucket: Bucket, key: str) -> Ledger | None:
    """Return a ledger, or None where it is gone meanwhile or cannot be read."""
    try:
        return Ledger.from_bytes(await bucket.get(key, max_bytes=Ledger.most_bytes))
    except (WireError, BucketError) as error:
        if isinstance(error, BucketError) and error.fault not in EMPTY:
            raise
        log.warning("%s: %s: left out", key, error)
        return None
