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
from facerelay.messages import Account, Ledger
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
        local = not self._cloud and _is_edge(self._config) and self._config.outbox.path.exists()
        reports = self._here() if local else tuple(await self._reported())
        now = datetime.now(UTC)
        place = str(self._config.outbox.path) if local else self._config.bucket.url
        found = alarms.find(reports, now=now)
        return Observed(time=now, place=place, local=local, reports=reports, alarms=tuple(found))

    def _here(self) -> tuple[Report, ...]:
        """Return the file's own books, and those that it inherited where it is a copy or was rescued."""
        with closing(reading.open_books(self._config.outbox.path)) as db:
            own = reading.ledger(db)
            old = [reading.ledger(db, outbox) for outbox in reading.inherited(db)]
            if time.monotonic() >= self._lately_until:
                since = datetime.now(UTC) - _DAY
                each = [
                    one.model_copy(update={"cameras": listing.lately(db, one.outbox, since)})
                    for one in (own, *old)
                ]
                self._lately = self._of_faces(own, books.together(each).cameras)
                self._lately_until = time.monotonic() + _LATELY_EVERY_S
        link = next(iter(health.here(self._config).values()), None)
        proof = audited.last(self._config.outbox.path, own.outbox)
        own = own.model_copy(update={"link": link, "lost": proof and proof.lost})
        return tuple(Report(self._config.site, one, lately=self._lately) for one in (own, *old))

    def _of_faces(self, books: Ledger, lately: Mapping[str, Account]) -> Mapping[str, Account]:
        """Return what was counted lately, with what goes without receipts where that is how faces go."""
        if self._config.delivery == "receipt":
            return lately
        sent = {name: account.sent for name, account in books.cameras.items()}
        return {name: one.model_copy(update={"sent": sent.get(name, 0)}) for name, one in lately.items()}

    async def _reported(self) -> list[Report]:
        self._bucket = self._bucket or books.existing_bucket(self._config)
        found = await books.reports(self._config, self._bucket)
        if time.monotonic() >= self._lately_until:
            self._lately = await _of_last_day(self._bucket)
            self._lately_until = time.monotonic() + _LATELY_EVERY_S
        return [report._replace(lately=self._lately or None) for report in found]


def _is_edge(config: Config) -> bool:
    """Whether settings may be those of an edge: a cloud's may lie beside an outbox, on one machine."""
    told = config.model_fields_set
    return "bucket" not in told or bool(told & {"camera", "cloud", "outbox", "site"})


async def _of_last_day(bucket: Bucket) -> Mapping[str, Account]:
    """Return what was counted in the last 24 hours, by the marks that the store keeps; empty without any."""
    period = await history.read_period(bucket, datetime.now(UTC) - _DAY + _HOUR, _DAY // _HOUR)
    return {name: period.total(name).account() for name in period.cameras}
