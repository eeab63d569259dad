"""Metrics, their values, and where those come from."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

_READ_S: Final = 8.0
"""Prometheus gives a scrape ten seconds unless told otherwise."""

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the list.

    Attributes:
        name: as it is asked for; a counter's ends in `_total`.
        kind: of a histogram, `<name>_bucket`, `_sum` and `_count` are asked for.
        help: what it says, for people.
        labels: by which it is told apart.
        roles: who serves it.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def family(self) -> str:
        """The name as OpenMetrics has it: a counter's without `_total`."""
        return self.name.removesuffix("_total")

    @property
    def unit(self) -> str:
        """`seconds`, `bytes`, or nothing."""
        last = self.family.rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""


class Spread:
    """How many values lie where: a histogram.

    Args:
        bounds: upper ends of its buckets, ascending; what is above the last is counted too.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take a value in."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Reading(NamedTuple):
    """A metric's value, for the values of its labels."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Spread


Source = Callable[[], Awaitable[Iterable[Reading]]]
"""Takes hold of some values at this moment; what it returns is read in a thread, for there may be many."""


class Meters:
    """The sources of a role's values. A source that fails is left out of that reading, and is counted.

    Attributes:
        failures: readings of a source that failed.
    """

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._turn = asyncio.Lock()
        self._seldom = Seldom(log, every_s=60.0)
        self.failures = 0

    def add(self, source: Source) -> None:
        """Ask a source from now on."""
        self._sources.append(source)

    async def read(self) -> list[Reading]:
        """Return what all sources say now; one reading at a time."""
        async with self._turn:
            found = await asyncio.gather(*map(self._one, self._sources))
        return [reading for readings in found for reading in readings]

    async def _one(self, source: Source) -> list[Reading]:
        try:
            async with asyncio.timeout(_READ_S):
                return await asyncio.to_thread(list, await source())
        except Exception as error:  # noqa: BLE001 - the work goes on, and so do the other figures
            self.failures += 1
            words = f"{error}" or type(error).__name__
            self._seldom.say(logging.WARNING, "source", "some metrics cannot be read: %s", words)
            return []
