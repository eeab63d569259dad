"""How long faces stay: erased, and the proof of it; rules of the bucket's own."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from facerelay import settings
from facerelay.commands.entry import json_option, with_settings
from facerelay.config import Config
from facerelay.face import FACE_ID

if TYPE_CHECKING:
    from facerelay.cloud.erase import Rule


@click.command()
@with_settings
@click.option("--id", "ids", multiple=True, help="A face's id; may be said again.")
@click.option("--site", help="All faces of a site.")
@click.option("--camera", help="All faces of a camera of that site.")
@click.option("--from", "start", type=click.DateTime(), help="From this time on, UTC.")
@click.option("--to", "end", type=click.DateTime(), help="Until this time, UTC.")
@click.option("--foreign", metavar="TOPIC", help="What came by a topic and is no face of ours.")
@click.option("--dry-run", is_flag=True, help="Count what would go, per camera and place; touch nothing.")
@click.option("--verify", is_flag=True, help="Check all proofs, and that nothing erased lies there.")
@click.option(
    "--wait",
    default=40.0,
    show_default=True,
    help="Seconds until the second sweep: longer than a store's slowest PUT.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option("What is printed anyway: one JSON object.")
def erase(
    known: Config,
    *,
    foreign: str | None,
    dry_run: bool,
    verify: bool,
    wait: float,
    yes: bool,
    as_json: bool,  # noqa: ARG001 - it prints nothing else
    **chosen: Any,  # noqa: ANN401 - click's options
) -> None:
    """Erase faces for good: what is sent again later is erased too. Prints a line of proof."""
    from facerelay.commands import objects  # noqa: PLC0415 - a command loads what it needs

    if verify:
        if foreign or dry_run or any(chosen.values()):
            raise settings.ConfigError("--verify looks at all proofs: say nothing else with it")
        sys.exit(asyncio.run(objects.verify(known)))
    rule = _rule(**chosen, foreign=foreign)
    if dry_run:
        asyncio.run(objects.survey(known, rule, foreign=foreign))
        return
    if not yes:
        named = {"id": ", ".join(rule.ids), "site": rule.site, "camera": rule.camera,
                 "from": rule.start, "to": rule.end, "foreign topic": foreign}  # fmt: skip
        what = ", ".join(f"{name} {value}" for name, value in named.items() if value)
        click.confirm(f"Erase for ever from {known.bucket.url}: {what}?", abort=True, err=True)
    asyncio.run(objects.erase(known, rule, foreign=foreign, wait=wait))


def _rule(
    *,
    ids: tuple[str, ...],
    site: str | None,
    camera: str | None,
    start: datetime | None,
    end: datetime | None,
    foreign: str | None,
) -> Rule:
    """Return what was asked, or say what can be."""
    from facerelay.cloud.erase import Rule  # noqa: PLC0415 - a command loads what it needs

    faces = any((ids, site, camera, start, end))
    if foreign is not None and faces:
        raise settings.ConfigError("--foreign is for what is no face of ours: say nothing else with it")
    if foreign is None and not any((ids, site, start, end, camera)):
        raise settings.ConfigError(
            "say what to erase: --id, --site, --camera with --site, --from, --to, or --foreign"
        )
    if camera and not site:
        raise settings.ConfigError("--camera needs --site: two sites may have a camera of that name")
    if start and end and start >= end:
        raise settings.ConfigError("--from is not before --to")
    if odd := [each for each in ids if not re.fullmatch(FACE_ID, each)]:
        raise settings.ConfigError(f"--id {odd[0]}: no face's id, of 36 letters: see its key, or its page")
    return Rule(
        ids=ids, site=site, camera=camera,
        start=start.replace(tzinfo=UTC) if start else None, end=end.replace(tzinfo=UTC) if end else None,
    )  # fmt: skip


@click.command()
@with_settings
@click.option("--apply", is_flag=True, help="Set them on the bucket, beside the rules of others.")
@json_option("What is printed anyway: one JSON object, as aws s3api takes it.")
def lifecycle(known: Config, *, apply: bool, as_json: bool) -> None:  # noqa: ARG001 - it prints nothing else
    """Print retention as rules that an S3 bucket keeps to by itself, while no store runs; or set them.

    Rules of others stay as they are. Days are whole, rounded up; the store's sweeper goes on beside them.
    """
    from facerelay.commands.lifecycle import lifecycle as work  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(work(known, apply=apply))
