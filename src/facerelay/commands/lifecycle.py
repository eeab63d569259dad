"""`facerelay lifecycle`: retention as rules of the bucket's own, which hold while no store runs."""

from __future__ import annotations

import json
import logging
import math
from datetime import timedelta
from urllib.parse import urlsplit

import click

from facerelay.cloud import quarantine
from facerelay.cloud.retention import BY_AGE
from facerelay.cloud.whole import Rule, UnaskableError, Whole
from facerelay.commands import logs
from facerelay.commands.books import existing_bucket
from facerelay.config import Config


class LifecycleError(Exception):
    """Rules cannot be set on this bucket; the message says what to do."""


async def lifecycle(config: Config, *, apply: bool) -> None:
    """Print the rules as one JSON object, as `aws s3api` takes it; set them where that is asked.

    Raises:
        ConfigError: no bucket is named.
        LifecycleError: it is no bucket that takes rules from here.
        BucketError: it cannot be asked, or refuses.
    """
    existing_bucket(config)  # says what is wrong with the settings
    rules = wanted(config)
    if apply:
        try:
            whole = Whole.of(config.bucket)
        except UnaskableError as error:
            hint = "the store's own sweeper deletes by age there, too"
            raise LifecycleError(f"rules cannot be set from here: {error} ({hint})") from error
        kept, removed = await _set(whole, config, rules)
        logs.say(f"set: {len(rules)} rules; left as they were: {kept}; removed: {removed}")
    elif urlsplit(config.bucket.url).scheme != "s3":
        logs.say(
            f"{config.bucket.url} takes no such rules from here: the store's sweeper deletes by age there",
            level=logging.WARNING,
        )
    click.echo(json.dumps({"Rules": [rule.as_json() for rule in rules]}))


def wanted(config: Config) -> list[Rule]:
    """Return the rules that say what the settings say, in whole days, rounded up."""
    days = {quarantine.ROOT: timedelta(days=config.store.quarantine_days)}
    if config.store.retention is not None:
        days |= dict.fromkeys(BY_AGE, config.store.retention)
    under = _under(config)
    return [
        Rule(f"{_name(config)}{place}", f"{under}{place}/", math.ceil(keep / timedelta(days=1)))
        for place, keep in sorted(days.items())
    ]


async def _set(whole: Whole, config: Config, rules: list[Rule]) -> tuple[int, int]:
    """Set our rules beside those of others; return how many those are, and how many of ours had to go."""
    there = await whole.lifecycle()
    ours = {f"{_name(config)}{place}" for place in (quarantine.ROOT, *BY_AGE)}
    others = {name: rule for name, rule in there.items() if name not in ours}
    gone = there.keys() & (ours - {rule.id for rule in rules})
    await whole.set_lifecycle(others | {rule.id: rule.as_xml() for rule in rules})
    return len(others), len(gone)


def _under(config: Config) -> str:
    parts = urlsplit(config.bucket.url)
    prefix = "" if parts.scheme == "file" else parts.path.strip("/")  # of a mount nobody here knows more
    return f"{prefix}/" if prefix else ""


def _name(config: Config) -> str:
    """Return how the names of our rules begin: two deployments may share a bucket by prefixes."""
    return f"facerelay:{_under(config)}"
