"""What a face's key says by itself, and how to walk the faces of a bucket by it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud.contract import Bucket, Children
from facerelay.face import FACE_ID, SLUG, Frozen

ROOT: Final = "faces"

_KEY: Final = re.compile(
    rf"faces/site=(?P<site>{SLUG})/camera=(?P<camera>{SLUG})/date=(?P<date>\d{{4}}-\d\d-\d\d)/hour=\d\d/"
    rf"(?P<clock>\d{{6}}\.\d{{6}})-(?P<id>{FACE_ID})-[0-9a-f]{{8}}\.(?:jpg|png|webp)",
    re.ASCII,
)
LEVELS: Final = {
    "site": re.compile(SLUG),
    "camera": re.compile(SLUG),
    "date": re.compile(r"\d{4}-\d\d-\d\d", re.ASCII),
    "hour": re.compile(r"\d\d", re.ASCII),
}
"""The partitions of a face's key, from the outside in, and what their values look like."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a key says of its face."""

    id: str
    site: str
    camera: str
    time: datetime


WRONG_KEY: Final = "it lies under another face's key: somebody has put it there, or changed it"


def is_own(key: str, frozen: Frozen, *, opened: bool = False) -> bool:
    """Whether a face lies under its own key, or under none of a face; once `opened`, whatever the hash."""
    own = frozen.key
    if parse(key) is None:
        return True
    if opened:
        key, own = key.rpartition("-")[0], own.rpartition("-")[0]
    return key == own


def parse(key: str) -> Facts | None:
    """Return what a key says; None where it is not a face's key."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    try:
        taken = datetime.fromisoformat(f"{found['date']}T{found['clock']}+00:00")
    except ValueError:
        return None
    return Facts(found["id"], found["site"], found["camera"], taken)


async def cameras(
    bucket: Bucket, *, site: str | None = None, camera: str | None = None
) -> AsyncIterator[str]:
    """Yield the prefix of each camera, or of those asked for."""
    sites = [site] if site else await _values(bucket, ROOT, "site")
    for name in sites:
        under = f"{ROOT}/site={name}"
        for one in [camera] if camera else await _values(bucket, under, "camera"):
            yield f"{under}/camera={one}"


async def dates(
    bucket: Bucket,
    *,
    site: str | None = None,
    camera: str | None = None,
    wanted: Callable[[str], bool] = lambda _: True,
) -> AsyncIterator[str]:
    """Yield the prefix of each date partition whose date, as YYYY-MM-DD, is wanted."""
    async for under in cameras(bucket, site=site, camera=camera):
        for date in await _values(bucket, under, "date"):
            if wanted(date):
                yield f"{under}/date={date}"


async def _values(bucket: Bucket, prefix: str, name: str) -> list[str]:
    return values(await bucket.children(prefix), name)


def values(level: Children, name: str) -> list[str]:
    """Return the values of a partition level such as `site`; anything else there is not ours."""
    found = [folder.removeprefix(f"{name}=") for folder in level.folders if folder.startswith(f"{name}=")]
    return [value for value in found if LEVELS[name].fullmatch(value)]


def day(at: datetime) -> str:
    """Return the date partition in which a time falls, as YYYY-MM-DD in UTC."""
    try:
        return at.astimezone(UTC).date().isoformat()
    except OverflowError:  # the first day or the last that there is
        return at.date().isoformat()


def tomorrow() -> str:
    """Return the latest date that a clock may say which is right."""
    return day(datetime.now(UTC) + timedelta(days=1))


def slug_of(topic: str) -> str:
    """Return a topic as one segment of a key; two topics never share one."""
    slug = re.sub(r"[^a-z0-9_]+", "-", topic.lower()).strip("-_")[:60]
    return slug if slug == topic else f"{slug or 'topic'}-{_short(topic)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
