"""What becomes of one message: the contract of a receipt, without MQTT."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC
from typing import Final, Literal

from facerelay import face as faces
from facerelay import picture
from facerelay.cloud.contract import Bucket, BucketError, MissingError, content_type
from facerelay.cloud.keys import slug_of
from facerelay.cloud.quarantine import Quarantine
from facerelay.cloud.tombstones import Tombstones
from facerelay.face import Face, FaceError, Frozen, Limits
from facerelay.metrics import Spread
from facerelay.seldom import Seldom
from facerelay.topics import FaceTopic, Receipt, shown

log = logging.getLogger(__name__)

_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 10.0
_REFUSALS: Final = 5
_OBJECTS: Final = ("faces/", "foreign/")
_SAY_EVERY_S: Final = 10.0
_JITTER: Final = random.Random()  # noqa: S311 - spreads retries, keeps no secret

_PUT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_BEYOND: Final = {"too-large", "too-many-pixels"}

Placed = Literal["new", "same", "conflict"]


@dataclass(slots=True)
class Answer:
    """A receipt, and whom it is for."""

    site: str
    outbox: str
    receipt: Receipt


@dataclass(slots=True)
class Counters:
    """What a store did since it started; refusals, quarantine and discards by reason.

    Attributes:
        puts: seconds that the bucket took for each object.
        failures: tries that it did not take; each is made again.
    """

    stored: int = 0
    duplicates: int = 0
    erased: int = 0
    foreign: int = 0
    bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    puts: Spread = field(default_factory=lambda: Spread(_PUT_S))
    failures: int = 0

    def __str__(self) -> str:
        plain = f"stored {self.stored} ({self.bytes} bytes), duplicates {self.duplicates}"
        plain += f", erased {self.erased}, foreign {self.foreign}"
        for name in ("refused", "quarantined", "discarded"):
            reasons = getattr(self, name)
            parts = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
            plain += f", {name} {reasons.total()}" + (f" ({parts})" if parts else "")
        return plain


def _owner(payload: bytes) -> Face | None:
    """Return whose face it is that is over our limits, so that its edge can be told."""
    try:
        return faces.parse(payload, Limits(bytes=len(payload), pixels=sys.maxsize)).face
    except FaceError as error:
        return error.face


class Keeper:
    """Decides what becomes of a message, and has the bucket do it.

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
    ) -> None:
        self.counters = Counters()
        self.stored: Callable[[Frozen], Awaitable[None]] | None = None
        self._bucket = bucket
        self._limits = limits
        self._topic = topic
        self._quarantine = quarantine
        self._tombstones = tombstones
        self._bucket_fails = Seldom(log, every_s=_SAY_EVERY_S)
        self._seldom = Seldom(log)

    async def keep(self, topic: str, payload: bytes) -> Answer | None:
        """Deal with one message; returns when it is durable, refused, or counted.

        While the bucket is down this tries again and again: nobody is told anything meanwhile.

        Returns:
            The receipt, where the message has an owner.
        """
        delay, refusals = _FIRST_DELAY_S, 0
        while True:
            try:
                return await self._keep(topic, payload)
            except BucketError as error:
                self.counters.failures += 1
                form = "the bucket fails, trying again: %s"
                self._bucket_fails.say(logging.WARNING, "bucket", form, error)
                refusals += not error.passing and error.key.startswith(_OBJECTS)
                if refusals >= _REFUSALS and await self._works():
                    return self._give_up(topic, payload)
            await asyncio.sleep(delay * _JITTER.uniform(0.5, 1.5))
            delay = min(2 * delay, _LONGEST_DELAY_S)

    async def _keep(self, topic: str, payload: bytes) -> Answer | None:
        try:
            frozen = faces.parse(payload, self._limits)
        except FaceError as error:
            return await self._unreadable(topic, payload, error)
        face = frozen.face
        if not self._on_its_topic(topic, face):
            return await self._refuse(topic, payload, face, "wrong-topic")
        if await self._erased(face):
            return self._answer_erased(frozen)
        placed = await self._place(
            frozen.key, payload, content_type(frozen.extension), _metadata(face), frozen.sha256
        )
        if placed == "conflict":
            return await self._refuse(topic, payload, face, "conflict")
        if await self._erased(face):
            await self._bucket.delete(frozen.key)
            return self._answer_erased(frozen)
        if self.stored is not None:
            await self.stored(frozen)
        return self._answer_stored(frozen, duplicate=placed == "same")

    async def _place(
        self,
        key: str,
        data: bytes,
        media: str,
        metadata: dict[str, str] | None = None,
        sha256: str | None = None,
    ) -> Placed:
        """Create an object, or compare it with the one that is there, byte for byte."""
        began = time.perf_counter()
        new = await self._bucket.put_new(key, data, content_type=media, metadata=metadata, sha256=sha256)
        self.counters.puts.observe(time.perf_counter() - began)
        if new:
            return "new"
        try:
            there = await self._bucket.get(key, max_bytes=len(data))
        except MissingError as error:
            raise BucketError(key, "it was there, and is gone: trying again") from error
        except BucketError as error:
            if error.fault != "too-large":
                raise
            return "conflict"
        return "same" if there == data else "conflict"

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
            return await self._refuse(topic, payload, error.face, error.reason)
        await self._set_aside(topic, payload, error.reason, why=str(error))
        return None

    async def _foreign(self, topic: str, payload: bytes) -> None:
        seen = picture.read(payload, max_bytes=self._limits.bytes, max_pixels=self._limits.pixels)
        sha256 = hashlib.sha256(payload).hexdigest()
        key = f"foreign/topic={slug_of(topic)}/{sha256}.{seen.extension}"
        placed = await self._place(key, payload, content_type(seen.extension))
        if placed == "conflict":
            await self._set_aside(topic, payload, "conflict")
        elif placed == "new":
            self.counters.foreign += 1
            form = "%s: a foreign picture, kept as %s"
            self._seldom.say(logging.INFO, "foreign", form, shown(topic), key)

    async def _refuse(self, topic: str, payload: bytes, face: Face, reason: str) -> Answer:
        await self._set_aside(topic, payload, reason, face)
        self.counters.refused[reason] += 1
        return _answer(face, hashlib.sha256(payload).hexdigest(), f"refused:{reason}")

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

    async def _works(self) -> bool:
        """Whether the bucket takes anything at all: if not, the fault is not with one object."""
        try:
            await self._bucket.probe()
        except BucketError:
            return False
        return True

    def _on_its_topic(self, topic: str, face: Face) -> bool:
        """Whether the topic agrees with the picture, where the template names site or camera."""
        if "{" not in self._topic.template:
            return True
        return topic == self._topic.publish(face.site, face.camera)

    async def _erased(self, face: Face) -> bool:
        return await self._tombstones.covers(face.id, face.site, face.camera, face.time)

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


def _metadata(face: Face) -> dict[str, str]:
    """What is projected into the object's metadata, for tools that look there."""
    return {
        "id": face.id, "site": face.site, "camera": face.camera,
        "time": face.time.astimezone(UTC).isoformat(),
        "score": f"{face.score:.4f}", "quality": f"{face.quality:.4f}",
    }  # fmt: skip
