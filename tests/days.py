"""A day of two sites in a bucket, made by the diary that stores keep, on a clock of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final, cast

import cv2
import numpy as np

from facerelay import face
from facerelay.cloud.contract import Bucket
from facerelay.cloud.history.diary import Diary
from facerelay.edge.cameras.portrait import COLLINS, HOPPER, Source
from facerelay.edge.cameras.raster import Image
from facerelay.messages import Account, Latency, Ledger, LinkHealth

DAY: Final = datetime(2026, 11, 20, tzinfo=UTC)
_BUSY: Final = (2, 1, 1, 1, 1, 2, 4, 9, 14, 12, 10, 11, 16, 15, 12, 11, 12, 15, 17, 13, 9, 6, 4, 3)
"""Faces an hour at a door."""

OUTBOXES: Final = {"home": "a" * 32, "shop": "b" * 32}
CAMERAS: Final = {"home": ("door", "yard"), "shop": ("till",)}
SHARES: Final = {"home/door": 1.0, "home/yard": 0.4, "shop/till": 2.5}


@dataclass
class _Edge:
    """What an edge counts, minute by minute."""

    site: str
    accounts: dict[str, Account]
    cuts: int = 0
    oldest: datetime | None = None
    carried: dict[str, float] = field(default_factory=dict)

    def minute(self, now: datetime, *, up: bool, dark: bool) -> None:
        """Count what a minute brings; without a link faces wait, and past two the oldest are dropped."""
        for name, account in self.accounts.items():
            gone = dark and name == "home/yard"
            due = self.carried.get(name, 0.0) + SHARES[name] * _BUSY[now.hour] / 60 * (not gone)
            new, self.carried[name] = int(due), due - int(due)
            waiting = account.waiting + new
            dropped = max(0, waiting - 2) if not up else 0
            stored = waiting if up else 0
            self.accounts[name] = account.model_copy(update={
                "frames": account.frames + (0 if gone else 600), "inspected": account.inspected + 200,
                "captured": account.captured + new, "stored": account.stored + stored,
                "waiting": waiting - dropped - stored, "dropped": account.dropped + dropped,
                "bytes": account.bytes + 7_000 * stored, "dark_since": now if gone else None,
                "latency_ms": Latency(p50=38.0, p99=140.0 if up and not waiting > 2 else 5_400_000.0),
                "reasons": {"evicted": account.dropped + dropped} if account.dropped + dropped else {},
            })  # fmt: skip
        waits = any(account.waiting for account in self.accounts.values())
        self.oldest = (self.oldest or now) if waits else None

    def ledger(self, now: datetime) -> Ledger:
        """Return the books as they are told."""
        oldest = (now - self.oldest).total_seconds() if self.oldest else None
        link = LinkHealth(time=now, oldest_s=oldest, up_bytes_s=2_000, window=500_000, cuts=self.cuts)
        return Ledger(outbox=OUTBOXES[self.site], cameras=self.accounts, link=link)


async def make_marks(bucket: Bucket, *, outages: bool = True) -> Mapping[str, Account]:
    """Write the marks of `DAY`, and return the accounts at its end.

    With outages home is cut off from 01:10 to 04:40 and drops faces, its yard is dark from 09:05 to 10:50,
    and no store is at work from 13:00 to 13:25.
    """
    now = DAY - timedelta(minutes=5)
    diary = Diary(bucket, store="store", now=lambda: now)
    edges = [_Edge(site, {f"{site}/{name}": Account() for name in CAMERAS[site]}) for site in OUTBOXES]
    while now < DAY + timedelta(days=1):
        minute = int((now - DAY).total_seconds() // 60)
        cut = outages and 70 <= minute < 280
        idle = outages and 780 <= minute < 805
        if not idle:
            diary.beat()
        for edge in edges:
            up = not idle and not (cut and edge.site == "home")
            edge.cuts += outages and minute == 280 and edge.site == "home"
            edge.minute(now, up=up, dark=outages and 545 <= minute < 650)
            if up:
                diary.take(edge.site, edge.ledger(now))
        if minute % 60 == 59 and not idle:
            await diary.meet()
            await diary.flush(everything=True)
        now += timedelta(minutes=1)
    return {name: account for edge in edges for name, account in edge.accounts.items()}


async def put_faces(bucket: Bucket, count: int, *, cameras: tuple[str, ...] = tuple(SHARES)) -> list[str]:
    """Store faces of the built-in scene's people, taken over `DAY`; returns their keys."""
    chance = Random(7)  # noqa: S311 - a picture's light is no secret
    people = [_portrait(source) for source in (HOPPER, COLLINS)]
    keys = []
    for number in range(count):
        site, _, camera = cameras[number % len(cameras)].partition("/")
        quality = round(chance.uniform(0.08, 0.97), 3)
        hour = chance.choices(range(24), _BUSY)[0]
        at = DAY + timedelta(hours=hour, seconds=chance.uniform(0, 3599))
        data = _taken(people[number % 2], quality, chance)
        known = face.Face(
            id=face.new_id(), outbox=OUTBOXES[site], run="c" * 8, seq=number + 1, site=site, camera=camera,
            time=at, box=(10, 20, 90, 110), frame=(1280, 720), score=0.9, quality=quality,
            parts={"sharpness": quality}, clock="synchronised",
        )  # fmt: skip
        frozen = face.freeze(known, data)
        await bucket.put_new(frozen.key, frozen.data, content_type="image/jpeg")
        keys.append(frozen.key)
    return keys


def _portrait(source: Source) -> Image:
    import importlib.util  # noqa: PLC0415 - where the scene's own code does it

    spec = importlib.util.find_spec(source.package)
    assert spec is not None
    assert spec.origin is not None
    data = (Path(spec.origin).parent / source.file).read_bytes()
    assert hashlib.sha256(data).hexdigest() == source.sha256
    x, y, tall = source.face
    image = cast("Image", cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    return image[max(0, y - tall) : y + tall, max(0, x - tall) : x + tall]


def _taken(person: Image, quality: float, chance: Random) -> bytes:
    """Return a portrait as a camera of that quality might have taken it."""
    side = int(64 + 112 * quality)
    small = cv2.resize(person, (side, int(side * 1.2)), interpolation=cv2.INTER_AREA)
    blur = max(1, int((1 - quality) * side / 7)) | 1
    soft = cv2.GaussianBlur(small, (blur, blur), 0)
    lit = np.clip(soft.astype(np.float32) * chance.uniform(0.75, 1.15), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", lit, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
