"""What was dropped and refused lately, by books that only say what ever was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from facerelay.messages import Account

_SPAN_S: Final = 3600.0


class _Mark(NamedTuple):
    dropped: int
    refused: int
    reasons: Mapping[str, int]


class Lately:
    """Compares books with what they were an hour or two ago, or when this process first saw them.

    Args:
        clock: monotonic seconds.
        whole: whether books come all at once: then a camera that was not in the first ones began at nothing.
    """

    def __init__(self, *, clock: Callable[[], float], whole: bool = True) -> None:
        self._clock = clock
        self._whole = whole
        self._first = True
        self._turned = clock()
        self._before: dict[str, _Mark] = {}
        self._next: dict[str, _Mark] = {}

    def begin(self, cameras: Mapping[str, Account]) -> None:
        """Begin with books from before this process: what was counted between them and the first counts."""
        for name, account in cameras.items():
            self._before[name] = _Mark(account.dropped, account.refused, account.reasons)

    def since(self, cameras: Mapping[str, Account]) -> dict[str, Account]:
        """Return what was dropped and refused since, by camera."""
        if self._clock() - self._turned >= _SPAN_S:
            self._turned = self._clock()
            self._before, self._next = self._next, {}
        found = {}
        for name, account in cameras.items():
            now = _Mark(account.dropped, account.refused, account.reasons)
            mark = self._next.setdefault(name, now)
            new = self._whole and not self._first
            before = self._before.setdefault(name, _Mark(0, 0, {}) if new else mark)
            found[name] = Account(
                dropped=max(0, now.dropped - before.dropped),
                refused=max(0, now.refused - before.refused),
                reasons=dict(Counter(now.reasons) - Counter(before.reasons)),
            )
        self._first = False
        return found
