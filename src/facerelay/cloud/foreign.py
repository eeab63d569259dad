"""Pictures of foreign clients, and messages without an owner: erased by their topic, known by their bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError
from facerelay.cloud.keys import slug_of

ROOT: Final = "foreign"
_ERASED: Final = "tombstones-foreign"


def prefix(topic: str) -> str:
    """Return where the pictures of a topic lie."""
    return f"{ROOT}/topic={slug_of(topic)}"


async def is_erased(bucket: Bucket, sha256: str) -> bool:
    """Whether these bytes were erased; asked of the bucket each time, since foreign pictures are few.

    Raises:
        BucketError: it cannot be known.
    """
    try:
        await bucket.get(tombstone(sha256), max_bytes=1000)
    except BucketError as error:
        if error.fault in {"missing", "no-bucket"}:  # some servers make a bucket at its first PUT
            return False
        raise
    return True


async def bury(bucket: Bucket, sha256: str) -> str:
    """Write down that these bytes were erased, and return the key."""
    key = tombstone(sha256)
    made = json.dumps({"v": 1, "made": datetime.now(UTC).isoformat()})
    await bucket.put_new(key, made.encode(), content_type="application/json")
    return key


def tombstone(sha256: str) -> str:
    """Return the key of what says that bytes of this hash were erased."""
    return f"{_ERASED}/{sha256}.json"
