"""A month of faces for the gallery's bench: 20 cameras at two sites, 30 days until now."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from bench.plain import ACCESS_KEY, BUCKET, SECRET_KEY
from facerelay import face

CAMERAS = 20
DAYS = 30
_SITES = 2
_PROCESSES = 2
_PICTURES = 16
_AT_ONCE = 64
_TRIES = 5


def fill_folder(root: Path, count: int, now: datetime) -> None:
    """Write the faces as the store would name them; not synchronised, which is not what is measured."""
    context = get_context("spawn")
    parts = [
        context.Process(target=_write_part, args=(str(root), count, now, part)) for part in range(_PROCESSES)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        assert part.exitcode == 0, part.exitcode


def fill_s3(endpoint: str, count: int, now: datetime) -> None:
    """Put the faces into the bench's bucket, below `month`."""
    context = get_context("spawn")
    parts = [
        context.Process(target=_put_part, args=(endpoint, count, now, part)) for part in range(_PROCESSES)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        assert part.exitcode == 0, part.exitcode


def faces(count: int, now: datetime, part: int) -> Iterator[face.Frozen]:
    """Yield the faces of one part of the cameras, each with an EXIF of its own."""
    shown = list(pictures())
    chance = random.Random(part)  # noqa: S311 - the same month each time
    each = count // CAMERAS
    for camera in range(part, CAMERAS, _PROCESSES):
        for number in range(each):
            taken = now - timedelta(days=DAYS) * chance.random()
            yield face.freeze(
                face.Face(
                    id=face.new_id(), outbox=f"{camera % _SITES:032x}", run="b" * 8,
                    seq=camera * each + number + 1, site=f"site-{camera % _SITES}",
                    camera=f"camera-{camera // _SITES}", time=taken, box=(40, 30, 80, 96), frame=(1280, 720),
                    score=0.9, quality=chance.random(), track=number // 3, clock="synchronised",
                ),
                chance.choice(shown),
            )  # fmt: skip


def fresh(count: int) -> Iterator[face.Frozen]:
    """Yield faces that are taken now, each when it is asked for."""
    (picture, *_) = pictures()
    for number in range(count):
        yield face.freeze(
            face.Face(
                id=face.new_id(), outbox="f" * 32, run="c" * 8, seq=number + 1, site="site-0",
                camera=f"camera-{number % 10}", time=datetime.now(UTC), box=(40, 30, 80, 96),
                frame=(1280, 720), score=0.9, quality=0.5,
            ),
            picture,
        )  # fmt: skip


def pictures() -> Iterator[bytes]:
    """Yield some pictures of faces' size."""
    rng = np.random.default_rng(1)
    for _ in range(_PICTURES):
        small = rng.integers(0, 255, (14, 12, 3), dtype=np.uint8)
        whole = cv2.resize(small, (192, 224), interpolation=cv2.INTER_CUBIC)
        yield cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _write_part(root: str, count: int, now: datetime, part: int) -> None:
    made: set[str] = set()
    for frozen in faces(count, now, part):
        path = f"{root}/{frozen.key}"
        folder = path.rpartition("/")[0]
        if folder not in made:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - a tenth of the time
            made.add(folder)
        with open(path, "wb") as file:  # noqa: PTH123 - as above
            file.write(frozen.data)


async def _put(store: S3Store, frozen: face.Frozen) -> None:
    """Put a face; what fails in passing is tried again."""
    for left in reversed(range(_TRIES)):
        try:
            await obstore.put_async(store, frozen.key, frozen.data, use_multipart=False)
        except BaseError:
            if not left:
                raise
            await asyncio.sleep(1)
        else:
            return


def _put_part(endpoint: str, count: int, now: datetime, part: int) -> None:
    store = S3Store(
        BUCKET, prefix="month", endpoint=endpoint, region="us-east-1", access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY, virtual_hosted_style_request=False, client_options={"allow_http": True},
    )  # fmt: skip
    waiting = faces(count, now, part)

    async def work() -> None:
        for frozen in waiting:
            await _put(store, frozen)

    async def everything() -> None:
        await asyncio.gather(*(work() for _ in range(_AT_ONCE // _PROCESSES)))

    asyncio.run(everything())
