"""What the bucket holds: list, fetch, erase."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from facerelay import face
from facerelay.cloud import erase as erasing
from facerelay.commands.books import existing_bucket
from facerelay.commands.progress import watching
from facerelay.config import Config


async def listing(config: Config, prefix: str, *, as_json: bool) -> None:
    """Print the objects below a prefix, a line each."""
    async for entry in existing_bucket(config).list(prefix):
        if as_json:
            known = {"key": entry.key, "size": entry.size, "modified": entry.modified.isoformat()}
            click.echo(json.dumps(known))
        else:
            click.echo(f"{entry.modified:%Y-%m-%d %H:%M:%S} {entry.size:>9} {entry.key}")


async def fetch(config: Config, keys: tuple[str, ...], folder: Path) -> None:
    """Write objects into a folder, by the last part of their keys, and print what is known of each."""
    bucket = existing_bucket(config)
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs in this loop
    with watching(lines=True) as watch:
        for number, key in enumerate(keys):
            watch("fetching", number, len(keys))
            data = await bucket.get(key, max_bytes=config.limits.message_bytes)
            target = folder / Path(key).name
            _write_new(target, data)
            try:
                known: dict[str, Any] = face.describe(face.parse(data, config.limits.face).face)
            except face.FaceError as error:
                known = {"unknown": error.reason}
            click.echo(json.dumps({"file": str(target), **known}))


class ExistsError(Exception):
    """A file is in the way."""


def _write_new(path: Path, data: bytes) -> None:
    """Write a file where there is none: never over another, nor through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o640), "wb") as file:
            file.write(data)
    except FileExistsError:
        raise ExistsError(f"{path}: exists; name another folder with -o") from None


async def erase(
    config: Config,
    *,
    ids: tuple[str, ...],
    site: str | None,
    camera: str | None,
    start: datetime | None,
    end: datetime | None,
    wait: float,
) -> None:
    """Erase faces, and print the proof."""
    with watching() as watch:
        done = await erasing.erase(
            existing_bucket(config),
            ids=ids,
            site=site,
            camera=camera,
            start=start.replace(tzinfo=UTC) if start else None,
            end=end.replace(tzinfo=UTC) if end else None,
            longest_put=wait,
            watch=watch,
        )
    click.echo(done.proof)
