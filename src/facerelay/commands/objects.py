"""What the bucket holds: list, fetch, erase."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from facerelay import face
from facerelay.cloud import by_topic, proof_signing, proofs
from facerelay.cloud import erase as erasing
from facerelay.cloud.keys import WRONG_KEY, is_own
from facerelay.cloud.unseal import Look, unsealer
from facerelay.commands import keeping, logs
from facerelay.commands.books import existing_bucket, existing_faces
from facerelay.commands.exits import Exit
from facerelay.commands.progress import watching
from facerelay.config import Config


async def listing(config: Config, prefix: str, *, as_json: bool) -> None:
    """Print the objects below a prefix, a line each; a face in a shard as if it were one."""
    async for entry in existing_faces(config).list(prefix):
        if as_json:
            known = {"key": entry.key, "size": entry.size, "modified": entry.modified.isoformat()}
            click.echo(json.dumps(known | (asdict(entry.lies) if entry.lies else {})))
        else:
            click.echo(f"{entry.modified:%Y-%m-%d %H:%M:%S} {entry.size:>9} {entry.key}")


async def fetch(config: Config, keys: tuple[str, ...], folder: Path, *, sealed: bool = False) -> None:
    """Write objects into a folder, by the last part of their keys, and print what is known of each.

    Args:
        config: this machine's settings.
        keys: of the objects.
        folder: made if it is not there.
        sealed: leave sealed faces as they are, where otherwise the picture inside is written.

    Raises:
        IdentityError: seal.identity_file cannot be used.
        ExistsError: a file is in the way.
        ClosedError: a sealed face cannot be opened; what came before it is written.
    """
    eyes = unsealer(config)
    bucket = existing_faces(config)
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs in this loop
    with watching(lines=True) as watch:
        for number, key in enumerate(keys):
            watch("fetching", number, len(keys))
            data = await bucket.get(key, max_bytes=config.limits.message_bytes)
            look = await eyes.look(data)
            if look.seal and look.closed and not sealed:
                raise ClosedError(f"{key}: sealed: {look.seal.fault}; --sealed writes the file as it is")
            target = folder / Path(key).name
            if look.seal and look.face and not sealed:
                target = target.with_suffix(f".{look.face.extension}")
            _write_new(target, data if sealed else look.data)
            known = _known(data, look, config, sealed=sealed)
            if look.face and not is_own(key, look.face, opened=bool(look.seal and not look.closed)):
                known["fault"] = WRONG_KEY
            click.echo(json.dumps({"file": str(target), **known}))


def _known(data: bytes, look: Look, config: Config, *, sealed: bool) -> dict[str, Any]:
    """Return what is known of an object that was written."""
    try:
        found = face.parse(data if sealed else look.data, config.limits.face).face
    except face.FaceError as error:
        return {"unknown": error.reason}
    return face.describe(found) | ({"seal": look.seal.told()} if look.seal else {})


class ClosedError(Exception):
    """A sealed face cannot be opened; the message says why, and what to do."""


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


async def erase(config: Config, rule: erasing.Rule, *, foreign: str | None, wait: float) -> None:
    """Erase faces, or what came by a foreign topic, and print the proof.

    Raises:
        EraseError: it cannot be asked.
        BucketError: the bucket failed; asking again is safe.
    """
    bucket = existing_bucket(config)
    sign = proof_signing.signing(config.trust)
    try:
        await keeping.see(config.bucket)
    except keeping.KeptError as error:
        logs.say(f"{error}", level=logging.WARNING)
    with watching() as watch:
        if foreign is not None:
            done = await by_topic.erase(bucket, foreign, longest_put=wait, watch=watch, sign=sign)
        else:
            done = await erasing.erase_rule(bucket, rule, longest_put=wait, watch=watch, sign=sign)
    click.echo(done.proof)


async def survey(config: Config, rule: erasing.Rule, *, foreign: str | None) -> None:
    """Print what would be erased, and touch nothing."""
    bucket = existing_bucket(config)
    with watching() as watch:
        if foreign is not None:
            found = await by_topic.survey(bucket, foreign)
        else:
            found = await erasing.survey(bucket, rule, watch=watch)
    objects = sum(found.places.values())
    known = {"dry_run": True, "objects": objects, "places": found.places, "cameras": found.cameras}
    click.echo(json.dumps(known))


async def verify(config: Config) -> int:
    """Go through the proofs of erasure, print what they come to, and return the exit code."""
    with watching() as watch:
        check = proof_signing.checking(config.trust)
        found = await proofs.verify(existing_bucket(config), check=check, watch=watch)
    known = {
        "well": found.well, "proofs": found.lines, "signed": found.signed, "last": found.last,
        "faults": found.faults, "alive": found.alive,
    }  # fmt: skip
    click.echo(json.dumps(known))
    if found.alive:
        logs.complain(
            f"{found.alive} objects lie there that were erased: ask for the same erasure again, and see that"
            " nobody but stores writes to this bucket"
        )
    return Exit.FINE if found.well else Exit.UNWELL
