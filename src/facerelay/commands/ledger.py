"""`facerelay ledger`: the books of a camera and a range of time, what is missing, and each face by name."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from facerelay.cloud import keys
from facerelay.cloud.audit import Audit, Lost
from facerelay.commands import books, health
from facerelay.commands.progress import watching
from facerelay.commands.proof import Report, check_camera, of_camera, report
from facerelay.config import Config
from facerelay.edge import audited, listing, reading
from facerelay.edge.listing import Gap, Gaps
from facerelay.edge.reading import Entry
from facerelay.edge.schema import OutboxError
from facerelay.span import Span, written

log = logging.getLogger(__name__)

_MOST_SHOWN: Final = 100
_FEW: Final = 3
_WHY: Final = {
    "absent": "no object has its bytes",
    "other-bytes": "its object has other bytes",
    "unreadable": "its object cannot be read as a face",
}
_SAID: Final = {
    "waiting": "wait for their receipt in the books",
    "dropped": "are dropped in the books: they had been sent before",
    "refused": "are refused in the books: parked without an answer, or their receipt did not come",
    "erased": "are erased in the books, and still lie there: `facerelay erase` them again",
    "forgotten": "are older than the books go back (outbox.keep_days)",
    "other": "are of other outboxes",
}


async def ledger(config: Config, span: Span, *, prove: bool, each: bool, as_json: bool) -> int:
    """Print the books of a span, and return the exit code: 0 if they close and no face is missing.

    Args:
        config: where the outbox and the bucket are.
        span: which faces.
        prove: look into the bucket.
        each: print a line for each face first.
        as_json: as JSON; the last line is the object of the books.

    Raises:
        ConfigError: no such camera, or no bucket is named.
        OutboxError: the outbox is not here, or cannot be read.
        BucketError: the bucket cannot be read.
    """
    try:
        return await _ledger(config, span, prove=prove, each=each, as_json=as_json)
    except sqlite3.DatabaseError as error:
        raise OutboxError(
            f"{config.outbox.path}: cannot be read: {error}: is its disk sound? `facerelay capture` recovers"
            " what can be read of a damaged outbox"
        ) from error


async def _ledger(config: Config, span: Span, *, prove: bool, each: bool, as_json: bool) -> int:
    found = await _find(config, span, prove=prove, each=each)
    links = {} if span.timed else await health.known(config)
    if each:
        lines = _each(config.outbox.path, span, as_json=as_json)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    if as_json:
        click.echo(_as_json(found, links))
    else:
        _print(config, found)
        for line in health.lines(links):
            click.echo(line)
    return 0 if found.well else 1


async def _find(config: Config, span: Span, *, prove: bool, each: bool) -> Report:
    path = config.outbox.path
    if prove or each or span.timed:
        if not path.exists():
            raise OutboxError(
                f"{path}: no such outbox; faces, times and audits are for where it is: set outbox.path"
                " (`facerelay capture` makes it)"
            )
        bucket = books.existing_bucket(config) if prove else None
        with watching() as watch:
            proven = await report(config, span, bucket=bucket, watch=watch)
        if bucket is not None and span == Span():
            _keep(path, proven)
        return proven
    found = books.read(path) if path.exists() else await books.reported(config)
    check_camera(span, list(found.cameras))
    return Report(books=of_camera(found, span), span=span)


def _keep(path: Path, found: Report) -> None:
    """Leave the result of a whole audit where capture finds it, which tells it to the cloud."""
    proof = audited.Audited(outbox=found.books.outbox, time=datetime.now(UTC), lost=found.missing)
    try:
        audited.keep(path, proof)
    except OSError as error:
        log.warning("the result is not kept for `facerelay top` and the health page: %s", error)


def _each(path: Path, span: Span, *, as_json: bool) -> Iterator[str]:
    with closing(reading.open_books(path)) as db:
        db.commit()  # whoever reads the lines may take his time: the outbox goes on
        for entry in listing.faces(db, span):
            known = _known(entry)
            if as_json:
                yield json.dumps(known)
            else:
                reason = f" ({entry.reason})" if entry.reason else ""
                yield f"{_zulu(known)} {entry.id} {known['camera']} {entry.state}{reason} {entry.key}"


def _known(entry: Entry) -> dict[str, str | None]:
    return {**_place(entry.id, entry.key), "state": entry.state, "reason": entry.reason}


def _place(face_id: str, key: str) -> dict[str, str | None]:
    facts = keys.parse(key)
    camera = f"{facts.site}/{facts.camera}" if facts else None
    time = facts.time.isoformat(timespec="microseconds") if facts else None
    return {"time": time, "id": face_id, "camera": camera, "key": key}


# as JSON


def _as_json(found: Report, links: health.Links) -> str:
    cameras = {name: books.plain(account) for name, account in found.books.cameras.items()}
    if found.span.timed:
        names = {*books.FACES, "sent", "reasons"}
        cameras = {camera: {n: v for n, v in a.items() if n in names} for camera, a in cameras.items()}
    values: dict[str, Any] = {"cameras": cameras, "lost": found.books.lost}
    if found.span.timed:
        start, end = found.span.start, found.span.end
        values |= {"since": start and start.isoformat(), "until": end and end.isoformat()}
    if found.gaps is not None:
        skipped = found.gaps.count - found.gaps.gone
        values |= {"missing": _missing(found, found.gaps), "missing_count": found.missing}
        values |= {"skipped_numbers": skipped}
    if found.audit is not None:
        strays = [
            _place(one.id, one.key) | {"run": one.run, "seq": one.seq} for one in found.audit.strays.first
        ]
        values |= {"unknown": strays, "unknown_count": found.audit.strays.count}
    if not found.span.timed:
        values["link"] = health.plain(links)
    return json.dumps(values)


def _missing(found: Report, gaps: Gaps) -> list[dict[str, Any]]:
    lost = found.audit.lost.first if found.audit else []
    gone = [gap for gap in gaps.named if gap.gone] if gaps.missing else []
    return [{**_place(one.id, one.key), "why": one.why} for one in lost] + [
        {
            "outbox": found.books.outbox,
            "numbers": [gap.first, gap.last],
            "gone": gap.gone,
            "why": "not-in-books",
        }
        for gap in gone
    ]


# for people


def _print(config: Config, found: Report) -> None:
    span = found.span
    if span.timed:
        since = f" since {written(span.start)}" if span.start else ""
        until = f" until {written(span.end)}" if span.end else ""
        click.echo(f"Faces captured{since}{until}, UTC")
    if found.books.cameras:
        Console().print(books.as_table(found.books, faces_only=span.timed))
    else:
        click.echo("None.")
    for line in _findings(config, found):
        click.echo(line)


def _findings(config: Config, found: Report) -> Iterator[str]:
    if not found.books.closes:
        yield "The books do not close: this is a fault of facerelay, please report it."
    accounts = found.books.cameras.items()
    yield from sorted(f"{camera}: {n} {reason}" for camera, a in accounts for reason, n in a.reasons.items())
    yield from _how_far_back(config, found)
    if found.gaps is not None:
        yield from _about_numbers(found, found.gaps)
    if found.audit is not None:
        yield from _about_bucket(config, found.audit)


def _how_far_back(config: Config, found: Report) -> Iterator[str]:
    """Say where the span begins before what the books, or the bucket, still know."""
    start = found.span.start.timestamp() if found.span.start else 0
    days = config.outbox.keep_days
    unlisted = found.unlisted - (found.gaps.gone if found.gaps else 0)
    if unlisted > 0 and start < datetime.now(UTC).timestamp() - days * 86_400:
        yield (
            f"The books know {unlisted} faces by count alone, answered more than {days:g} days ago"
            " (outbox.keep_days) or damaged: they are not among these."
            if found.span.timed
            else f"Of these, {unlisted} are known by count alone: answered more than {days:g} days ago"
            " (outbox.keep_days), or damaged."
        )
    if found.too_old:
        yield (
            f"{found.too_old} stored faces were not looked for in the bucket, which keeps them for"
            f" {config.store.retention_days} days (store.retention_days)."
        )


def _about_numbers(found: Report, gaps: Gaps) -> Iterator[str]:
    skipped = gaps.count - gaps.gone
    if skipped:
        named = _ranges([gap for gap in gaps.named if not gap.gone])
        yield (
            f"{skipped} numbers were given to pictures that never came to the disk, and were not captured"
            f"{named}: a full disk when capture ended, or a picture that could not be encoded."
        )
    if gaps.gone:
        named = _ranges([gap for gap in gaps.named if gap.gone])
        damaged = min(gaps.gone, gaps.damaged)
        if damaged:
            yield f"{damaged} faces are counted as dropped, damaged, and not known by name{named}."
        if gaps.missing:
            yield (
                f"missing: {gaps.missing} captured faces are in no column of the books{named}: their rows are"
                " gone. Was outbox.keep_days raised, or the file changed?"
            )
    if not gaps.missing:
        more = "" if found.audit else " --audit looks into the bucket."
        yield f"No captured face is missing from the books.{more}"


def _ranges(gaps: list[Gap]) -> str:
    shown = [f"{gap.first}-{gap.last}" if gap.last > gap.first else str(gap.first) for gap in gaps]
    more = ", …" if len(shown) > _MOST_SHOWN else ""
    return f" ({', '.join(shown[:_MOST_SHOWN])}{more})" if shown else ""


def _about_bucket(config: Config, proof: Audit) -> Iterator[str]:
    yield (
        f"Audited from the bucket's own bytes ({config.bucket.url}): {proof.checked} objects read,"
        f" {proof.found} of {proof.wanted} faces there, {proof.lost.count} lost."
    )
    yield from (_lost(one) for one in proof.lost.first[:_MOST_SHOWN])
    yield from _more(proof.lost.count)
    if proof.erased:
        yield f"{proof.erased} stored faces were erased since, as their tombstones say."
    for one in proof.strays.first[:_MOST_SHOWN]:
        yield f"unknown: {one.id} number {one.seq} of run {one.run}: {one.key}"
    yield from _more(proof.strays.count)
    if proof.strays.count:
        yield (
            f"{proof.strays.count} objects say that they are of this outbox, and its books do not know them:"
            ' rows lost to damage, or to a power cut at outbox.sync = "normal"; a copy of the outbox that'
            " went on elsewhere; or somebody else's doing."
        )
    yield from (
        f"misplaced: {key}: its bytes belong elsewhere" for key in proof.misplaced.first[:_MOST_SHOWN]
    )
    yield from (f"twice: {face_id}: two objects have this id" for face_id in proof.twice.first[:_MOST_SHOWN])
    yield from _about_shards(proof)
    lost = {one.key for one in proof.lost.first}
    yield from (f"not a face: {key}" for key in proof.unreadable.first[:_MOST_SHOWN] if key not in lost)
    for state, n in sorted(proof.others.items()):
        if state in _SAID:
            yield f"In the bucket as well: {n} that {_SAID[state]}."


def _about_shards(proof: Audit) -> Iterator[str]:
    """Say what a store that fell while it closed a shard leaves behind: nothing of it is amiss."""
    if proof.again.count:
        yield (
            f"{proof.again.count} faces lie in a shard and once more, with the same bytes: they count once,"
            " and are shown once."
        )
    if proof.orphans.count:
        yield (
            f"{proof.orphans.count} tars or members of tars are in no catalogue, and nobody reads them:"
            f" {', '.join(proof.orphans.first[:_FEW])}{', …' if proof.orphans.count > _FEW else ''}"
        )


def _lost(one: Lost) -> str:
    place = _place(one.id, one.key)
    return f"lost: {one.id} {place['camera']} {_zulu(place)}: {_WHY[one.why]}: {one.key}"


def _zulu(place: Mapping[str, str | None]) -> str:
    return (place["time"] or "-").replace("+00:00", "Z")


def _more(count: int) -> Iterator[str]:
    if count > _MOST_SHOWN:
        yield f"… and {count - _MOST_SHOWN} more (--json names a thousand)"
