"""`facerelay resend`: parked faces go again, once what was wrong is mended."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import click

from facerelay.config import Config
from facerelay.edge import parked, reading
from facerelay.edge.again import resend as go
from facerelay.edge.capture import open_outbox
from facerelay.edge.claim import OutboxLockedError
from facerelay.edge.parked import Asked
from facerelay.edge.schema import OutboxError

log = logging.getLogger(__name__)

_HEARD_S: Final = 15.0
_LOOK_S: Final = 0.1


async def resend(config: Config, reason: str | None, *, as_json: bool) -> int:
    """Have parked faces wait again, and print how many, by reason.

    Where capture holds the outbox it is asked to.

    Returns:
        The exit code: 0.

    Raises:
        OutboxError: there is no outbox here, or whoever holds it does not answer.
    """
    path = config.outbox.path
    with closing(reading.open_books(path)) as db:
        found = parked.count(db, reason)
    if found:
        await _go(config, path, Asked(reason=reason))
    _say(found, reason, as_json=as_json)
    return 0


async def _go(config: Config, path: Path, asked: Asked) -> None:
    try:
        with open_outbox(config) as outbox:
            await go(outbox, asked)
    except OutboxLockedError:
        await _ask(path, asked)


async def _ask(path: Path, asked: Asked) -> None:
    """Leave word for whoever holds the outbox, and wait until it was heard."""
    word = parked.ask(path, asked)
    end = time.monotonic() + _HEARD_S
    while word.exists():
        if time.monotonic() > end:
            word.unlink(missing_ok=True)
            raise OutboxError(
                f"{path}: whoever holds this outbox did not answer in {_HEARD_S:.0f} s: end capture, say it"
                " again, and start capture"
            )
        await asyncio.sleep(_LOOK_S)


def _say(found: Counter[str], reason: str | None, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"again": found.total(), "reasons": dict(sorted(found.items()))}))
    elif not found:
        click.echo(f"No parked face{f' with the reason {reason}' if reason else ''}: nothing is to go again.")
    else:
        click.echo(f"{found.total()} parked faces go again: {_listed(found)}")


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {why}" for why, n in sorted(found.items()))
