"""Progress bars on standard error, where a person looks at it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from facerelay.commands import logs
from facerelay.steps import Watch, unwatched

_PER_SECOND: Final = 8


@contextmanager
def watching(*, lines: bool = False) -> Iterator[Watch]:
    """Show how far a command has come while the block runs; yields what is to be told.

    Nothing is shown where standard error is no terminal, or a dumb one, at `--quiet`, and with a log for
    machines.

    Args:
        lines: the command prints a line for each thing done, which are progress enough on a terminal.
    """
    console = Console(stderr=True)
    shown = console.is_terminal and not console.is_dumb_terminal and not _is_quiet() and not logs.is_json()
    if not shown or (lines and sys.stdout.isatty()):
        yield unwatched
        return
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=30), _Count(), TimeRemainingColumn(),
        console=console, transient=True, refresh_per_second=_PER_SECOND,
        redirect_stdout=False,  # what a command prints belongs to whoever reads its output
    )  # fmt: skip
    with bars:
        yield _Bars(bars)


class _Count(MofNCompleteColumn):
    """How many of how many; or how many, where nobody knows."""

    def render(self, task: object) -> Text:
        """Return the cell."""
        total, done = getattr(task, "total", None), getattr(task, "completed", 0)
        return Text(f"{done:,.0f}" if total is None else f"{done:,.0f} of {total:,.0f}")


class _Bars:
    """A bar for each step; a step that begins ends the one before."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._step = ""
        self._task: TaskID | None = None
        self._next = 0.0

    def __call__(self, step: str, done: float, total: float | None = None) -> None:
        now = time.monotonic()
        if self._task is None or step != self._step:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._step, self._task = step, self._bars.add_task(step, total=None)
        elif now < self._next:
            return
        self._next = now + 1 / _PER_SECOND
        most = None if total is None else max(done, total)
        self._bars.update(self._task, completed=done, total=most)


def _is_quiet() -> bool:
    context = click.get_current_context(silent=True)
    return bool(context and context.find_root().params.get("quiet"))
