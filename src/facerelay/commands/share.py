"""`facerelay share`: a link to a face, signed with the bucket's key, that anybody may open until it ends."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import click
import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from facerelay.cloud import keys
from facerelay.cloud.bucket import Bucket, BucketError, MissingError, check_key, open_bucket
from facerelay.cloud.objects import ObjectBucket
from facerelay.cloud.shards.view import ShardView
from facerelay.commands import logs
from facerelay.commands.books import existing_bucket
from facerelay.config import Config
from facerelay.sections.base import is_loopback
from facerelay.settings import ConfigError
from facerelay.topics import shown

Signing: TypeAlias = S3Store | GCSStore | AzureStore

LONGEST: Final = timedelta(days=7)
"""What S3 and GCS sign for, at most."""

_FORM: Final = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_PICTURES: Final = ("faces/", "foreign/")


class ShareError(Exception):
    """No link to this can be made; the message says what to do."""


def lifetime(text: str) -> timedelta:
    """Read how long a link is to last: `45s`, `30m`, `12h`, `7d`.

    Raises:
        ConfigError: it is no such time, or longer than a bucket signs for.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"--for {text}: write it as 30m, 12h or 7d")
    wanted = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if not timedelta(0) < wanted <= LONGEST:
        raise ConfigError(f"--for {text}: from 1s to {LONGEST.days}d, which is what buckets sign for at most")
    return wanted


async def share(
    config: Config, names: tuple[str, ...], wanted: str, *, endpoint: str | None, as_json: bool
) -> None:
    """Print a link to each face, and when it ends.

    Args:
        config: where the bucket is.
        names: keys of faces, of foreign pictures, or ids of faces.
        wanted: how long each link may be used, such as 30m, 12h, 7d.
        endpoint: the bucket's address as others see it, if that is not the settings' own.
        as_json: a JSON object a line: `key`, `url`, `expires`.

    Raises:
        ConfigError: no bucket is named, or no such time can be.
        ShareError: the bucket is none that can sign, or a name is not a picture's of its own.
        BucketError: there is no such object, or its link cannot be signed.
    """
    lasts = lifetime(wanted)
    bucket = existing_bucket(config)
    shards = ShardView(bucket)
    outside = config.bucket.model_copy(update={"endpoint": endpoint} if endpoint else {})
    store = signing(open_bucket(outside))
    _warn(outside.endpoint)
    for name in names:
        key = await _key_of(shards, name)
        ends = datetime.now(UTC).replace(microsecond=0) + lasts
        url = await signed(store, key, lasts)
        await _see(bucket, shards, key, config.limits.message_bytes)
        if as_json:
            click.echo(json.dumps({"key": key, "url": url, "expires": ends.isoformat()}))
        else:
            click.echo(url)
            logs.say(f"{key}: for whoever has the link, until {ends:%Y-%m-%d %H:%M:%S} UTC")


def signing(bucket: Bucket) -> Signing:
    """Return the store that signs for a bucket.

    Raises:
        ShareError: it is none with an http address; the message says what to do.
    """
    store = bucket._store if isinstance(bucket, ObjectBucket) else None  # noqa: SLF001 - it signs for itself
    if isinstance(store, S3Store | GCSStore | AzureStore):
        return store
    hint = "name it by --set bucket.url=s3://… (gs://, az://) if it is a mounted one, or hand out the file"
    raise ShareError(f"bucket.url = {bucket.url}: only a bucket with an http address has links: {hint}")


async def signed(store: Signing, key: str, lasts: timedelta) -> str:
    """Return a link to an object, which need not be there; only who lacks a key asks the network for one.

    Raises:
        BucketError: there is nothing to sign with.
    """
    try:
        return await obstore.sign_async(store, "GET", key, expires_in=lasts)
    except (BaseError, OSError, ValueError) as error:
        said = shown(str(error).partition("\n")[0])
        hint = f"the link cannot be signed: {said}: it takes a key of the bucket's own, in bucket.access_key"
        raise BucketError(key, f"{hint} or the environment", "denied") from None


async def _see(bucket: Bucket, shards: ShardView, key: str, most: int) -> None:
    """See that there is such an object: no link to what is not there, nor to a tar with others' faces."""
    try:
        await bucket.get(key, max_bytes=most)
    except MissingError:
        if not await shards.lies_in_shard(key):
            raise
        hint = f"`facerelay get {key}` fetches it, to hand on as a file"
        said = f"{key}: lies in a shard, and a link would show all the faces in it: {hint}"
        raise ShareError(said) from None


async def _key_of(shards: ShardView, name: str) -> str:
    """Return the key that a name stands for."""
    if _ID.fullmatch(name):
        return await shards.find(name, sorted(_days_about(name))) or await _find(shards, name)
    if not name.startswith(_PICTURES):
        raise ShareError(
            f"{shown(name)}: not the key of a picture (faces/…, foreign/…), nor the id of a face:"
            " `facerelay ls` lists them"
        )
    return check_key(name)


async def _find(bucket: Bucket, face_id: str) -> str:
    """Return the key of a face, by its id: first among those of the day that the id tells."""
    near = _days_about(face_id)
    for wanted in (near.__contains__, lambda date: date not in near):
        async for date in keys.dates(bucket, wanted=wanted):
            async for entry in bucket.list(date):
                facts = keys.parse(entry.key)
                if facts is not None and facts.id == face_id:
                    return entry.key
    raise MissingError(face_id)


def _days_about(face_id: str) -> set[str]:
    """Return the day on which a UUIDv7 says that it was made, and its neighbours."""
    try:
        made = datetime.fromtimestamp(int(face_id.replace("-", "")[:12], 16) / 1000, UTC)
        return {keys.day(made + timedelta(days=shift)) for shift in (-1, 0, 1)}
    except (ValueError, OverflowError):  # later than a date can say
        return set()


def _warn(endpoint: str | None) -> None:
    """Say where a link would lead nobody else: its host is part of what is signed."""
    host = urlsplit(endpoint or "").hostname
    if host and is_loopback(host):
        logs.say(
            f"a link to {host} works on this machine alone: sign it for the address that others use, with"
            " --endpoint https://…",
            level=logging.WARNING,
        )
