"""What is to be played: how many sites, at which rate, with which trouble; values that travel as JSON."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

Broker = Literal["mosquitto", "nats", "cluster"]
Intake = Literal["mqtt", "shared", "jetstream"]
Bucket = Literal["null", "s3", "folder"]
Layout = Literal["objects", "shards"]
Kind = Literal["reset", "dead", "slow", "counted"]

OUTBOX: Final = "{site}.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """One run.

    Attributes:
        sites: how many; each has an outbox and a connection of its own.
        rate: faces a second of each site, while it plays.
        seconds: of each phase of the play.
        idle_s: for which all are connected first, and say nothing but their books.
        outage: share of the sites whose line is cut through the second of three phases.
        slow: share of the sites whose line carries `slow_bytes_s` and no more, always.
        shard_s: age of a shard that is closed; the stores' own default would outlast a short play.
        counted: so many lines are looked at for the bytes that they carry.
        processes: so many play the sites.
        seed: whose line, and when each face.
    """

    sites: int
    rate: float = 1.0
    seconds: float = 30.0
    idle_s: float = 20.0
    outage: float = 0.0
    slow: float = 0.0
    slow_bytes_s: int = 32_000
    counted: int = 4
    broker: Broker = "mosquitto"
    intake: Intake = "mqtt"
    stores: int = 1
    bucket: Bucket = "null"
    layout: Layout = "objects"
    shard_s: float = 10.0
    processes: int = 8
    seed: int = 1

    @property
    def names(self) -> list[str]:
        """The sites."""
        return [f"site-{number:05}" for number in range(self.sites)]

    @property
    def phases(self) -> Sequence[str]:
        """The play's."""
        return ("before", "outage", "after") if self.outage else ("play",)

    @property
    def play_s(self) -> float:
        """Seconds in which faces are offered."""
        return self.seconds * len(self.phases)

    def troubles(self) -> dict[str, Kind]:
        """Return whose line has which trouble: of those cut every second one goes without a word."""
        dice = random.Random(self.seed)  # noqa: S311 - a play, to be repeated
        names = self.names
        dice.shuffle(names)
        cut, slow = (_share(share, self.sites) for share in (self.outage, self.slow))
        found: dict[str, Kind] = {name: "dead" if at % 2 else "reset" for at, name in enumerate(names[:cut])}
        found |= dict.fromkeys(names[cut : cut + slow], "slow")
        return found | dict.fromkeys(names[cut + slow :][: self.counted], "counted")


def _share(share: float, sites: int) -> int:
    return max(1, round(share * sites)) if share else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A site, and the port at which it finds its broker."""

    site: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process of sites plays.

    Attributes:
        folder: where the outboxes lie.
        offered: the file that is to say what each site offered, as JSON.
    """

    name: str
    folder: str
    offered: str
    places: tuple[Place, ...]
    rate: float
    play_s: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON has."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Self:
        """Read it from there."""
        places = tuple(Place(**place) for place in found["places"])
        return cls(**found | {"places": places})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line between a site and its broker, and its trouble; times are seconds from the begin of the play."""

    listen: int
    target: int
    kind: Kind
    bytes_s: int = 0
    begin: float = 0.0
    end: float = 0.0
