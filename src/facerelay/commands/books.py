"""The books as people and scripts read them, and the audit that proves them from the bucket's own bytes."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.table import Table

from facerelay.cloud.audit import Audit, Wanted, audit
from facerelay.cloud.bucket import Bucket, BucketError, open_bucket
from facerelay.config import Config
from facerelay.edge import schema
from facerelay.settings import ConfigError
from facerelay.topics import Account, Ledger, WireError

log = logging.getLogger(__name__)

_COLUMNS: Final = (
    "frames", "inspected", "captured", "stored", "sent", "waiting", "dropped", "refused", "erased",
    "duplicates", "bytes", "gaps",
)  # fmt: skip
_UNSHOWN: Final = ("detections", "skipped", "dark_s")

_ALWAYS: Final = ("frames", "captured", "stored", "waiting")
_DAY: Final = 86_400
_MOST_NAMED: Final = 100


def read(path: Path) -> Ledger:
    """Return the books of an outbox, which its owner may be writing meanwhile.

    Raises:
        OutboxError: no such outbox.
    """
    with closing(schema.open_books(path)) as db:
        return schema.ledger(db)


def existing_bucket(config: Config) -> Bucket:
    """Open the bucket to read it: one that is named, and that is there.

    Raises:
        ConfigError: no bucket is named, or its folder does not exist.
    """
    if "bucket" not in config.model_fields_set:
        raise ConfigError(
            "no bucket: add a [bucket] section with its url, or say --bucket s3://… or file:///…"
        )
    url = config.bucket.url
    if url.startswith("file://") and not Path(url.removeprefix("file://")).is_dir():
        raise ConfigError(f"bucket.url = {url}: there is no such folder")
    return open_bucket(config.bucket)


async def reported(config: Config) -> Ledger:
    """Return the books that edges have sent up, as the store keeps them in the bucket: summed per camera.

    Raises:
        OutboxError: there is no outbox here, and no edge has reported to the bucket either.
        BucketError: the bucket cannot be read.
    """
    bucket = existing_bucket(config)
    cameras: dict[str, Account] = {}
    async for entry in bucket.list("ledger"):
        try:
            books = Ledger.from_bytes(await bucket.get(entry.key, max_bytes=Ledger.most_bytes))
        except (WireError, BucketError) as error:
            if isinstance(error, BucketError) and error.fault not in {"too-large", "missing"}:
                raise
            log.warning("%s: %s: left out", entry.key, error)
            continue
        for name, account in books.cameras.items():
            cameras[name] = _sum(cameras[name], account) if name in cameras else account
    if not cameras:
        raise schema.OutboxError(
            f"no outbox at {config.outbox.path} and no edge's books in {config.bucket.url}: set outbox.path"
            " (`facerelay capture` makes it) or bucket.url"
        )
    return Ledger(outbox="0" * 32, cameras=cameras)


def _sum(one: Account, other: Account) -> Account:
    """Add two outboxes' books of one camera; of latencies the worse is kept."""
    counts = {name: getattr(one, name) + getattr(other, name) for name in (*_COLUMNS, *_UNSHOWN)}
    reasons = dict(Counter(one.reasons) + Counter(other.reasons))
    slower = max(one.latency_ms, other.latency_ms, key=lambda latency: latency.p99 or 0)
    return Account(latency_ms=slower, reasons=reasons, **counts)


async def audited(config: Config) -> tuple[Ledger, Audit]:
    """Return the books with `lost` from an audit: each face that was answered or sent, in the bucket's bytes.

    Raises:
        OutboxError: no such outbox.
        BucketError: the bucket cannot be read.
    """
    with closing(schema.open_books(config.outbox.path)) as db:
        books = schema.ledger(db)
        answered = schema.entries(db, books.outbox, ("stored", "sent"), since=_kept_since(config))
        wanted = [Wanted(id=entry.id, sha256=entry.sha256, key=entry.key) for entry in answered]
    bucket = existing_bucket(config)
    found = await audit(bucket, wanted)
    if len(found.lost) == len(wanted) > 0:
        await bucket.probe()  # says so if it is the bucket that is not there
        log.warning("none of %d faces is in %s: is it the right bucket?", len(wanted), config.bucket.url)
    return books.model_copy(update={"lost": len(found.lost)}), found


def _kept_since(config: Config) -> float:
    """Return the time from which on faces must be there, in Unix seconds: older ones were deleted by age."""
    days = config.store.retention_days
    return time.time() - days * _DAY if days else 0


async def find(config: Config, *, prove: bool) -> tuple[Ledger, Audit | None]:
    """Return the books of the outbox here, audited if asked for; without an outbox those in the bucket."""
    if prove:
        return await audited(config)
    if config.outbox.path.exists():
        return read(config.outbox.path), None
    return await reported(config), None


def as_json(books: Ledger) -> str:
    """Return the books as one line of JSON; `sent` stands only where nothing is receipted."""
    cameras = {name: _plain(account) for name, account in books.cameras.items()}
    return json.dumps({"cameras": cameras, "lost": books.lost})


def _plain(account: Account) -> dict[str, Any]:
    values = account.model_dump(exclude={"reasons"} | (set() if account.sent else {"sent"}))
    return values | ({"reasons": account.reasons} if account.reasons else {})


def as_table(books: Ledger) -> Table:
    """Return the books as a table with a line of sums; columns without a count are left out."""
    accounts = books.cameras.values()
    sums = {name: sum(getattr(account, name) for account in accounts) for name in _COLUMNS}
    columns = [name for name in _COLUMNS if sums[name] or name in _ALWAYS]
    table = Table(show_footer=len(accounts) > 1, box=SIMPLE)
    table.add_column("camera", footer="together", overflow="ellipsis", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", footer=str(sums[name]), min_width=len(name))
    table.add_column("p50/p99 ms", justify="right", min_width=10)
    for camera, account in books.cameras.items():
        latency = account.latency_ms
        known = latency.p50 is not None and latency.p99 is not None
        times = f"{latency.p50:.0f}/{latency.p99:.0f}" if known else ""
        table.add_row(camera, *(str(getattr(account, name)) for name in columns), times)
    return table


def findings(found: Ledger, proof: Audit | None) -> list[str]:
    """Return what there is to say of the books in words."""
    lines = (
        [] if found.closes else ["The books do not close: this is a fault of facerelay, please report it."]
    )
    reasons = {
        f"{camera}: {n} {reason}" for camera, a in found.cameras.items() for reason, n in a.reasons.items()
    }
    lines += sorted(reasons)
    if proof is not None:
        lines.append(f"Audited from the bucket's own bytes: {len(proof.lost)} lost.")
        lines += [f"lost: {face_id}" for face_id in proof.lost[:_MOST_NAMED]]
    return lines
