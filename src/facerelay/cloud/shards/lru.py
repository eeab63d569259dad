"""What was read is kept within a budget; what was not asked for the longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class LruCache(Generic[T]):
    """Values by their keys, up to a budget of whatever their cost is counted in."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._spent = 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def get(self, key: str) -> T | None:
        """Return a value, if it is kept."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: str, value: T, cost: int) -> None:
        """Keep a value, and drop others for it; one alone may be beyond the budget."""
        self.drop(key)
        self._values[key] = (value, cost)
        self._spent += cost
        while self._spent > self._budget and len(self._values) > 1:
            _, (_, gone) = self._values.popitem(last=False)
            self._spent -= gone

    def drop(self, key: str) -> None:
        """Keep it no longer."""
        if found := self._values.pop(key, None):
            self._spent -= found[1]
