"""How the link does, as people and scripts read it: what capture noted last, or what edges have sent up."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from facerelay.cloud.read_books import read_books
from facerelay.commands.books import existing_bucket
from facerelay.config import Config
from facerelay.edge import pulse, reading
from facerelay.messages import LinkHealth, WireError

log = logging.getLogger(__name__)

_FRESH_S: Final = 60.0
_LONG_S: Final = 120.0

Links = Mapping[str, LinkHealth]
"""By `<site>/<outbox>`."""


class LinkError(Exception):
    """The link carries nothing; the message says what to do."""


def here(config: Config) -> Links:
    """Return what the outbox of this machine has noted of its link; nothing where there is no such note.

    Raises:
        OutboxError: the outbox cannot be read.
    """
    if not config.outbox.path.exists():
        return {}
    with closing(reading.open_books(config.outbox.path)) as db:
        try:
            outbox = reading.owner(db)
            note = db.execute("SELECT value FROM meta WHERE name = ?", (pulse.NOTE,)).fetchone()
            return {f"{config.site}/{outbox}": LinkHealth.from_bytes(str(note[0]).encode())} if note else {}
        except (WireError, sqlite3.Error, TypeError) as error:
            log.warning("%s: what it noted of the link cannot be read: %s", config.outbox.path, error)
            return {}


async def known(config: Config) -> Links:
    """Return what is known of links: of the outbox here, or else what edges have sent up to the bucket.

    Raises:
        ConfigError: there is no outbox here, and no bucket is named.
        OutboxError: the outbox cannot be read.
        BucketError: the bucket cannot be read.
    """
    if config.outbox.path.exists():
        return here(config)
    reported = read_books(existing_bucket(config))
    return {f"{one.site}/{one.books.outbox}": one.books.link async for one in reported if one.books.link}


def plain(links: Links) -> dict[str, Any]:
    """Return them as plain values, for JSON."""
    return {name: health.model_dump(mode="json") for name, health in links.items()}


def lines(links: Links) -> list[str]:
    """Return a line for each link."""
    return [f"link of {_short(name)}: {line(health)}" for name, health in sorted(links.items())]


def line(health: LinkHealth) -> str:
    """Say in a line how a link does."""
    waits = "no face waits" if health.oldest_s is None else f"the oldest face waits {health.oldest_s:.0f} s"
    words = [waits, f"{health.up_bytes_s / 1000:.1f} kB/s up"]
    if health.silent_s is not None:
        words.append(f"no receipt for {health.silent_s:.0f} s")
    elif health.round_trip_s is not None:
        words.append(f"a receipt takes {health.round_trip_s * 1000:.0f} ms")
    words.append(f"{health.in_flight / 1000:.0f} of {health.window / 1000:.0f} kB in flight")
    if health.held:
        words.append(f"{health.held} held in a shard that a store has open")
    if health.cuts or health.resets:
        words.append(f"down {health.cuts} times, made anew {health.resets} times")
    if health.broker_dropped:
        words.append(f"the broker dropped {health.broker_dropped} messages")
    if health.ignored:
        words.append(f"{health.ignored} messages ignored that no store of the authority had signed")
    age = _age(health)
    return ", ".join(words) + ("" if age < _FRESH_S else f" (as of {age:.0f} s ago)")


async def check(config: Config) -> str:
    """Judge this machine's link; returns how it does.

    Raises:
        LinkError: faces wait, and nothing goes up or nothing is answered.
        OutboxError: the outbox cannot be read.
    """
    for health in here(config).values():
        stands_still = health.oldest_s is not None and health.oldest_s > _LONG_S and not health.up_bytes_s
        if _age(health) < _FRESH_S and (stands_still or health.silent_s is not None):
            raise LinkError(
                f"{line(health)}: see that the store runs, and that receipts/{config.site}/# comes back down"
                " (the log of capture says what it tries)"
            )
        return line(health)
    return "capture has not said yet how it does"


def _short(name: str) -> str:
    site, _, outbox = name.partition("/")
    return f"{site}/{outbox[:8]}"


def _age(health: LinkHealth) -> float:
    """Return how old the figures are, in seconds, by the clock of who looks."""
    return max(0.0, (datetime.now(UTC) - health.time).total_seconds())
