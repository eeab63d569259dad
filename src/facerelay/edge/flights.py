"""Faces that were sent and have no answer yet: which of them to send again, which to park, when to probe."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from facerelay.edge.outbox import Waiting
from facerelay.edge.roundtrip import RoundTrip
from facerelay.messages import Hello
from facerelay.metrics import Spread

_SILENCE: Final = 10.0
_STORES: Final = 64
_STARTS: Final = 256
_TOOK: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


@dataclass(slots=True, eq=False)
class Flight:
    """A face on its way. Times are monotonic seconds; `due` is when it is sent again.

    Attributes:
        unanswered: how often it was sent in vain while faces sent after it were answered.
        busy: it is being published at this moment.
        hurried: a store asked for it before it was overdue.
    """

    face: Waiting
    due: float
    first: float = 0.0
    last: float = 0.0
    sends: int = 0
    unanswered: int = 0
    busy: bool = False
    hurried: bool = False


@dataclass(slots=True)
class Overdue:
    """What is to be done at this moment; `probing` when nothing at all is answered."""

    send: list[Flight] = field(default_factory=list)
    park: list[Flight] = field(default_factory=list)
    probing: bool = False


class Flights:
    """The window's contents, and what the answers so far say of the rest.

    An answer to a face sent later proves that this one was passed over: it is sent again, and after
    `max_unanswered` times parked. Answers to faces sent earlier prove that things move: it waits. No answer
    at all for long means silence: one face at a time is sent, to find out.

    Args:
        overdue_s: how long an answer may take before round trips were seen.
        max_unanswered: see above.
        clock: monotonic seconds.

    Attributes:
        bytes: that fill the window.
        took: seconds from the first send of each answered face to its receipt; of one that was held, from
            then on.
        resent: sends of faces that had been sent before.
    """

    def __init__(self, *, overdue_s: float, max_unanswered: int, clock: Callable[[], float]) -> None:
        self._trip = RoundTrip(first=overdue_s)
        self._max_unanswered = max_unanswered
        self._clock = clock
        self._flights: dict[str, Flight] = {}
        self._heard = self._reached = self._up_since = self._whole_since = clock()
        self._probe_at: float | None = None
        self._silent_since = 0.0
        self._hurry_after = 0.0
        self.bytes = self.resent = 0
        self.took = Spread(_TOOK)

    def __len__(self) -> int:
        return len(self._flights)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._flights.values())

    def get(self, face_id: str, sha256: str | None = None) -> Flight | None:
        """Return the flight of a face; None too if it has other bytes than these."""
        flight = self._flights.get(face_id)
        return flight if flight and sha256 in (None, flight.face.sha256) else None

    def add(self, face: Waiting) -> Flight:
        """Take a face into the window."""
        flight = self._flights[face.id] = Flight(face, self._clock())
        self.bytes += len(face.data)
        return flight

    def land(self, flight: Flight) -> None:
        """It has its answer: the window opens."""
        if self._flights.pop(flight.face.id, None) is not None:
            self.bytes -= len(flight.face.data)

    def sent(self, flight: Flight) -> None:
        """It is being sent, now."""
        now = self._clock()
        flight.sends += 1
        self.resent += flight.sends > 1
        flight.first = now if flight.sends == 1 else flight.first
        flight.last = now
        flight.hurried = False
        flight.busy = True
        flight.due = now + _jittered(self._trip.after(flight.sends))

    def failed(self, flight: Flight) -> None:
        """It was not sent after all: there was no connection."""
        flight.sends -= 1
        flight.due = self._clock() + self._trip.overdue

    def answered(self, flight: Flight, *, held: bool) -> None:
        """A receipt came for it, and is on disk; one that is held has another one to come."""
        now = self._clock()
        once = flight.sends == 1 or self.probing
        self._reached = max(self._reached, flight.last if once else flight.first)
        took = now - flight.first
        # A face sent twice tells a round trip only where that is longer than we thought, as on a slow link;
        # and none does through whose time the way was shut, or a store was gone.
        told = flight.sends == 1 or (took > self._trip.overdue and not self.probing)
        if told and flight.first >= self._whole_since:
            self._trip.seen(took)
        if flight.first and not held and self.get(flight.face.id) is flight:
            self.took.observe(took)
        self.land(flight)

    def heard(self) -> None:
        """Take note of receipts, whatever they say: they end a silence."""
        self._heard = self._clock()
        if self.probing:
            self._due_within(self._trip.overdue)
        self._probe_at = None

    def came_up(self) -> None:
        """The way is open again: what is on its way has one more round trip to be answered."""
        self._up_since = self._whole_since = self._clock()
        for flight in self._flights.values():
            flight.due = self._up_since + (_jittered(self._trip.anew) if flight.sends else 0)

    def hurry(self) -> None:
        """A store began anew and may have lost what it had; one that stumbles must not have us flood it."""
        self._whole_since = self._clock()
        if self._clock() >= self._hurry_after:
            self._hurry_after = self._clock() + self._trip.anew
            self._due_within(self._trip.anew / 4)

    @property
    def probing(self) -> bool:
        """Whether nothing at all was answered while something was overdue."""
        return self._probe_at is not None

    @property
    def silence(self) -> float:
        """Seconds since the last receipt."""
        return self._clock() - self._heard

    @property
    def unheard(self) -> bool:
        """Whether faces are on their way, and nothing was answered for so long that people should know."""
        most = max(_SILENCE, 3 * self._trip.overdue)
        return self.probing and len(self) > 0 and self._clock() - self._silent_since > most

    @property
    def in_doubt(self) -> bool:
        """Whether the way has just opened again, so that what is on its way may be lost."""
        return self._clock() - self._up_since < 2 * self._trip.overdue

    @property
    def round_trip(self) -> float | None:
        """Seconds from a face to its receipt, smoothed; None until there was one."""
        return self._trip.mean

    def unsent(self) -> list[Flight]:
        """Return those whose publish failed, and whose time has come."""
        now = self._clock()
        return [f for f in self._flights.values() if not f.sends and not f.busy and f.due <= now]

    def overdue(self, *, link_up: bool) -> Overdue:
        """Return what is to be done now.

        Args:
            link_up: whether the link is known to be up; if not, at most one face probes it.
        """
        now = self._clock()
        waiting = [f for f in self._flights.values() if f.due <= now and f.sends and not f.busy]
        found = Overdue()
        for flight in [f for f in waiting if self._reached > f.last]:
            flight.unanswered += not flight.hurried
            lost = flight.unanswered >= self._max_unanswered
            (found.park if lost else found.send).append(flight)
        moving = link_up and self.silence <= self._trip.overdue
        unheard = [f for f in waiting if self._reached <= f.last and not (moving and self._heard > f.last)]
        if unheard and (not link_up or self._silent(unheard, now)):
            self._probe(unheard, found, now)
        else:
            found.send += unheard
        return found

    def _silent(self, unheard: list[Flight], now: float) -> bool:
        """Whether nothing moves: to send all of it again would fill the brokers with the same faces."""
        since = max(self._heard, self._up_since, min(flight.first for flight in unheard))
        if self._probe_at is None:
            self._silent_since = since
        return now - since > self._trip.overdue

    def _probe(self, unheard: list[Flight], found: Overdue, now: float) -> None:
        if self._probe_at is None:
            self._probe_at = now
        if now >= self._probe_at:
            flight = min(unheard, key=lambda f: (f.sends, f.first))
            self._probe_at = now + self._trip.after(flight.sends + 1)
            found.send.append(flight)
            found.probing = True

    def _due_within(self, seconds: float) -> None:
        now = self._clock()
        for flight in self._flights.values():
            flight.due = min(flight.due, now + random.uniform(0, seconds))  # noqa: S311 - jitter
            flight.hurried = True


class Stores:
    """The stores that announced themselves, as many as can be true, and with which words.

    Words that were heard before are no news: whoever says old hellos again could have all faces sent again.
    """

    def __init__(self) -> None:
        self._starts: dict[str, dict[str, None]] = {}

    def knows(self, hello: Hello) -> bool:
        """Whether these words of a store were heard before."""
        return hello.start in self._starts.get(hello.store, ())

    def began(self, hello: Hello) -> bool:
        """Take a store's word; returns whether it began anew since it was first heard of."""
        heard = self._starts.get(hello.store)
        if heard is None:
            if len(self._starts) < _STORES:
                self._starts[hello.store] = {hello.start: None}
            return False
        if hello.start in heard:
            return False
        heard[hello.start] = None
        if len(heard) > _STARTS:
            del heard[next(iter(heard))]
        return True


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1, 1.25)  # noqa: S311 - jitter
