"""The books of an outbox against the bucket's own bytes, and against the numbers that faces were given."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay.cloud import audit as auditing
from facerelay.cloud.audit import Audit, Wanted
from facerelay.cloud.contract import Bucket
from facerelay.config import Config
from facerelay.edge import listing, reading
from facerelay.edge.listing import Gaps
from facerelay.face import Face
from facerelay.messages import Ledger
from facerelay.settings import ConfigError
from facerelay.span import Span
from facerelay.steps import Watch, unwatched

log = logging.getLogger(__name__)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_IN_TIME: Final = timedelta(hours=1)
"""A face that is about to be deleted by age is not asked for: the audit itself takes its time."""

_MOST_CAMERAS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The books of a span of faces, and what was found to be wrong with them.

    Attributes:
        books: of the span; `lost` is None where the bucket was not looked at.
        span: which faces.
        gaps: numbers of this outbox that no face has; None where they were not looked at.
        audit: of the bucket; None where it was not looked at.
        unlisted: how many faces the books know by count alone, or not at all.
        too_old: how many stored faces of the span were not looked for: by now they may be deleted by age.
    """

    books: Ledger
    span: Span
    gaps: Gaps | None = None
    audit: Audit | None = None
    unlisted: int = 0
    too_old: int = 0

    @property
    def missing(self) -> int:
        """How many faces were captured, and are neither where the books say nor in any column."""
        return (self.books.lost or 0) + (self.gaps.missing if self.gaps else 0)

    @property
    def well(self) -> bool:
        """Whether the books close and no face is missing."""
        return self.books.closes and not self.missing


async def report(config: Config, span: Span, *, bucket: Bucket | None, watch: Watch = unwatched) -> Report:
    """Read the books of a span, look for numbers without a face, and audit the bucket if there is one.

    The books are read as they are at one moment; an audit then takes as long as the bucket takes.

    Raises:
        ConfigError: the books have no such camera.
        OutboxError: no such outbox.
        BucketError: the bucket cannot be read.
    """
    kept = _since(config.outbox.keep_days)
    with closing(reading.open_books(config.outbox.path)) as db:
        check_camera(span, [f"{site}/{camera}" for site, camera in listing.cameras(db)])
        books = _books(db, span)
        gaps = listing.gaps(db, books.outbox, span, kept_since=kept)
        unlisted = listing.unlisted(db, books.outbox)
        proof, too_old = None, 0
        if bucket is not None:
            too_old = _too_old(config, db, span)
            proof = await _audit(config, db, span, bucket, watch)
            own = listing.runs(db, books.outbox)  # anybody can write another run's number into a picture
            gaps = gaps.without([stray.seq for stray in proof.strays.first if stray.run in own])
            books = books.model_copy(update={"lost": proof.lost.count})
    return Report(books=books, span=span, gaps=gaps, audit=proof, unlisted=unlisted, too_old=too_old)


def check_camera(span: Span, known: list[str]) -> None:
    """See that a camera that is asked for is one of those known, as `<site>/<camera>`.

    Raises:
        ConfigError: it is not; the message names those that are.
    """
    wanted = f"{span.site}/{span.camera}"
    if span.camera is not None and wanted not in known:
        more = f", and {len(known) - _MOST_CAMERAS} more" if len(known) > _MOST_CAMERAS else ""
        names = f"{', '.join(known[:_MOST_CAMERAS])}{more}" if known else "none"
        raise ConfigError(f"--camera {wanted}: the books have no such camera; they have {names}")


def _books(db: sqlite3.Connection, span: Span) -> Ledger:
    """Return the books of a span: without a time those that are kept, else the faces are counted."""
    if span.timed:
        return Ledger(outbox=reading.owner(db), cameras=listing.accounts(db, span))
    return of_camera(reading.ledger(db), span)


def of_camera(books: Ledger, span: Span) -> Ledger:
    """Return books with the camera alone that is asked for, if one is."""
    if span.camera is None:
        return books
    cameras = {name: a for name, a in books.cameras.items() if name == f"{span.site}/{span.camera}"}
    return books.model_copy(update={"cameras": cameras})


async def _audit(config: Config, db: sqlite3.Connection, span: Span, bucket: Bucket, watch: Watch) -> Audit:
    sites = [span.site] if span.site else sorted({site for site, _ in listing.cameras(db)})
    spans = [replace(span, site=site) for site in sites]
    asked = _Asked(db, reading.owner(db), _since(config.outbox.keep_days))
    found = await auditing.audit(bucket, _wanted(config, db, span), spans=spans, ask=asked.say, watch=watch)
    if found.lost.count == found.wanted > 0:
        await bucket.probe()  # says so if it is the bucket that is not there
        form = "none of %d faces is in %s: is it the right bucket?"
        log.warning(form, found.wanted, config.bucket.url)
    return found


def _wanted(config: Config, db: sqlite3.Connection, span: Span) -> Iterator[Wanted]:
    """Yield what must be in the bucket, and then let the outbox go on: its log grows while it is read."""
    deleted = _kept_in_bucket(config)
    young = replace(span, start=max(span.start or deleted, deleted)) if deleted else span
    for entry in listing.faces(db, young, ("stored", "sent")):
        yield Wanted(entry.id, entry.sha256, entry.key)
    db.commit()


def _kept_in_bucket(config: Config) -> datetime | None:
    """Return the time from which on faces must be there: older ones were deleted by age; None: never."""
    keep = config.store.retention
    return None if keep is None else _since(keep / timedelta(days=1)) + _IN_TIME


def _too_old(config: Config, db: sqlite3.Connection, span: Span) -> int:
    deleted = _kept_in_bucket(config)
    if deleted is None or (span.start and span.start >= deleted):
        return 0
    old = replace(span, end=min(span.end or deleted, deleted))
    return sum(account.stored + account.sent for account in listing.accounts(db, old).values())


def _since(days: float) -> datetime:
    """Return the time so many days ago, or the first that a clock may say."""
    now = datetime.now(UTC)
    return now - min(timedelta(days=days), now - _EPOCH)


class _Asked:
    """Says what the books know by now of a face that was not wanted."""

    def __init__(self, db: sqlite3.Connection, owner: str, kept_since: datetime) -> None:
        self._db = db
        self._owner = owner
        self._kept_since = kept_since

    def say(self, face: Face) -> str:
        """Return its state; a face is in the books before it is sent, until it is forgotten for its age."""
        row = self._db.execute("SELECT state FROM faces WHERE id = ?", (face.id,)).fetchone()
        if row is not None:
            return str(row[0])
        if face.outbox != self._owner:
            return "other"
        return "forgotten" if face.time < self._kept_since else auditing.STRAY
