"""What is known of the outboxes now: of the one on this machine, or of all that have told the bucket."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from facerelay import alarms
from facerelay.alarms import Alarm, Report
from facerelay.cloud import history
from facerelay.cloud.contract import Bucket
from facerelay.commands import books, health
from facerelay.config import Config
from facerelay.edge import audited, listing, reading
from facerelay.topics import Account, Ledger
from facerelay.verdict import Verdict, judge

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_LATELY_EVERY_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known at a time.

    Attributes:
        time: of the look.
        place: what was looked at: the outbox's file, or the bucket's address.
        local: whether that is the outbox of this machine.
        reports: of each outbox.
        alarms: what is wrong, by these.
    """

    time: datetime
    place: str
    local: bool
    reports: tuple[Report, ...]
    alarms: tuple[Alarm, ...]

    @property
    def books(self) -> Ledger:
        """All books, summed per camera."""
        return books.together(report.books for report in self.reports)

    @property
    def verdict(self) -> Verdict:
        """Whether anything is lost, late or dark, in a sentence."""
        return judge(self.reports, self.alarms)


class Observer:
    """Looks at the outbox of this machine where there is one, else at what edges have told the bucket.

    Args:
        config: where these are.
        cloud: look at the bucket in any case.
    """

    def __init__(self, config: Config, *, cloud: bool = False) -> None:
        self._config = config
        self._cloud = cloud
        self._bucket: Bucket | None = None
        self._lately: Mapping[str, Account] = {}
        self._lately_until = 0.0

    async def look(self) -> Observed:
        """Return what is known now.

        Raises:
            ConfigError: there is no outbox here, and no bucket is named.
            OutboxError: the outbox cannot be read, or no edge has told the bucket anything.
            BucketError: the bucket cannot be read.
        """
        local = not self._cloud and self._config.outbox.path.exists()
        reports = (self._here(),) if local else tuple(await self._reported())
        now = datetime.now(UTC)
        place = str(self._config.outbox.path) if local else self._config.bucket.url
        found = alarms.find(reports, now=now)
        return Observed(time=now, place=place, local=local, reports=reports, alarms=tuple(found))

    def _here(self) -> Report:
        with closing(reading.open_books(self._config.outbox.path)) as db:
            found = reading.ledger(db)
            if time.monotonic() >= self._lately_until:
                self._lately = listing.lately(db, found.outbox, datetime.now(UTC) - _DAY)
                self._lately_until = time.monotonic() + _LATELY_EVERY_S
        link = next(iter(health.here(self._config).values()), None)
        proof = audited.last(self._config.outbox.path, found.outbox)
        known = {"link": link, "lost": proof and proof.lost}
        return Report(self._config.site, found.model_copy(update=known), lately=self._lately)

    async def _reported(self) -> list[Report]:
        self._bucket = self._bucket or books.existing_bucket(self._config)
        found = await books.reports(self._config, self._bucket)
        if time.monotonic() >= self._lately_until:
            self._lately = await _of_last_day(self._bucket)
            self._lately_until = time.monotonic() + _LATELY_EVERY_S
        return [report._replace(lately=self._lately or None) for report in found]


async def _of_last_day(bucket: Bucket) -> Mapping[str, Account]:
    """Return what was counted in the last 24 hours, by the marks that the store keeps; empty without any."""
    period = await history.read_period(bucket, datetime.now(UTC) - _DAY + _HOUR, _DAY // _HOUR)
    return {name: period.total(name).account() for name in period.cameras}
