"""Whether what is erased from a bucket is gone, or kept by the bucket itself."""

from __future__ import annotations

from urllib.parse import urlsplit

from facerelay.cloud.contract import BucketError
from facerelay.cloud.whole import UnaskableError, Whole
from facerelay.config import Bucket


class KeptError(Exception):
    """What is erased there stays; the message says what to do."""


async def see(settings: Bucket) -> str:
    """Return what is known of deleted objects in a bucket.

    Raises:
        KeptError: it keeps them, so that erasure cannot be promised.
    """
    scheme = urlsplit(settings.url).scheme
    if scheme in {"file", "memory"}:
        return (
            "what is deleted is gone from the folder; snapshots and backups of its disk are yours to see to"
        )
    if scheme != "s3":
        return "not asked: see at the provider that versions and soft delete are off"
    try:
        keeps = await Whole.of(settings).keeps()
    except (UnaskableError, BucketError) as error:
        return f"not known, see at the provider that no versions are kept: {error}"
    if keeps.locked:
        raise KeptError(
            "the bucket has object lock: what is erased stays as a locked version for as long as the lock"
            " says; keep faces in a bucket without it"
        )
    if keeps.versions:
        state = "keeps versions" if keeps.versions == "Enabled" else "kept versions, and has the old ones"
        raise KeptError(
            f"the bucket {state}: what is erased stays as an old version, so erasure cannot be promised;"
            " use a bucket without versioning, or have old versions deleted after a day:"
            " facerelay lifecycle --apply"
        )
    return "no versions are kept: what is erased is gone"
