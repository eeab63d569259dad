"""The books of the edges, as they last said them, in the bucket."""

from __future__ import annotations

import logging
import re
from typing import Final

from facerelay.cloud.contract import Bucket, BucketError
from facerelay.face import SLUG
from facerelay.seldom import Seldom
from facerelay.topics import Ledger, WireError, shown

log = logging.getLogger(__name__)

ROOT: Final = "ledger"
_MOST: Final = 10_000
_MOST_BYTES: Final = 16_000_000


class Books:
    """Ledgers that came, of which the last of each outbox is written at the next `flush`.

    They are kept as they came: a ledger that is read and written anew can be many times as long.
    """

    def __init__(self, bucket: Bucket, *, max_bytes: int = _MOST_BYTES) -> None:
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0
        self._seldom = Seldom(log)

    def take(self, topic: str, payload: bytes) -> bool:
        """Take a ledger; returns False where it cannot be read, or speaks for somebody else."""
        try:
            books = Ledger.from_bytes(payload)
        except WireError:
            return self._refuse("not a ledger that can be read", topic, payload)
        parts = topic.split("/")
        site, outbox = parts[1:] if len(parts) == 3 else ("", "")  # noqa: PLR2004 - ledger/<site>/<outbox>
        ours = re.fullmatch(SLUG, site) and all(name.startswith(f"{site}/") for name in books.cameras)
        if not ours or outbox != books.outbox:
            return self._refuse("the ledger is of another site or outbox", topic, payload)
        key = f"{ROOT}/site={site}/{outbox}.json"
        grown = self._bytes + len(payload) - len(self._waiting.get(key, b""))
        if grown > self._max_bytes or (len(self._waiting) >= _MOST and key not in self._waiting):
            return self._refuse("too many ledgers at once", topic, payload)
        self._waiting[key] = payload
        self._bytes = grown
        return True

    async def flush(self) -> None:
        """Write what has changed; what the bucket does not take now is tried at the next flush."""
        for key, data in list(self._waiting.items()):
            try:
                await self._bucket.put(key, data)
            except BucketError as error:
                self._seldom.say(logging.WARNING, "write", "a ledger is not written: %s", error)
                if error.passing:
                    continue
            if self._waiting.get(key) is data:  # and no newer one came meanwhile
                del self._waiting[key]
                self._bytes -= len(data)

    def _refuse(self, why: str, topic: str, payload: bytes) -> bool:
        form = "%s: %d bytes: %s: not kept"
        self._seldom.say(logging.WARNING, why, form, shown(topic), len(payload), why)
        return False
