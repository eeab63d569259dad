"""What became of the faces, and whether all is well."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from facerelay import settings
from facerelay.commands.asked import span_of, span_options
from facerelay.commands.entry import settings_options, with_settings
from facerelay.config import Config


@click.command()
@settings_options
@span_options
@click.option("--faces", "each", is_flag=True, help="First a line a face: time, id, camera, state, key.")
@click.option("--audit", "prove", is_flag=True, help="Prove the books from the bucket's own bytes.")
@click.option("--bucket", help="The bucket to audit, if the settings name none.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, on the last line.")
def ledger(
    config: Path | None, flags: tuple[str, ...], *, bucket: str | None, prove: bool, each: bool,
    as_json: bool, **asked: Any,  # noqa: ANN401 - click's options
) -> None:  # fmt: skip
    """Print the books per camera: captured = stored + waiting + dropped + refused + erased.

    A face belongs to the time at which its frame was taken. With a time, --faces or --audit the rows of
    the outbox are read (some three seconds a million) and searched for captured faces that are in no
    column. --audit lists the days and hours of the bucket that the time touches, and reads every face in
    them; one that is missing, or that the books do not know, is named. Memory does not grow with the
    faces; an audit takes 250 bytes of temporary disk each (in SQLITE_TMPDIR, or /var/tmp).
    """
    from facerelay.commands.ledger import ledger as work  # noqa: PLC0415 - a command loads what it needs

    known = settings.load(config, flags=(*flags, *([f"bucket.url={bucket}"] if bucket else [])))
    span = span_of(known, **asked)
    sys.exit(asyncio.run(work(known, span, prove=prove, each=each, as_json=as_json)))


@click.command()
@with_settings
def doctor(known: Config) -> None:
    """Check cameras, model, brokers, bucket and clock, and say what to do."""
    from facerelay.commands.doctor import examine  # noqa: PLC0415 - a command loads what it needs

    sys.exit(asyncio.run(examine(known)))
