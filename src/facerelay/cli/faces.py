"""Single faces: sent, found in pictures, listed, fetched, shared."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

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
@json_option("One JSON object a line: key, size, modified; of a face in a shard tar, offset, length.")
def list_(known: Config, prefix: str, *, as_json: bool) -> None:
    """List what the bucket holds, below a PREFIX: faces in shards under their own keys."""
    from facerelay.commands.objects import listing  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(listing(known, prefix, as_json=as_json))


@click.command()
@with_settings
@click.argument("keys", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=".", help="The folder to write to.")
@click.option("--sealed", is_flag=True, help="Leave sealed faces sealed: the files as they are.")
@json_option("What is printed anyway: one JSON object a file.")
def get(known: Config, keys: tuple[str, ...], *, output: Path, sealed: bool, as_json: bool) -> None:  # noqa: ARG001 - it prints nothing else
    """Fetch objects from the bucket into a folder, and say what their EXIF knows.

    A sealed face is opened with the private key in seal.identity_file: the picture inside is written.
    """
    from facerelay.commands.objects import fetch  # noqa: PLC0415 - a command loads what it needs

    asyncio.run(fetch(known, keys, output, sealed=sealed))


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
