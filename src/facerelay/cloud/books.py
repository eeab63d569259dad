"""The books of the edges, as they last said them, in the bucket."""

from __future__ import annotations

import logging
import re
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError
from facerelay.face import SLUG
from facerelay.topics import Ledger, WireError

log = logging.getLogger(__name__)

_MOST: Final = 10_000


class Books:
    """Ledgers that came, of which the last of each outbox is written at the next `flush`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._changed: dict[str, bytes] = {}

    def take(self, topic: str, payload: bytes) -> bool:
        """Take a ledger; returns False where it cannot be read, or speaks for somebody else."""
        try:
            books = Ledger.from_bytes(payload)
        except WireError as error:
            log.warning("%s: not a ledger: %s", topic, error)
            return False
        parts = topic.split("/")
        site, outbox = parts[1:] if len(parts) == 3 else ("", "")  # noqa: PLR2004 - ledger/<site>/<outbox>
        ours = re.fullmatch(SLUG, site) and all(name.startswith(f"{site}/") for name in books.cameras)
        if not ours or outbox != books.outbox:
            log.warning("%s: the ledger is of another site or outbox: not kept", topic)
            return False
        key = f"ledger/site={site}/{outbox}.json"
        if len(self._changed) >= _MOST and key not in self._changed:
            log.warning("%s: too many ledgers at once: not kept", topic)
            return False
        self._changed[key] = books.to_bytes()
        return True

    async def flush(self) -> None:
        """Write what has changed; what the bucket does not take now is tried at the next flush."""
        changed, self._changed = self._changed, {}
        for key, data in changed.items():
            try:
                await self._bucket.put(key, data)
            except BucketError as error:
                log.warning("a ledger is not written: %s", error)
                if error.passing:
                    self._changed.setdefault(key, data)
