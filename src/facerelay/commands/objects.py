"""What the bucket holds: list, fetch, erase."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from facerelay import face
from facerelay.cloud import erase as erasing
from facerelay.cloud.bucket import open_bucket
from facerelay.config import Config


async def listing(config: Config, prefix: str, *, as_json: bool) -> None:
    """Print the objects below a prefix, a line each."""
    async for entry in open_bucket(config.bucket).list(prefix):
        if as_json:
            known = {"key": entry.key, "size": entry.size, "modified": entry.modified.isoformat()}
            click.echo(json.dumps(known))
        else:
            click.echo(f"{entry.modified:%Y-%m-%d %H:%M:%S} {entry.size:>9} {entry.key}")


async def fetch(config: Config, keys: tuple[str, ...], folder: Path) -> None:
    """Write objects into a folder, by the last part of their keys, and print what is known of each."""
    bucket = open_bucket(config.bucket)
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs in this loop
    for key in keys:
        data = await bucket.get(key, max_bytes=config.limits.message_bytes)
        target = folder / Path(key).name
        target.write_bytes(data)
        try:
            known: dict[str, Any] = face.describe(face.unseal(data, config.limits.face).face)
        except face.FaceError as error:
            known = {"unknown": error.reason}
        click.echo(json.dumps({"file": str(target), **known}))


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
    done = await erasing.erase(
        open_bucket(config.bucket),
        ids=ids,
        site=site,
        camera=camera,
        start=start.replace(tzinfo=UTC) if start else None,
        end=end.replace(tzinfo=UTC) if end else None,
        longest_put=wait,
    )
    click.echo(done.proof)
