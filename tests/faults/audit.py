"""The audit: what the outbox promised and what the bucket holds, byte for byte, against seed and journal.

It trusts neither side: the bytes are made again from the seed, the bucket is read straight, and that a
face was captured is the feeder's own word, taken down when the outbox gave it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import obstore
from obstore.store import ObjectStore

from facerelay.cloud import keys
from facerelay.edge import reading
from faults.numbered import Journal, Offered, freeze, id_of

_AT_ONCE: Final = 32
_PICTURES: Final = ("faces/", "foreign/", "quarantine/")
_ROOM_AGAIN_S: Final = 5.0
"""How soon the outbox must take faces again when its disk has room."""


@dataclass(slots=True)
class Findings:
    """What came of a run.

    Attributes:
        offered: faces that the feeder had.
        turned_away: those that the outbox did not take and said so: its disk was full.
        captured: those that the outbox has in its books.
        stored: captured faces whose bytes lie in the bucket, but for those that were dropped.
        dropped: those that the outbox gave up, and counted.
        spared: dropped ones that lie in the bucket all the same: no receipt has come in time.
        spoilt: dropped ones for which its budget is not the reason.
        unsaid: offered faces that are not in the books, and of which nobody heard: the feeder was killed.
        waiting: those that have no answer yet.
        parked: those that were refused, or never answered though others were.
        missing: captured, not dropped, and not in the bucket; or promised and not in the books.
        duplicates: objects beyond the first of one face.
        unequal: objects or books with other bytes than the seed's.
        denied: in the books, though the outbox had said that it did not take them.
        unwarranted: turned away while the disk was not full.
        replaced: how often the outbox took its file for a broken one, or for a copy: nobody damages it.
        strangers: objects of no face that was captured, or put aside as unreadable.
        closes: whether the books close, and say what the bucket says.
    """

    offered: int = 0
    turned_away: int = 0
    captured: int = 0
    stored: int = 0
    dropped: int = 0
    spared: int = 0
    spoilt: int = 0
    unsaid: int = 0
    waiting: int = 0
    parked: int = 0
    missing: int = 0
    duplicates: int = 0
    unequal: int = 0
    denied: int = 0
    unwarranted: int = 0
    replaced: int = 0
    strangers: int = 0
    closes: bool = True

    @property
    def clean(self) -> bool:
        """Whether every face is where the promise says."""
        in_the_bucket = self.missing + self.duplicates + self.unequal + self.strangers
        in_the_outbox = self.denied + self.unwarranted + self.spoilt + self.replaced
        unanswered = self.waiting + self.parked
        at_fault = in_the_bucket + in_the_outbox + unanswered
        return self.closes and not at_fault and self.captured == self.stored + self.dropped

    def __add__(self, other: Findings) -> Findings:
        """Sum up two runs."""
        one, two = asdict(self), asdict(other)
        sums = {name: one[name] + two[name] for name in one if name != "closes"}
        return Findings(**sums, closes=self.closes and other.closes)


async def audit(
    bucket: ObjectStore, outbox: Path, journal: Journal, seed: int, full: Sequence[tuple[float, float]] = ()
) -> Findings:
    """Compare; `full` has the monotonic times between which the outbox's disk was full."""
    work = _Work(bucket, outbox, journal, seed)
    await work.read_bucket()
    found = work.result()
    found.unwarranted = sum(not _was_full(full, *times) for times in journal.turned_away.values())
    found.replaced += len({path.name.removesuffix("-wal") for path in outbox.parent.glob("*.broken-*")})
    return found


def _was_full(full: Sequence[tuple[float, float]], begin: float, end: float) -> bool:
    """Whether the disk was full in some of a time, or had hardly room again."""
    return any(begin < to + _ROOM_AGAIN_S and end > since for since, to in full)


def answered_after(outbox: Path, since: float) -> tuple[float, float]:
    """Return how many seconds after a time, in Unix seconds, the first answer came, and the last."""
    with closing(reading.open_books(outbox)) as db:
        query = "SELECT min(answered) - ?1, max(answered) - ?1 FROM faces WHERE answered > ?1"
        first, last = db.execute(query, (since,)).fetchone()
    return round(first or 0, 1), round(last or 0, 1)


class _Work:
    """The state of one audit."""

    def __init__(self, bucket: ObjectStore, outbox: Path, journal: Journal, seed: int) -> None:
        self._bucket = bucket
        self._journal = journal
        self._seed = seed
        self._source: dict[str, Offered] = {id_of(seed, one): one for one in journal.offered.values()}
        self._objects: Counter[str] = Counter()
        self._sound: set[str] = set()
        with closing(reading.open_books(outbox)) as db:
            self._books = {
                row[0]: row[1:] for row in db.execute("SELECT id, sha256, state, reason FROM faces")
            }
            owners = [reading.owner(db), *reading.inherited(db)]
            self._ledgers = [reading.ledger(db, owner) for owner in owners]
        self._found = Findings(offered=len(journal.offered), turned_away=len(journal.turned_away))

    async def read_bucket(self) -> None:
        """Read and compare all objects."""
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as reads:
            async for page in obstore.list(self._bucket, chunk_size=1000):
                for meta in page:
                    if meta["path"].startswith(_PICTURES):
                        await gate.acquire()
                        reads.create_task(self._check(meta["path"], gate))

    async def _check(self, key: str, gate: asyncio.Semaphore) -> None:
        try:
            facts = keys.parse(key)
            source = self._source.get(facts.id) if facts else None
            if facts is None or source is None or facts.id not in self._books:
                self._found.strangers += 1
                return
            self._objects[facts.id] += 1
            wanted = freeze(self._seed, source)
            there = await (await obstore.get_async(self._bucket, key)).bytes_async()
            if bytes(there) == wanted.data and key == wanted.key:
                self._sound.add(facts.id)
            else:
                self._found.unequal += 1
        finally:
            gate.release()

    def result(self) -> Findings:
        """Sum up."""
        found, books = self._found, self._books
        states = Counter(state for _, state, _ in books.values())
        gone = {face_id for face_id, (_, state, _) in books.items() if state == "dropped"}
        found.captured, found.stored = len(books), len(self._sound - gone)
        found.spared = len(self._sound & gone)
        found.dropped, found.waiting, found.parked = states["dropped"], states["waiting"], states["refused"]
        found.duplicates = self._objects.total() - len(self._objects)
        promised, denied = (
            {id_of(self._seed, self._journal.offered[n]) for n in numbers}
            for numbers in (self._journal.kept, self._journal.turned_away)
        )
        found.denied = len(denied & books.keys())
        found.spoilt = sum(state == "dropped" and why != "evicted" for _, state, why in books.values())
        found.unsaid = len(self._source.keys() - promised - denied - books.keys())
        found.replaced = len(self._ledgers) - 1
        ought = {face_id for face_id, (_, state, _) in books.items() if state == "stored"}
        found.missing = len(promised - books.keys()) + len(ought - self._sound)
        for face_id, (sha256, _, _) in books.items():
            source = self._source.get(face_id)
            found.unequal += source is None or freeze(self._seed, source).sha256 != sha256
        found.closes = self._closes(states)
        return found

    def _closes(self, states: Counter[str]) -> bool:
        accounts = [account for ledger in self._ledgers for account in ledger.cameras.values()]
        columns = ("stored", "dropped", "waiting", "refused")
        sums = {name: sum(getattr(account, name) for account in accounts) for name in columns}
        captured = sum(account.captured for account in accounts)
        return (
            all(account.closes for account in accounts)
            and captured == len(self._books)
            and all(sums[name] == states[name] for name in columns)
        )
