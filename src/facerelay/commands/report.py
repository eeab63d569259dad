"""`facerelay report`: a day on one page."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from facerelay import private
from facerelay.cloud.history.period import Counts
from facerelay.commands import logs, sheet
from facerelay.commands.books import existing_faces
from facerelay.commands.day import Day, read, verdict
from facerelay.commands.exits import Exit
from facerelay.commands.progress import watching
from facerelay.config import Config
from facerelay.settings import ConfigError


class ReportError(Exception):
    """There is no report; the message says why, and what to do."""


async def report(
    config: Config,
    day: date,
    *,
    camera: str | None,
    output: Path | None,
    force: bool,
    pictures: bool,
    as_json: bool,
) -> int:
    """Write the report of a day.

    Args:
        config: where the bucket is.
        day: in UTC.
        camera: one alone, as `<site>/<camera>`.
        output: the file; `-` is standard output, None a name of the day's.
        force: write over a file.
        pictures: with pictures of the best quality and the worst.
        as_json: print what was counted as JSON.

    Returns:
        The exit code: 1 where the day's books don't close.

    Raises:
        ConfigError: no bucket is named, or the day is yet to come.
        ReportError: there is nothing of that day, or a file is in the way.
        BucketError: the bucket cannot be read.
    """
    if day > datetime.now(UTC).date():
        raise ConfigError(f"--day {day}: is yet to come; days are of UTC")
    path = output or Path(f"facerelay-{day}.html")
    piped = str(path) == "-"
    if path.exists() and not force and not piped:
        raise ReportError(f"{path}: exists; --force writes over it, or name another file with -o")
    if not path.parent.is_dir():
        raise ReportError(f"{path}: there is no such folder: make it first")
    bucket = existing_faces(config, str(day).__eq__)
    with watching() as watch:
        found = await read(
            bucket, day, camera=camera, pictures=pictures, pixels=config.limits.pixels, watch=watch
        )
    if not found.names:
        whose = f" of {camera}" if camera else ""
        today = datetime.now(UTC).date()
        instead = f". Of today: --day {today}" if day < today else ""
        raise ReportError(
            f"no face{whose} and no books of {day} (UTC) in {config.bucket.url}: is it the right bucket, and"
            f" was a store running? What is older than store.retention_days is gone{instead}"
        )
    data = sheet.page(found).encode()
    if piped and not as_json:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    elif not piped:
        (private.replace if force else private.create)(path, data)
    _say(found, path, as_json=as_json, piped=piped)
    return Exit.FINE if found.closes else Exit.UNWELL


def _say(found: Day, path: Path, *, as_json: bool, piped: bool) -> None:
    said = verdict(found)
    if as_json:
        file = None if piped else str(path)
        click.echo(json.dumps({"file": file, "verdict": said._asdict(), **plain(found)}))
        return
    if not piped:
        click.echo(f"{path}: {said.words}")
    if any(found.strips()):
        logs.say("the report holds pictures of faces: keep it as you keep the bucket, and delete it in time")


def plain(found: Day) -> dict[str, Any]:
    """Return what was counted as plain values, for JSON."""
    cameras = {
        name: _counts(balance.counts)
        | {"waiting": balance.after, "waited": balance.before, "received": balance.received,
           "closes": balance.closes}
        for name, balance in found.balances.items()
    }  # fmt: skip
    bands = [
        {"kind": band.kind, "site": band.site, "camera": band.camera, "start": band.start.isoformat(),
         "end": band.end.isoformat(), "lasts": band.lasts, "words": band.words}
        for band in found.bands
    ]  # fmt: skip
    return {
        "day": found.day.isoformat(), "closes": found.closes, "cameras": cameras, "bands": bands,
        "in_bucket": {name: sum(hours) for name, hours in found.sample.counts.items()},
        "in_bucket_whole": found.sample.whole, "pictures_read": len(found.sample.pictures),
    }  # fmt: skip


def _counts(counts: Counts) -> dict[str, Any]:
    names = ("frames", "inspected", "detections", "captured", "stored", "sent", "dropped", "refused",
             "erased", "duplicates", "bytes", "gaps", "dark_s")  # fmt: skip
    return {name: getattr(counts, name) for name in names} | {"reasons": dict(counts.reasons)}
