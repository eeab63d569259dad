"""Receipts, listened to: each says that a face has landed, and by its id when it was taken."""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime
from typing import Final

from facerelay.cloud.gallery.live import Live
from facerelay.face import SLUG
from facerelay.messages import Receipts, WireError
from facerelay.mqtt import Connect

FILTER: Final = "receipts/+/+"
_TOPIC: Final = re.compile(rf"receipts/({SLUG})/[0-9a-f]+", re.ASCII)
_WINDOW: Final = 200


async def listen(live: Live, connect: Connect) -> None:
    """Nudge the watcher by the receipts of all stores, until cancelled.

    While there is no connection, the watcher looks by itself. A session of its own and QoS 0: a receipt
    that is missed is made up for by the next look.
    """
    session = connect(
        client_id=f"facerelay-gallery-{secrets.token_hex(6)}",
        subscribe=((FILTER, 0),),
        clean=True,
        window=_WINDOW,
    )
    live.nudges = lambda: session.connected
    async with session:
        async for message in session:
            message.ack()
            _take(live, message.topic, message.payload)


def _take(live: Live, topic: str, payload: bytes) -> None:
    named = _TOPIC.fullmatch(topic)
    if named is None or not live.listeners:
        return
    try:
        batch = Receipts.from_bytes(payload)
    except WireError:
        return
    for receipt in batch.receipts:
        taken = _time_of(receipt.id)
        if receipt.outcome == "stored" and taken is not None:
            live.nudge(named[1], taken)


def _time_of(face_id: str) -> datetime | None:
    """Return when a UUIDv7 was made, which is when its face was taken or moments later."""
    try:
        return datetime.fromtimestamp((uuid.UUID(face_id).int >> 80) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
