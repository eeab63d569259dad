"""What the outboxes and the bucket say after a run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.bucket import Null
from bench.fleet.plan import OUTBOX
from bench.measure import percentile
from facerelay.cloud import keys
from facerelay.cloud.bucket import open_bucket
from facerelay.cloud.shards.view import ShardView
from facerelay.config import Bucket
from facerelay.edge import reading

if TYPE_CHECKING:
    from bench.fleet.cloud import Cloud


class Face(NamedTuple):
    """A face as its outbox has it; times are Unix seconds."""

    site: str
    id: str
    sha256: str
    state: str
    chosen: float
    answered: float | None


def faces_of(outbox: Path, site: str) -> Iterator[Face]:
    """Yield an outbox's faces."""
    with closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as db:
        for row in db.execute("SELECT id, sha256, state, chosen, answered FROM faces"):
            yield Face(site, *row)


def latency(faces: Iterable[Face]) -> dict[str, float]:
    """Return milliseconds from capture to receipt: the middle, the 99th percentile, the longest."""
    took = [(one.answered - one.chosen) * 1000 for one in faces if one.answered and one.state == "stored"]
    if not took:
        return {}
    return {
        "p50": round(percentile(took, 0.5), 1),
        "p99": round(percentile(took, 0.99), 1),
        "max": round(max(took), 1),
    }


def books(folder: Path, offered: Mapping[str, int]) -> dict[str, Any]:
    """Return the sum of all books, and the sites whose own do not close."""
    total, wrong = Counter[str](), []
    for site, n in offered.items():
        with closing(reading.open_books(folder / OUTBOX.format(site=site))) as db:
            ledger = reading.ledger(db)
        one = Counter[str]()
        for account in ledger.cameras.values():
            one["captured"] += account.captured
            one["stored"] += account.stored
            one["waiting"] += account.waiting
            one["dropped"] += account.dropped
            one["refused"] += account.refused
            one["erased"] += account.erased
            one["duplicates"] += account.duplicates
        if not ledger.closes or (one["captured"], one["stored"]) != (n, n):
            wrong.append({"site": site, "offered": n, **one})
        total += one
    names = ("captured", "stored", "waiting", "dropped", "refused", "erased", "duplicates")
    return {
        "offered": sum(offered.values()),
        **{name: total[name] for name in names},
        "outboxes": len(offered),
        "not_closed": wrong,
    }


def audit(cloud: Cloud, faces: Iterable[Face]) -> dict[str, Any]:
    """Compare what is stored by the books with what the bucket holds: by ids, in the null one by hashes."""
    stored = [one for one in faces if one.state == "stored"]
    if cloud.null is not None:
        there = Counter(Null(cloud.null).contents())
        wanted, by = {one.sha256 for one in stored}, "sha256"
    else:
        there = Counter(asyncio.run(_ids(cloud.bucket)))
        wanted, by = {one.id for one in stored}, "id"
    return {
        "by": by,
        "missing": len(wanted - there.keys()),
        "strange": len(there.keys() - wanted),
        "twice": sum(n - 1 for n in there.values()),
    }


async def _ids(settings: Bucket) -> list[str]:
    """Return the id of each face in a bucket, of objects and of shards; in shards each is there once."""
    bucket = open_bucket(settings)
    try:
        async with aclosing(ShardView(bucket).list("faces")) as entries:  # type: ignore[type-var]
            return [found.id async for entry in entries if (found := keys.parse(entry.key))]
    finally:
        await bucket.close()
