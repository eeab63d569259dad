"""Single faces: sent, found in pictures, listed, fetched, shared, erased."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import click

from facerelay import settings
from facerelay.commands import logs, running
from facerelay.commands.entry import json_option, settings_options, with_settings
from facerelay.config import Config
from facerelay.face import SLUG


@click.command()
@with_settings
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--camera", default="send", show_default=True, help="The camera to send as.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for the receipts.")
@json_option("One JSON object a file: file, id, state, reason, key.")
def send(known: Config, files: tuple[Path, ...], *, camera: str, timeout: float, as_json: bool) -> None:
    """Send pictures through the whole chain, one message each: the way to try a link."""
    from facerelay.commands.send import send as work  # noqa: PLC0415 - a command loads what it needs

    if not re.fullmatch(SLUG, camera):
        raise settings.ConfigError(f"--camera {camera}: lower case letters, digits, - and _")
    with logs.quiet("facerelay.link", "facerelay.edge"):
        sys.exit(running.run(lambda _: work(known, files, camera=camera, timeout=timeout, as_json=as_json)))


@click.command()
@settings_options
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--draw", type=click.Path(path_type=Path), help="A folder for copies with the faces drawn in.")
@click.option("--model", help="auto, yunet, opencv, haar, or a plugin's name: detect.model.")
@click.option("--threshold", help="The least score of a face: detect.threshold.")
@click.option("--size", help="Long side of the picture that the detector sees: detect.size.")
@click.option("--tiles", help="For small faces, look at N x N parts as well: detect.tiles.")
@json_option("What is printed anyway: one JSON object a picture.")
def detect(
    config: Path | None,
    flags: tuple[str, ...],
    *,
    files: tuple[Path, ...],
    draw: Path | None,
    as_json: bool,  # noqa: ARG001 - it prints nothing else
    **said: str,
) -> None:
    """Find the faces in pictures: a line of JSON each, in pixels of the picture as it is displayed."""
    from facerelay.commands.detect import detect as work  # noqa: PLC0415 - a command loads what it needs

    given = [f"detect.{name}={value}" for name, value in said.items() if value is not None]
    sys.exit(work(settings.load(config, flags=(*flags, *given)), files, draw=draw))


@click.command("ls")
@with_settings
@click.argument("prefix", default="faces/")
@json_option("One JSON object a line: key, size, modified.")
def list_(known: Config, prefix: str, *, as_json: bool) -> None:
    """List what the bucket holds, below a PREFIX."""
    from facerelay.commands.objects import listing  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(listing(known, prefix, as_json=as_json))


@click.command()
@with_settings
@click.argument("keys", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=".", help="The folder to write to.")
@json_option("What is printed anyway: one JSON object a file.")
def get(known: Config, keys: tuple[str, ...], *, output: Path, as_json: bool) -> None:  # noqa: ARG001 - it prints nothing else
    """Fetch objects from the bucket into a folder, and say what their EXIF knows."""
    from facerelay.commands.objects import fetch  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(fetch(known, keys, output))


@click.command()
@with_settings
@click.argument("names", nargs=-1, required=True, metavar="KEY...")
@click.option("--for", "lasts", default="1h", show_default=True, metavar="TIME", help="30m, 12h; at most 7d.")
@json_option("One JSON object a line: key, url, expires.")
@click.option("--endpoint", metavar="URL", help="The bucket as others reach it, if not by bucket.endpoint.")
def share(known: Config, *, names: tuple[str, ...], lasts: str, endpoint: str | None, as_json: bool) -> None:
    """Print an http link to a face, by its key or its id: whoever has it sees the face, until it ends.

    The link is signed with the bucket's key, and needs no public bucket. It cannot be called back, but
    it dies with its face (`facerelay erase`) and with the key that signed it.
    """
    from facerelay.commands.share import share as work  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(work(known, names, lasts, endpoint=endpoint, as_json=as_json))


@click.command()
@with_settings
@click.option("--id", "ids", multiple=True, help="A face's id; may be said again.")
@click.option("--site", help="All faces of a site.")
@click.option("--camera", help="All faces of a camera of that site.")
@click.option("--from", "start", type=click.DateTime(), help="From this time on, UTC.")
@click.option("--to", "end", type=click.DateTime(), help="Until this time, UTC.")
@click.option(
    "--wait",
    default=40.0,
    show_default=True,
    help="Seconds until the second sweep: longer than a store's slowest PUT.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option("What is printed anyway: the proof, one JSON object.")
def erase(known: Config, *, yes: bool, as_json: bool, **chosen: Any) -> None:  # noqa: ANN401, ARG001 - click's options; it prints nothing else
    """Erase faces for good: what is sent again later is erased too. Prints a line of proof."""
    from facerelay.commands.objects import erase as work  # noqa: PLC0415 - a command loads what it needs

    if not any(chosen[name] for name in ("ids", "site", "start", "end")):
        raise settings.ConfigError("say what to erase: --id, --site, --camera with --site, --from, --to")
    if chosen["camera"] and not chosen["site"]:
        raise settings.ConfigError("--camera needs --site: two sites may have a camera of that name")
    if chosen["start"] and chosen["end"] and chosen["start"] >= chosen["end"]:
        raise settings.ConfigError("--from is not before --to")
    if odd := [each for each in chosen["ids"] if not re.fullmatch(r"[0-9a-f-]{36}", each)]:
        raise settings.ConfigError(f"--id {odd[0]}: no face's id, of 36 letters: see its key, or its page")
    if not yes:
        named = {"id": ", ".join(chosen["ids"]), "site": chosen["site"], "camera": chosen["camera"],
                 "from": chosen["start"], "to": chosen["end"]}  # fmt: skip
        what = ", ".join(f"{name} {value}" for name, value in named.items() if value)
        click.confirm(f"Erase for ever from {known.bucket.url}: {what}?", abort=True, err=True)
    asyncio.run(work(known, **chosen))
