"""What becomes of one message: the contract of a receipt, without MQTT."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from facerelay import face as faces
from facerelay import picture
from facerelay.cloud import foreign
from facerelay.cloud.contract import Bucket, BucketError, content_type
from facerelay.cloud.counters import Counters
from facerelay.cloud.patience import REFUSALS, SAY_EVERY_S, Backoff, works
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.shards.pack import Pack
from facerelay.cloud.shards.row import Row
from facerelay.cloud.shelf import Objects, Placed, Shelf, create
from facerelay.cloud.tombstones import AGE_S, Tombstones
from facerelay.face import Face, FaceError, Frozen, Limits
from facerelay.messages import Receipt
from facerelay.sealed import SealError, UncheckedError
from facerelay.seldom import Seldom
from facerelay.topics import FaceTopic, shown

log = logging.getLogger(__name__)

_OBJECTS: Final = ("faces/", "foreign/")

_ANY: Final = Limits(bytes=sys.maxsize, pixels=sys.maxsize)
"""Of a face that was taken already."""

_BEYOND: Final = {"too-large", "too-many-pixels"}


@dataclass(slots=True)
class Answer:
    """A receipt, and whom it is for."""

    site: str
    outbox: str
    receipt: Receipt


def _owner(payload: bytes) -> Face | None:
    """Return whose face it is that is over our limits, so that its edge can be told."""
    try:
        return faces.parse(payload, _ANY).face
    except FaceError as error:
        return error.face


class Keeper:
    """Decides what becomes of a message, and has the bucket do it.

    Args:
        bucket: where faces are kept.
        limits: what a picture may be, at most.
        topic: where faces travel.
        quarantine: takes what cannot be kept.
        tombstones: say what was erased.
        seals: checks who sealed a face, and raises `SealError`; None: sealed faces are kept unchecked.
        counters: where all of it is counted; made anew if not given.
        shelf: where faces are put; an object each if not given.

    Attributes:
        stored: is told of each face that is in the bucket, before its receipt is given; of one that was sent
            again, too.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        limits: Limits,
        topic: FaceTopic,
        quarantine: Quarantine,
        tombstones: Tombstones,
        seals: Callable[[Frozen], Awaitable[None]] | None = None,
        counters: Counters | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.counters = counters or Counters()
        self.stored: Callable[[Frozen], Awaitable[None]] | None = None
        self._bucket = bucket
        self._limits = limits
        self._topic = topic
        self._quarantine = quarantine
        self._tombstones = tombstones
        self._seals = seals
        self._shelf = Objects(bucket, counters=self.counters) if shelf is None else shelf
        self._bucket_fails = Seldom(log, every_s=SAY_EVERY_S)
        self._seldom = Seldom(log)

    async def keep(self, topic: str, payload: bytes) -> Answer | None:
        """Deal with one message; returns when it is durable, refused, or counted.

        While the bucket is down this tries again and again: nobody is told anything meanwhile.

        Returns:
            The receipt, where the message has an owner.
        """
        backoff, refusals = Backoff(), 0
        while True:
            try:
                return await self._keep(topic, payload)
            except UncheckedError as error:
                form = "seals cannot be checked, trying again: %s"
                self._bucket_fails.say(logging.ERROR, "seals", form, error)
            except BucketError as error:
                self.counters.failures += 1
                form = "the bucket fails, trying again: %s"
                self._bucket_fails.say(logging.WARNING, "bucket", form, error)
                refusals += not error.passing and error.key.startswith(_OBJECTS)
                if refusals >= REFUSALS and await works(self._bucket):
                    return self._give_up(topic, payload)
            await backoff.pause()

    async def _keep(self, topic: str, payload: bytes) -> Answer | None:
        try:
            frozen = faces.parse(payload, self._limits)
        except FaceError as error:
            return await self._unreadable(topic, payload, error)
        face = frozen.face
        if doubt := await self._doubt(topic, frozen):
            reason, why = doubt
            return await self._refuse(topic, payload, face, reason, why=why)
        if self._is_known_erased(face) if self._shelf.holds else await self._erased(face):
            return self._answer_erased(frozen)
        placed = await self._shelf.place(frozen)
        if placed == "conflict":
            return await self._refuse(topic, payload, face, "conflict")
        return await self._placed(frozen, placed)

    async def _placed(self, frozen: Frozen, placed: Placed) -> Answer:
        if placed == "held":
            return _answer(frozen.face, frozen.sha256, "held")
        if await self._erased(frozen.face):
            await self._shelf.remove(frozen)
            return self._answer_erased(frozen)
        if self.stored is not None:
            await self.stored(frozen)
        return self._answer_stored(frozen, duplicate=placed == "same")

    async def settle(self, pack: Pack, outcome: str, rows: Sequence[Row]) -> list[Answer]:
        """Count what became of faces that were held; returns their receipts.

        Args:
            pack: where their bytes are still in memory.
            outcome: of all of them: `stored`, `erased` or `refused:<reason>`.
            rows: theirs.
        """
        for row in rows:
            if outcome == "erased":
                self.counters.erased += 1
            elif outcome == "stored":
                if self.stored is not None:
                    await self.stored(faces.parse(pack.picture(row), _ANY))
                self.counters.stored += 1
                self.counters.bytes += row.length
            else:
                self.counters.refused[outcome.partition(":")[2]] += 1
        return [
            Answer(row.site, row.outbox, Receipt(id=row.id, sha256=row.sha256, outcome=outcome))
            for row in rows
        ]

    async def _unreadable(self, topic: str, payload: bytes, error: FaceError) -> Answer | None:
        if error.reason == "not-ours":
            await self._foreign(topic, payload)
            return None
        if error.reason in _BEYOND and (face := _owner(payload)):
            return await self._refuse(topic, payload, face, error.reason)
        if error.reason == "too-large":
            self.counters.discarded["too-large"] += 1
            form = "%s: %d bytes, too large: discarded"
            self._seldom.say(logging.WARNING, "too-large", form, shown(topic), len(payload))
            return None
        if error.face is not None:
            return await self._refuse(topic, payload, error.face, error.reason, why=str(error))
        await self._set_aside(topic, payload, error.reason, why=str(error))
        return None

    async def _foreign(self, topic: str, payload: bytes) -> None:
        seen = picture.read(payload, max_bytes=self._limits.bytes, max_pixels=self._limits.pixels)
        sha256 = hashlib.sha256(payload).hexdigest()
        key = f"{foreign.prefix(topic)}/{sha256}.{seen.extension}"
        if await foreign.is_erased(self._bucket, sha256):
            self.counters.erased += 1
            return
        placed = await create(
            self._bucket, key, payload, media=content_type(seen.extension), counters=self.counters
        )
        if placed == "conflict":
            await self._set_aside(topic, payload, "conflict")
        elif placed == "new":
            self.counters.foreign += 1
            form = "%s: a foreign picture, kept as %s"
            self._seldom.say(logging.INFO, "foreign", form, shown(topic), key)

    async def _refuse(
        self, topic: str, payload: bytes, face: Face, reason: str, *, why: str = ""
    ) -> Answer | None:
        """Set a face aside, and answer it, unless it came on another's topic.

        Who sent it there is not whom it names: a site could have others sent receipts without end, and
        whoever replays a face there could have its edge give it up.
        """
        await self._tombstones.refresh(age_s=AGE_S)
        if self._is_known_erased(face):
            self.counters.erased += 1
            outcome = "erased"
        else:
            await self._set_aside(topic, payload, reason, face, why=why)
            self.counters.refused[reason] += 1
            outcome = f"refused:{reason}"
        if not self._is_on_its_topic(topic, face):
            return None
        return _answer(face, hashlib.sha256(payload).hexdigest(), outcome)

    async def _set_aside(
        self, topic: str, payload: bytes, reason: str, face: Face | None = None, *, why: str = ""
    ) -> None:
        kept = await self._quarantine.put(topic, payload, reason, face)
        (self.counters.quarantined if kept else self.counters.discarded)[reason] += 1
        what = ("in quarantine" if kept else "counted, not kept") + (f": {why}" if why else "")
        form = "%s: %d bytes, %s: %s"
        self._seldom.say(logging.WARNING, f"{reason} {kept}", form, shown(topic), len(payload), reason, what)

    def _give_up(self, topic: str, payload: bytes) -> Answer | None:
        """The bucket works, and does not want these bytes."""
        form = "%s: %d bytes: the bucket refuses them for good"
        self._seldom.say(logging.ERROR, "bucket", form, shown(topic), len(payload))
        try:
            frozen = faces.parse(payload, self._limits)
        except FaceError as error:
            self.counters.discarded["bucket"] += 1
            face = error.face
        else:
            face = frozen.face
        if face is None:
            return None
        self.counters.refused["bucket"] += 1
        return _answer(face, hashlib.sha256(payload).hexdigest(), "refused:bucket")

    async def _doubt(self, topic: str, frozen: Frozen) -> tuple[str, str] | None:
        """Return why a face is not taken at its word, in a slug and in words; None where it is."""
        face = frozen.face
        if not self._is_on_its_topic(topic, face):
            return "wrong-topic", f"its EXIF says that it is of {face.site}/{face.camera}"
        if face.sealed and self._seals is not None:
            try:
                await self._seals(frozen)
            except SealError as error:
                return "bad-seal", str(error)
        return None

    def _is_on_its_topic(self, topic: str, face: Face) -> bool:
        """Whether the topic agrees with the picture, where the template names site or camera."""
        return "{" not in self._topic.template or topic == self._topic.publish(face.site, face.camera)

    async def _erased(self, face: Face) -> bool:
        return await self._tombstones.covers(face.id, face.site, face.camera, face.time)

    def _is_known_erased(self, face: Face) -> bool:
        return self._tombstones.covered(face.id, face.site, face.camera, face.time)

    def _answer_erased(self, frozen: Frozen) -> Answer:
        self.counters.erased += 1
        return _answer(frozen.face, frozen.sha256, "erased")

    def _answer_stored(self, frozen: Frozen, *, duplicate: bool) -> Answer:
        if duplicate:
            self.counters.duplicates += 1
        else:
            self.counters.stored += 1
            self.counters.bytes += len(frozen.data)
        return _answer(frozen.face, frozen.sha256, "stored", duplicate=duplicate)


def _answer(face: Face, sha256: str, outcome: str, *, duplicate: bool = False) -> Answer:
    receipt = Receipt(id=face.id, sha256=sha256, outcome=outcome, duplicate=duplicate)
    return Answer(face.site, face.outbox, receipt)
