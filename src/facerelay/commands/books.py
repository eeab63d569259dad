"""The books per camera as people and scripts read them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.table import Table

from facerelay.alarms import Report
from facerelay.cloud.audit import Audit
from facerelay.cloud.contract import Bucket
from facerelay.cloud.read_books import read_books
from facerelay.commands import proof
from facerelay.config import Config
from facerelay.edge import reading
from facerelay.edge.schema import OutboxError
from facerelay.messages import MOST_COUNT, MOST_REASONS, Account, Ledger
from facerelay.settings import ConfigError
from facerelay.span import Span

_COLUMNS: Final = (
    "frames", "inspected", "captured", "stored", "sent", "waiting", "dropped", "refused", "erased",
    "duplicates", "bytes", "gaps",
)  # fmt: skip
_UNSHOWN: Final = ("detections", "skipped", "dark_s")

_ALWAYS: Final = ("frames", "captured", "stored", "waiting")
FACES: Final = ("captured", "stored", "waiting", "dropped", "refused", "erased")
"""What is counted of each face."""


def read(path: Path) -> Ledger:
    """Return the books of an outbox, which its owner may be writing meanwhile.

    Raises:
        OutboxError: no such outbox.
    """
    with closing(reading.open_books(path)) as db:
        return reading.ledger(db)


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
    from facerelay.cloud.bucket import open_bucket  # noqa: PLC0415 - an edge's installation has no obstore

    return open_bucket(config.bucket)


def existing_faces(config: Config, dates: Callable[[str], bool] = lambda _: True) -> Bucket:
    """Open the bucket to read its faces, those in shards of some days too: each under its own key.

    Raises:
        ConfigError: as `existing_bucket`.
    """
    bucket = existing_bucket(config)
    from facerelay.cloud.shards.view import ShardView  # noqa: PLC0415 - as there

    return ShardView(bucket, dates=dates)


async def reported(config: Config) -> Ledger:
    """Return the books that edges have sent up, as the store keeps them in the bucket: summed per camera.

    Raises:
        OutboxError: there is no outbox here, and no edge has reported to the bucket either.
        BucketError: the bucket cannot be read.
    """
    return together(one.books for one in await reports(config, existing_bucket(config)))


async def reports(config: Config, bucket: Bucket) -> list[Report]:
    """Return what each edge has told a bucket: its books, how its link does, and when it was heard.

    Raises:
        OutboxError: no edge has told any books.
        BucketError: the bucket cannot be read.
    """
    found = [report async for report in read_books(bucket)]
    if not any(one.books.cameras for one in found):
        raise OutboxError(
            f"no outbox at {config.outbox.path} and no edge's books in {config.bucket.url}: set outbox.path"
            " (`facerelay capture` makes it) or bucket.url"
        )
    return found


def together(all_books: Iterable[Ledger]) -> Ledger:
    """Return the books of several outboxes as one, summed per camera."""
    cameras: dict[str, Account] = {}
    for found in all_books:
        for name, account in found.cameras.items():
            cameras[name] = _sum(cameras[name], account) if name in cameras else account
    return Ledger(outbox="0" * 32, cameras=dict(sorted(cameras.items())))


def received(account: Account) -> float | None:
    """Return received over generated: the share of a camera's faces that came to the bucket.

    What was erased there had come. None where none was captured, or where nothing is receipted.
    """
    if not account.captured or account.sent:
        return None
    return (account.stored + account.erased) / account.captured


def _sum(one: Account, other: Account) -> Account:
    """Add two outboxes' books of one camera; of latencies the worse is kept."""
    names = (*_COLUMNS, *_UNSHOWN)
    counts = {name: min(getattr(one, name) + getattr(other, name), MOST_COUNT) for name in names}
    most = (Counter(one.reasons) + Counter(other.reasons)).most_common(MOST_REASONS)
    reasons = {code: min(n, MOST_COUNT) for code, n in most}
    slower = max(one.latency_ms, other.latency_ms, key=lambda latency: latency.p99 or 0)
    dark = [since for since in (one.dark_since, other.dark_since) if since is not None]
    return Account(latency_ms=slower, reasons=reasons, dark_since=max(dark, default=None), **counts)


async def audited(config: Config) -> tuple[Ledger, Audit]:
    """Return the books with `lost` from an audit: each face that was answered or sent, in the bucket's bytes.

    Raises:
        OutboxError: no such outbox.
        BucketError: the bucket cannot be read.
    """
    found = await proof.report(config, Span(), bucket=existing_bucket(config))
    assert found.audit is not None  # noqa: S101 - it was given a bucket
    return found.books, found.audit


def as_json(books: Ledger) -> str:
    """Return the books as one line of JSON; `sent` stands only where nothing is receipted."""
    cameras = {name: plain(account) for name, account in books.cameras.items()}
    return json.dumps({"cameras": cameras, "lost": books.lost})


def plain(account: Account) -> dict[str, Any]:
    """Return one camera's books as plain values."""
    values = account.model_dump(mode="json", exclude={"reasons"} | (set() if account.sent else {"sent"}))
    return values | ({"reasons": account.reasons} if account.reasons else {})


def as_table(books: Ledger, *, faces_only: bool = False) -> Table:
    """Return the books as a table with a line of sums; columns without a count are left out.

    Args:
        books: of some cameras.
        faces_only: leave out what is counted of the camera, and not of each face.
    """
    accounts = books.cameras.values()
    sums = {name: sum(getattr(account, name) for account in accounts) for name in _COLUMNS}
    always = FACES if faces_only else _ALWAYS
    columns = [name for name in _COLUMNS if sums[name] or name in always]
    table = Table(show_footer=len(accounts) > 1, box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("camera", footer="together", overflow="ellipsis", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", footer=str(sums[name]), min_width=len(name))
    if not faces_only:
        table.add_column("p50/p99 ms", justify="right", min_width=10)
    for camera, account in books.cameras.items():
        values = [str(getattr(account, name)) for name in columns]
        table.add_row(camera, *values, *([] if faces_only else [_times(account)]))
    return table


def _times(account: Account) -> str:
    p50, p99 = account.latency_ms.p50, account.latency_ms.p99
    return f"{p50:.0f}/{p99:.0f}" if p50 is not None and p99 is not None else ""
