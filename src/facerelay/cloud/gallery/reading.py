"""Faces read from the bucket: their bytes, what they say, their thumbnails; each as seldom as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final

from facerelay import face
from facerelay.cloud import keys
from facerelay.cloud.contract import Bucket, BucketError, MissingError
from facerelay.cloud.gallery import thumbs
from facerelay.cloud.gallery.cache import Cache, Learnt
from facerelay.cloud.single_flight import SingleFlight
from facerelay.cloud.unseal import Look, Unsealer

_AT_ONCE: Final = 24
_DECODERS: Final = 2


class Reader:
    """Reads faces, and remembers what they say.

    Args:
        bucket: where.
        cache: what was read before.
        limits: what a picture may be, at most.
        is_erased: whether a face was erased, meanwhile perhaps.
        unsealer: opens what is sealed; None leaves it closed.
    """

    def __init__(
        self,
        bucket: Bucket,
        cache: Cache,
        *,
        limits: face.Limits,
        is_erased: Callable[[str], bool] = lambda _: False,
        unsealer: Unsealer | None = None,
    ) -> None:
        self._bucket = bucket
        self._cache = cache
        self._limits = limits
        self._is_erased = is_erased
        self._unsealer = unsealer or Unsealer(limits)
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._decoders = asyncio.Semaphore(_DECODERS)
        self._large = asyncio.Lock()
        self._making = SingleFlight[bytes]()

    async def picture(self, key: str) -> Look:
        """Return a face, opened where it is sealed and can be.

        Raises:
            MissingError: it is not there.
            BucketError: it cannot be read.
        """
        async with self._gate:
            data = await self._bucket.get(key, max_bytes=self._limits.bytes)
        return await self._unsealer.look(data)

    async def is_sealed(self, key: str) -> bool:
        """Whether a face whose thumbnail was asked for is sealed, or may be."""
        if not key.endswith(".png"):
            return False
        learnt = (await self._cache.learnt([key])).get(key)
        return learnt is None or learnt.sealed

    async def known(self, wanted: Sequence[str]) -> dict[str, Learnt]:
        """Return what is known of faces without reading them."""
        return dict(await self._cache.learnt(wanted))

    async def learn(self, wanted: Sequence[str]) -> dict[str, Learnt]:
        """Read faces and return what they say; one that is gone is left out.

        Raises:
            BucketError: the bucket cannot be read.
        """
        read = await asyncio.gather(*map(self._learn, wanted))
        found = {key: one for key, one in zip(wanted, read, strict=True) if one is not None}
        await self._cache.learn(found)
        await self._drop_erased(found)
        return found

    async def thumb(self, key: str) -> bytes:
        """Return a face's thumbnail, made if there is none yet, once for all who ask.

        Raises:
            MissingError: there is no such face.
            DamagedError: it cannot be shown.
            BucketError: the bucket cannot be read.
        """
        if kept := await self._cache.thumb(key):
            return kept
        if (known := (await self._cache.learnt([key])).get(key)) and known.fault:
            raise thumbs.DamagedError(known.fault)
        return await self._making.do(key, lambda: self._make(key))

    async def _make(self, key: str) -> bytes:
        async with self._decoders:
            try:
                look = await self.picture(key)
            except BucketError as error:
                if error.fault != "too-large":
                    raise
                await self._cache.keep(key, Learnt(fault="too-large"), None)
                raise thumbs.DamagedError("too-large") from error
            learnt = thumbs.learn(look, self._limits)
            try:
                large = (learnt.width or 0) * (learnt.height or 0) > thumbs.LARGE
                async with self._large if large or learnt.fault else nullcontext():
                    thumb = await asyncio.to_thread(thumbs.make, look.data)
            except thumbs.DamagedError as error:
                await self._cache.keep(key, Learnt(fault=str(error), sealed=learnt.sealed), None)
                raise
        await self._cache.keep(key, replace(learnt, fault=""), thumb)
        await self._drop_erased([key])
        return thumb

    async def _drop_erased(self, kept: Iterable[str]) -> None:
        """Keep nothing of a face that was erased while it was read."""
        await self._cache.drop([key for key in kept if self._is_erased(key)])

    async def _learn(self, key: str) -> Learnt | None:
        try:
            look = await self.picture(key)
        except MissingError:
            return None
        except BucketError as error:
            if error.fault != "too-large":
                raise
            return Learnt(fault="too-large")
        return thumbs.learn(look, self._limits)


def describe(key: str, known: Mapping[str, Learnt] | None = None) -> dict[str, Any]:
    """Return a face as the pages have it; what was not read yet is null.

    Raises:
        ValueError: it is not a face's key.
    """
    facts = keys.parse(key)
    if facts is None:
        raise ValueError("not a face's key")
    learnt = (known or {}).get(key, Learnt())
    return {
        "key": key, "id": facts.id, "site": facts.site, "camera": facts.camera,
        "time": facts.time.isoformat(), "quality": learnt.quality, "width": learnt.width,
        "height": learnt.height,
    }  # fmt: skip
