"""The options that say which faces are meant: a camera, and a range of time."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from facerelay.config import Config
from facerelay.face import SLUG
from facerelay.settings import ConfigError
from facerelay.span import MomentError, Span, moment, written

_LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)
F = TypeVar("F", bound=Callable[..., Any])


def span_options(command: F) -> F:
    """Give a command `--camera`, `--since`, `--until` and `--day`."""
    day = click.DateTime(["%Y-%m-%d"])
    command = click.option("--day", type=day, metavar="YYYY-MM-DD", help="One day, UTC.")(command)
    command = click.option("--until", metavar="TIME", help="Faces captured before this time.")(command)
    command = click.option(
        "--since",
        metavar="TIME",
        help="Faces captured at this time or later: 2026-11-20T18:00 (UTC, or with a zone), or 12h, 30m ago.",
    )(command)
    return click.option("--camera", metavar="SITE/CAMERA", help="One camera; NAME alone is of this site.")(
        command
    )


def span_of(
    config: Config,
    *,
    camera: str | None,
    since: str | None,
    until: str | None,
    day: datetime | None,
) -> Span:
    """Return which faces the options mean.

    Raises:
        ConfigError: they cannot be meant together.
    """
    start, end = _moment("--since", since), _moment("--until", until)
    if day is not None:
        if start or end:
            raise ConfigError("--day is a range of its own: leave out --since and --until")
        start = day.replace(tzinfo=UTC)
        end = start + timedelta(days=1) if start < _LAST_DAY else None
    if start and end and start >= end:
        raise ConfigError(f"--since ({written(start)}) is not before --until ({written(end)}), UTC")
    if camera is None:
        return Span(start=start, end=end)
    site, _, name = camera.rpartition("/")
    if not (re.fullmatch(SLUG, name) and re.fullmatch(SLUG, site or config.site)):
        raise ConfigError(f"--camera {camera}: SITE/CAMERA, each of lower case letters, digits, - and _")
    return Span(site=site or config.site, camera=name, start=start, end=end)


def _moment(option: str, said: str | None) -> datetime | None:
    try:
        return None if said is None else moment(said, now=datetime.now(UTC))
    except MomentError as error:
        raise ConfigError(f"{option}: {error}") from error
