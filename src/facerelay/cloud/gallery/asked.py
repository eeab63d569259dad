"""What a page may ask: each part of a query looked at before anything is done with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from facerelay.cloud import keys
from facerelay.cloud.gallery.walk import TOP, Spot, spot_at, spot_of
from facerelay.face import SLUG
from facerelay.topics import shown

PAGE: Final = 60
MOST: Final = 200
_DIGITS: Final = 10
_MARK: Final = re.compile(r"@((?:\d{4}-\d\d-\d\d(?:T[0-9.]{0,13})?)?~?)", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class AskedError(ValueError):
    """A query that cannot be answered; the message is for people."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A part of the wall.

    Attributes:
        site: its name; None for all.
        camera: its name; None for all.
        start: the newest face that is wanted comes after this place.
        quality: the least; 0 for any.
        limit: faces of a page.
    """

    site: str | None
    camera: str | None
    start: Spot
    quality: float
    limit: int


def wall(query: Mapping[str, str]) -> Asked:
    """Read the query of a page of the wall.

    Raises:
        AskedError: a part of it makes no sense.
    """
    return Asked(
        site=name(query, "site"),
        camera=name(query, "camera"),
        start=_start(query),
        quality=_quality(query),
        limit=_limit(query),
    )


def name(query: Mapping[str, str], which: str) -> str | None:
    """Return the name of a site or camera; None where none is asked for."""
    text = query.get(which, "")
    if text and not re.fullmatch(SLUG, text):
        raise AskedError(f"{which}: {shown(text[:70])} is not a name: lower case letters, digits, - and _")
    return text or None


def date(query: Mapping[str, str]) -> str:
    """Return the date that is asked for, as YYYY-MM-DD."""
    text = query.get("date", "")
    try:
        datetime.fromisoformat(text if _DATE.fullmatch(text) else "")
    except ValueError:
        raise AskedError("date: write it as 2026-11-21") from None
    return text


def face(query: Mapping[str, str]) -> str:
    """Return the key that is asked for; whatever is not a face's key leads nowhere."""
    key = query.get("key", "")
    if keys.parse(key) is None:
        raise AskedError("key: this is not the key of a face")
    return key


def cursor_of(spot: Spot) -> str:
    """Return a place as a query has it."""
    return spot.key if keys.parse(spot.key) else f"@{spot.stamp}"


def _start(query: Mapping[str, str]) -> Spot:
    if cursor := query.get("cursor", ""):
        if spot := spot_of(cursor):
            return spot
        if mark := _MARK.fullmatch(cursor):
            return Spot(mark[1], TOP.key)
        raise AskedError("cursor: use what the last page gave as next")
    text = query.get("at", "")
    if not text:
        return TOP
    try:
        at = datetime.fromisoformat(text[:40])
    except ValueError:
        raise AskedError("at: write the time as 2026-11-21T15:30:00Z") from None
    return spot_at(at if at.tzinfo else at.replace(tzinfo=UTC))


def _quality(query: Mapping[str, str]) -> float:
    text = query.get("quality", "") or "0"
    try:
        value = float(text[:20])
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise AskedError("quality: a number from 0 to 1")
    return value


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", "") or str(PAGE)
    return number(text, MOST, "limit")


def number(text: str, most: int, which: str) -> int:
    """Read a number from 1 to `most`.

    Raises:
        AskedError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < _DIGITS) or not 1 <= int(text) <= most:
        raise AskedError(f"{which}: a number from 1 to {most}")
    return int(text)
