"""What became of the faces, and whether all is well."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from facerelay import settings
from facerelay.commands import logs, running
from facerelay.commands.asked import span_of, span_options
from facerelay.commands.entry import json_option, settings_options, with_settings
from facerelay.config import Config


@click.command()
@settings_options
@span_options
@click.option("--faces", "each", is_flag=True, help="First a line a face: time, id, camera, state, key.")
@click.option("--audit", "prove", is_flag=True, help="Prove the books from the bucket's own bytes.")
@click.option("--bucket", help="The bucket to audit, if the settings name none.")
@json_option("One JSON object, on the last line.")
def ledger(
    config: Path | None, flags: tuple[str, ...], *, bucket: str | None, prove: bool, each: bool,
    as_json: bool, **asked: Any,  # noqa: ANN401 - click's options
) -> None:  # fmt: skip
    """Print the books per camera: captured = stored + waiting + dropped + refused + erased.

    A face belongs to the time at which its frame was taken. With a time, --faces or --audit the rows of
    the outbox are read (some three seconds a million) and searched for captured faces that are in no
    column. --audit lists the days and hours of the bucket that the time touches, and reads every face in
    them; one that is missing, or that the books do not know, is named. Memory does not grow with the
    faces; an audit takes 250 bytes of temporary disk each (in SQLITE_TMPDIR, or /var/tmp). What an audit
    of all faces finds is told to the cloud as well: `facerelay top` and the health page show it.
    """
    from facerelay.commands.ledger import ledger as work  # noqa: PLC0415 - a command loads what it needs

    known = settings.load(config, flags=(*flags, *([f"bucket.url={bucket}"] if bucket else [])))
    span = span_of(known, **asked)
    sys.exit(asyncio.run(work(known, span, prove=prove, each=each, as_json=as_json)))


@click.command()
@with_settings
@click.option(
    "--reason", metavar="REASON", help="Those alone: unanswered, too-large, … (see `facerelay ledger`)."
)
@json_option("One JSON object: again (how many), reasons (how many of each).")
def resend(known: Config, *, reason: str | None, as_json: bool) -> None:
    """Send parked faces again, once what was wrong is mended.

    Parked are faces that a store refused, or never answered: `refused` in the books. Those whose pictures
    are still here wait once more, and are counted so; refused again, they are parked again. A capture that
    is running does it within seconds, one that is not with its next start. Faces that a store refused
    because they were of a later version than it reads go by themselves, when it is upgraded.
    """
    from facerelay.commands.resend import resend as work  # noqa: PLC0415 - a command loads what it needs

    if reason is not None and not re.fullmatch("[a-z0-9-]{1,40}", reason):
        raise settings.ConfigError(f"--reason {reason}: a word of the books, such as unanswered")
    sys.exit(asyncio.run(work(known, reason, as_json=as_json)))


@click.command()
@with_settings
@json_option("One JSON object a check: check, ok, says.")
def doctor(known: Config, *, as_json: bool) -> None:
    """Check cameras, model, brokers, bucket and clock, and say what to do."""
    from facerelay.commands.doctor import examine  # noqa: PLC0415 - a command loads what it needs

    with logs.quiet("facerelay.link"):
        sys.exit(asyncio.run(examine(known, as_json=as_json)))


@click.command()
@settings_options
@click.option("--once", is_flag=True, help="Show it once; the exit code is 1 where an alarm is critical.")
@click.option(
    "--every", type=click.FloatRange(0.2), metavar="SECONDS", help="Between looks: 2 here, 10 by the bucket."
)
@click.option("--bucket", help="Look at what edges have told this bucket, not at the outbox here.")
@json_option("One JSON object a look: time, from, verdict, cameras, links, alarms.")
def top(
    config: Path | None, flags: tuple[str, ...], *, bucket: str | None, **how: Any,  # noqa: ANN401 - click's options
) -> None:  # fmt: skip
    """Show whether anything is lost, late or dark: cameras, links, and alarms in words.

    On an edge it reads the outbox; elsewhere what edges have told the bucket. `q` or Ctrl-C ends it.
    """
    from facerelay.commands.top import top as work  # noqa: PLC0415 - a command loads what it needs

    known = settings.load(config, flags=(*flags, *([f"bucket.url={bucket}"] if bucket else [])))
    sys.exit(running.run(lambda stop: work(known, stop=stop, cloud=bucket is not None, **how)))


@click.command()
@settings_options
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), metavar="YYYY-MM-DD", help="UTC; yesterday if not said."
)
@click.option("--camera", metavar="SITE/CAMERA", help="One camera; NAME alone is of this site.")
@click.option("--bucket", help="The bucket to read, if the settings name none.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="- prints it. [default: facerelay-DAY.html]",
)
@click.option("--force", is_flag=True, help="Write over a file.")
@click.option("--no-pictures", is_flag=True, help="Without pictures of faces.")
@json_option("One JSON object: file, verdict, day, closes, cameras, bands, in_bucket.")
def report(
    config: Path | None, flags: tuple[str, ...], *, bucket: str | None, day: datetime | None,
    camera: str | None, no_pictures: bool, **how: Any,  # noqa: ANN401 - click's options
) -> None:  # fmt: skip
    """Write a day on one HTML page: faces an hour and camera, latency, bytes, outages, the day's books.

    It reads the bucket: the marks that stores keep of each hour, a listing of the day, and at most 240 of its
    pictures, of which the best and the worst are in the file. A browser prints it as PDF.
    """
    from facerelay.commands.report import report as work  # noqa: PLC0415 - a command loads what it needs

    known = settings.load(config, flags=(*flags, *([f"bucket.url={bucket}"] if bucket else [])))
    asked = span_of(known, camera=camera, since=None, until=None, day=None)
    when = (day or datetime.now(UTC) - timedelta(days=1)).date()
    name = f"{asked.site}/{asked.camera}" if asked.camera else None
    sys.exit(asyncio.run(work(known, when, camera=name, pictures=not no_pictures, **how)))
