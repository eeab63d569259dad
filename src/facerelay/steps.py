"""How far long work has come: told by whoever does it, shown by whoever wants to."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Is told now and then, from the task that does the work; it must return at once."""

    def __call__(self, step: str, done: float, total: float | None = None) -> None:
        """Take note.

        Args:
            step: what is being done, in a word or three.
            done: how much of it.
            total: how much there is; None where nobody knows.
        """


def unwatched(step: str, done: float, total: float | None = None) -> None:
    """Nobody looks."""
    del step, done, total
