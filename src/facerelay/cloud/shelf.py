"""Where a face is put: an object each, or many together in a shard (`cloud/shards/open.py`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC
from typing import Final, Literal, Protocol

from facerelay.cloud.contract import Bucket, BucketError, MissingError, content_type
from facerelay.cloud.counters import Counters
from facerelay.face import Face, Frozen

Placed = Literal["new", "same", "held", "conflict"]
"""`held`: it is in memory, and durable later; `same`: its bytes were in the bucket before."""

_BINARY: Final = "application/octet-stream"


class Shelf(Protocol):
    """Takes faces that are to be kept.

    Attributes:
        holds: whether a face comes to the bucket later, and is looked for among the erased at that time.
    """

    holds: bool

    async def place(self, frozen: Frozen) -> Placed:
        """Put a face where it belongs; never over other bytes.

        Raises:
            BucketError: the bucket did not take it.
        """

    async def remove(self, frozen: Frozen) -> None:
        """Take back a face that was erased while it was put.

        Raises:
            BucketError: the bucket did not do it.
        """


class Objects:
    """A face is an object, under its own key.

    Args:
        bucket: where.
        counters: are told how long it takes.
    """

    holds = False

    def __init__(self, bucket: Bucket, *, counters: Counters) -> None:
        self._bucket = bucket
        self._counters = counters

    async def place(self, frozen: Frozen) -> Placed:
        """Create the face's object, or compare it with the one that is there."""
        return await create(
            self._bucket, frozen.key, frozen.data, media=content_type(frozen.extension),
            metadata=metadata_of(frozen.face), sha256=frozen.sha256, counters=self._counters,
        )  # fmt: skip

    async def remove(self, frozen: Frozen) -> None:
        """Delete the face's object."""
        await self._bucket.delete(frozen.key)


async def create(
    bucket: Bucket,
    key: str,
    data: bytes,
    *,
    counters: Counters,
    media: str = _BINARY,
    metadata: Mapping[str, str] | None = None,
    sha256: str | None = None,
) -> Literal["new", "same", "conflict"]:
    """Create an object, or compare it with the one that is there, byte for byte.

    Raises:
        BucketError: it was not created, and it is not known what is there.
    """
    began = time.perf_counter()
    new = await bucket.put_new(key, data, content_type=media, metadata=metadata, sha256=sha256)
    counters.puts.observe(time.perf_counter() - began)
    if new:
        return "new"
    try:
        there = await bucket.get(key, max_bytes=len(data))
    except MissingError as error:
        raise BucketError(key, "it was there, and is gone: trying again") from error
    except BucketError as error:
        if error.fault != "too-large":
            raise
        return "conflict"
    return "same" if there == data else "conflict"


def metadata_of(face: Face) -> dict[str, str]:
    """Return what is projected into the object's metadata, for tools that look there."""
    known = {
        "id": face.id, "site": face.site, "camera": face.camera,
        "time": face.time.astimezone(UTC).isoformat(),
    }  # fmt: skip
    if face.sealed:
        return known | {"sealed": "true"}
    return known | {"score": f"{face.score:.4f}", "quality": f"{face.quality:.4f}"}
