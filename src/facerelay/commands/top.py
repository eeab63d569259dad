"""`facerelay top`: is anything lost, late or dark? The truth of the health page, on a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live

from facerelay.cloud.contract import BucketError
from facerelay.commands import books, health
from facerelay.commands.exits import Exit
from facerelay.commands.observed import Observed, Observer
from facerelay.commands.screen import screen
from facerelay.config import Config
from facerelay.edge.schema import OutboxError

_HERE_S: Final = 2.0
_CLOUD_S: Final = 10.0
"""Edges tell the bucket no more often."""

_DUMB: Final = 80
_TYPED: Final = 64


async def top(
    config: Config,
    *,
    stop: asyncio.Event,
    once: bool,
    as_json: bool,
    cloud: bool = False,
    every: float | None = None,
) -> int:
    """Show how all outboxes do, again and again.

    Args:
        config: where the outbox is, or the bucket that edges have told.
        stop: set when it is enough.
        once: show it once alone.
        cloud: by the bucket, though there may be an outbox on this machine.
        as_json: a line of JSON each time.
        every: seconds between looks; None for what suits the place.

    Returns:
        The exit code: with `once`, 1 where an alarm is critical.

    Raises:
        ConfigError, OutboxError, BucketError: there was nothing to be seen from the beginning.
    """
    observer = Observer(config, cloud=cloud)
    seen = await observer.look()
    pause = every or (_HERE_S if seen.local else _CLOUD_S)
    if as_json:
        await _each(observer, seen, stop, None if once else pause, _print_json)
    else:
        await _show(observer, seen, stop, None if once else pause)
    critical = any(alarm.severity == "critical" for alarm in seen.alarms)
    return Exit.UNWELL if once and critical else Exit.FINE


async def _show(observer: Observer, seen: Observed, stop: asyncio.Event, pause: float | None) -> None:
    """Draw the screen anew each time where a terminal can, else print it again below."""
    _lenient()
    console = Console()
    live = pause is not None and console.is_terminal and not console.is_dumb_terminal
    if not live:
        width = None if console.is_terminal and not console.is_dumb_terminal else _DUMB
        console = Console(width=width, highlight=False)
        await _each(observer, seen, stop, pause, lambda seen, note: console.print(screen(seen, note=note)))
        return
    with Live(console=console, screen=True, auto_refresh=False) as drawn, _quit_by_key(stop):

        def draw(seen: Observed, note: str) -> None:
            size = console.size
            drawn.update(screen(seen, note=note, width=size.width, height=size.height), refresh=True)

        await _each(observer, seen, stop, pause, draw)


async def _each(
    observer: Observer,
    seen: Observed,
    stop: asyncio.Event,
    pause: float | None,
    show: Callable[[Observed, str], None],
) -> None:
    """Show what is seen, again and again; what could not be read this time is said beside the last."""
    show(seen, "")
    while pause is not None:
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            note = ""
            try:
                seen = await observer.look()
            except (BucketError, OutboxError) as error:
                note = f"This is of {seen.time:%H:%M:%S} UTC, for now nothing can be read: {error}"
            show(seen, note)
        else:
            return


def _print_json(seen: Observed, note: str) -> None:
    click.echo(json.dumps(plain(seen) | ({"error": note} if note else {})))


def plain(seen: Observed) -> dict[str, Any]:
    """Return what was seen as plain values, for JSON."""
    links: dict[str, Any] = {}
    for report in seen.reports:
        heard = report.heard and report.heard.isoformat()
        found = health.plain({"": report.books.link})[""] if report.books.link else {}
        links[f"{report.site}/{report.books.outbox}"] = {"heard": heard, **found}
    cameras = {
        name: books.plain(account) | {"received": books.received(account)}
        for name, account in seen.books.cameras.items()
    }
    alarms = [asdict(alarm) | {"since": alarm.since and alarm.since.isoformat()} for alarm in seen.alarms]
    return {
        "time": seen.time.astimezone(UTC).isoformat(timespec="seconds"), "from": seen.place,
        "verdict": seen.verdict._asdict(),
        "cameras": cameras, "links": links, "alarms": alarms,
    }  # fmt: skip


def _lenient() -> None:
    """Print what an old terminal has no letter for as a question mark."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def _quit_by_key(stop: asyncio.Event) -> Iterator[None]:
    """End by `q` as well, where somebody types."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    loop = asyncio.get_running_loop()

    def read() -> None:
        typed = os.read(keyboard, _TYPED)
        if not typed or b"q" in typed.lower():
            stop.set()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
