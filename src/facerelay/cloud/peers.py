"""The stores that are at work beside this one, and which of them deals with what all of them hear."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from facerelay import topics
from facerelay.face import SLUG
from facerelay.messages import Beat, WireError
from facerelay.mqtt import NotConnectedError, Session
from facerelay.seldom import Seldom

log = logging.getLogger(__name__)

BEAT_S: Final = 2.0
GONE_S: Final = 10.0
"""A store that was not heard for so long is gone."""

SETTLE_S: Final = 1.0
"""How long a new store listens before it takes itself for the owner of anything: others answer its beat."""

_GAP_S: Final = 0.1
"""Between two beats, at least, however many stores are to be answered."""

_DIGEST: Final = 8
_MOST: Final = 256
_MOST_CACHED: Final = 20_000
_TOPIC: Final = re.compile(rf"stores/({SLUG})/({SLUG}|{topics.ALONE})")


@dataclass(slots=True)
class _Peer:
    """Another store: when it was heard last, and what it said of itself."""

    at: float
    run: str
    holds: bool


class Peers:
    """Tells other stores that this one is at work, and hears who else is.

    Whatever is to be done by one store alone has a word, such as a ledger's topic. Of all stores that are at
    work the one with the highest hash of its own name and the word is the owner (highest random weight, or
    rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
    Transactions on Networking 6(1), 1998). So all who know the same stores name the same owner without a word
    between them, and when one comes or goes only its own share moves.

    Stores of another bucket, or with another retention, count for nothing: each side has its own books to
    keep. A store that hears nobody, not even where others are, is alone, and owns everything. Two that own
    one word for a moment must do no harm. While this store has no connection, or does not even hear itself,
    as when the bucket fails and faces fill the way to it, nobody is taken for gone.

    Args:
        store: this store's name.
        instance: tells processes of one name apart.
        keeps: whatever stores must have in common.
        holds: whether faces that edges believe to be held would be lost with this process.
        run: of this process, as its receipts and hellos name it; made up if not given.
        clock: monotonic seconds.

    Attributes:
        hello: `start` of the hello of this name that was said last, as far as it is known.
        on_change: called when stores came or went; owners may be others.
        on_loss: is told the run of one that went without a word with what it held, if edges are ours to tell.
        on_alive: called with the run of each that is heard.
        echoes: own beats that the broker handed back.
    """

    def __init__(
        self,
        store: str,
        instance: str | None = None,
        *,
        keeps: str = "",
        holds: bool = False,
        run: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.topic: Final = topics.beat(store, instance)
        self._keeps = hashlib.blake2b(keeps.encode(), digest_size=_DIGEST).hexdigest()
        self._holds = holds
        self._clock = clock
        self._run = run or secrets.token_hex(8)
        self._peers: dict[str, _Peer] = {}
        self._owned: dict[str, bool] = {}
        self._connected = False
        self._echo_at = clock()
        self._settled = asyncio.Event()
        self._wake = asyncio.Event()
        self._seldom = Seldom(log)
        self.hello: str | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.on_loss: Callable[[str], None] = lambda _: None
        self.on_alive: Callable[[str], None] = lambda _: None
        self.echoes = 0

    def __len__(self) -> int:
        """Count the other stores."""
        return len(self._peers)

    def owns(self, word: str) -> bool:
        """Whether this store is the one that deals with something; none is, before it has listened."""
        if not self._settled.is_set():
            return False
        if not self._peers:
            return True
        if word not in self._owned:
            if len(self._owned) >= _MOST_CACHED:
                self._owned.clear()
            owner = max((self.topic, *self._peers), key=lambda who: _weight(who, word))
            self._owned[word] = owner == self.topic
        return self._owned[word]

    def owns_outbox(self, site: str, outbox: str) -> bool:
        """Whether this store is the one that deals with an outbox's books."""
        return self.owns(topics.ledger(site, outbox))

    @property
    def connected(self) -> bool:
        """Whether others can be heard."""
        return self._connected

    async def settled(self) -> None:
        """Return once it is known who else is at work."""
        await self._settled.wait()

    def on_state(self, up: bool) -> None:  # noqa: FBT001 - the shape of a session's callback
        """Take note of a connection made or lost: whoever could not be heard meanwhile has time anew."""
        self._connected = up
        self._allow_time()
        self.nudge()

    def settle(self) -> None:
        """Listen no longer: whoever was heard by now is at work, and nobody else."""
        if not self._settled.is_set():
            self._settled.set()
            self._changed()

    def nudge(self) -> None:
        """Beat at once."""
        self._wake.set()

    async def run(self, session: Session) -> None:
        """Beat until cancelled."""
        settled_at = None
        while True:
            if self._connected:
                await self._say(session)
                settled_at = settled_at or self._clock() + SETTLE_S
            await asyncio.sleep(_GAP_S)
            pause = BEAT_S - _GAP_S
            if settled_at is not None and not self._settled.is_set():
                pause = max(0.0, settled_at - self._clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            self.look()
            if settled_at is not None and self._clock() >= settled_at:
                self.settle()

    async def leave(self, session: Session) -> None:
        """Take leave, so that the others do not wait until this store is missed."""
        await self._say(session, ends=True)

    def word(self, *, ends: bool = False) -> Beat:
        """Return what this store says of itself."""
        return Beat(run=self._run, keeps=self._keeps, hello=self.hello, holds=self._holds, ends=ends)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a beat; what is none is passed over."""
        named = _TOPIC.fullmatch(topic)
        try:
            beat = Beat.from_bytes(payload) if named else None
        except WireError as error:
            self._seldom.say(logging.WARNING, "wire", "%s: %s: passed over", topics.shown(topic), error)
            return
        if named is None or beat is None:
            return
        if named[1] == self._store and beat.hello is not None:
            self.hello = max(self.hello or "", beat.hello)
        if topic == self.topic:
            self._hear_own(beat)
        elif beat.ends or beat.keeps != self._keeps:
            if self._peers.pop(topic, None):
                log.info("%s has taken leave, or keeps elsewhere", topic)
                self._changed()
        else:
            self._hear_other(topic, beat)

    def look(self) -> None:
        """See who was not heard for long."""
        if not self._connected or self._is_deaf:
            return
        late = self._clock() - GONE_S
        gone = {topic: peer for topic, peer in self._peers.items() if peer.at < late}
        for topic in gone:
            del self._peers[topic]
            log.warning("%s was not heard for %.0f s: its work goes to the other stores", topic, GONE_S)
        if gone:
            self._changed()
        for topic, peer in gone.items():
            self._lost(topic, peer)

    def _hear_own(self, beat: Beat) -> None:
        if beat.run == self._run:
            if self._is_deaf:
                self._allow_time()
            self._echo_at = self._clock()
            self.echoes += 1
        elif not beat.ends:
            form = "another store is at work as %s: give each a name, or a store.instance, of its own"
            self._seldom.say(logging.ERROR, "rival", form, self.topic)

    @property
    def _is_deaf(self) -> bool:
        """Whether not even its own beats came for long, though the broker hands them back."""
        return self.echoes > 0 and self._clock() - self._echo_at > GONE_S / 2

    def _allow_time(self) -> None:
        """Give all that could not be heard time anew."""
        self._echo_at = self._clock()
        for peer in self._peers.values():
            peer.at = self._echo_at

    def _hear_other(self, topic: str, beat: Beat) -> None:
        self.on_alive(beat.run)
        known = self._peers.get(topic)
        if known is None and len(self._peers) >= _MOST - 1:
            self._seldom.say(logging.WARNING, "many", "more than %d stores: others are passed over", _MOST)
            return
        self._peers[topic] = _Peer(self._clock(), beat.run, beat.holds)
        if known is None:
            log.info("%s is at work as well", topic)
            self.nudge()  # it is to hear of us at once
            self._changed()
        elif known.run != beat.run:
            self._lost(topic, known)

    def _lost(self, topic: str, peer: _Peer) -> None:
        """One went without a word. Of those who are left, one tells the edges.

        A process that is back in its place already does not know of what was held there.
        """
        if not peer.holds or not self._settled.is_set():
            return
        left = (self.topic, *(one for one in self._peers if one != topic))
        if max(left, key=lambda who: _weight(who, topic)) == self.topic:
            self.on_loss(peer.run)

    def _changed(self) -> None:
        self._owned.clear()
        self.on_change()

    async def _say(self, session: Session, *, ends: bool = False) -> None:
        with suppress(NotConnectedError):
            await session.publish(self.topic, self.word(ends=ends).to_bytes())


def _weight(who: str, word: str) -> tuple[bytes, str]:
    name = f"{who} {word}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name, digest_size=_DIGEST).digest(), who
