"""The books as a live table on a terminal, or as a line now and then where there is none."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from facerelay.commands import books, logs
from facerelay.edge import reading
from facerelay.edge.schema import OutboxError
from facerelay.messages import Ledger

_TABLE_EVERY_S: Final = 0.5
_LINE_EVERY_S: Final = 5.0


class Screen:
    """Draws the books of an outbox while other processes write them, on standard error.

    Args:
        path: the outbox.
        page: the address of the page of faces.
        plain: lines instead of a live table.
    """

    def __init__(self, path: Path, *, page: str, plain: bool) -> None:
        self._path = path
        self._page = page
        self._console = Console(stderr=True, quiet=logs.is_json())
        self._live = None if plain else Live(console=self._console, auto_refresh=False)
        self._stack = ExitStack()
        self._every = _LINE_EVERY_S if plain else _TABLE_EVERY_S
        self._next = 0.0
        self._before = (time.monotonic(), 0)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._stack.enter_context(self._live)
        elif self._page:
            self._console.print(f"The latest faces: {self._page}")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def draw(self, *, last: bool = False) -> None:
        """Draw if it is time to, or if it is for the last time."""
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + self._every
        try:
            with closing(reading.open_books(self._path)) as db:
                found, key = reading.ledger(db), reading.last_key(db)
        except OutboxError:
            return
        stored = sum(account.stored + account.sent for account in found.cameras.values())
        rate = max(0.0, (stored - self._before[1]) / max(now - self._before[0], 0.001))
        self._before = (now, stored)
        if self._live is not None:
            self._live.update(self._table(found, rate, key), refresh=True)
        else:
            captured = sum(account.captured for account in found.cameras.values())
            frames = sum(account.frames for account in found.cameras.values())
            self._console.print(f"{frames} frames, {captured} faces captured, {stored} stored")

    def _table(self, found: Ledger, rate: float, key: str | None) -> RenderableType:
        lines = Text(f"{rate:.1f} faces/s   the latest faces: {self._page}\n")
        lines.append(f"last stored: {key or 'none yet'}", style="dim")
        return Group(books.as_table(found), lines)
