"""Send pictures through the whole chain: each is a face of its own, and waits for its receipt."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

import click
import cv2
import numpy as np

from facerelay import face, picture
from facerelay.commands import logs
from facerelay.commands.progress import watching
from facerelay.commands.running import connector
from facerelay.config import Config
from facerelay.edge import reading
from facerelay.edge.cameras.raster import Image
from facerelay.edge.clock import clock_state
from facerelay.edge.eyes.freeze import Seal, encode_face, sealer_of
from facerelay.edge.outbox import Outbox
from facerelay.edge.relaying import relaying
from facerelay.steps import Watch

_LOOK_S: Final = 0.1
_MOST_BYTES: Final = 64_000_000


class SendError(Exception):
    """A file cannot be sent; the message names it."""


async def send(
    config: Config,
    files: tuple[Path, ...],
    *,
    camera: str,
    timeout: float,  # noqa: ASYNC109 - the user's setting
    as_json: bool = False,
) -> int:
    """Send files as faces of a camera; prints each one's key and what became of it.

    Each is encoded anew, as a camera's crop would be: what another camera wrote about it stays here.
    They wait in an outbox of their own beside the configured one, which a running capture holds; what
    has no receipt in time stays there, and goes with the next call.

    Returns:
        The exit code: 0 if all are stored.

    Raises:
        SendError: a file is no picture that can be sent.
    """
    path = config.outbox.path.with_name(config.outbox.path.name + ".send")
    most = config.limits.message_bytes
    with Outbox(path, max_bytes=config.outbox.max_bytes, max_message=most) as outbox:
        seal = sealer_of(config)
        frozen = [_freeze(config, outbox, file, camera, seal) for file in files]
        for each in frozen:
            outbox.put(each, chosen=time.time()).result()
        async with relaying(config, outbox, connector(config), brief=True) as relay:
            with watching() as watch:
                await _answered(outbox, timeout, watch)
            held = relay.held
    with closing(reading.open_books(path)) as db:
        states = ("stored", "sent", "waiting", "refused", "dropped", "erased")
        became = {entry.id: entry for entry in reading.entries(db, outbox.id, states)}
    for file, each in zip(files, frozen, strict=True):
        entry = became[each.face.id]
        if as_json:
            known = {"id": entry.id, "state": entry.state, "reason": entry.reason, "key": each.key}
            click.echo(json.dumps({"file": str(file), **known}))
        else:
            why = f" ({entry.reason})" if entry.reason else ""
            click.echo(f"{logs.harmless(str(file))}: {entry.state}{why} {each.key}")
    waiting = sum(became[each.face.id].state == "waiting" for each in frozen)
    if 0 < waiting <= held:
        logs.complain(
            f"the store holds them in a shard that it has open (store.layout), for some minutes: they wait in"
            f" {path}, and the next `facerelay send` learns what became of them; or --timeout longer."
        )
    elif waiting:
        logs.complain(
            f"no receipt yet: is a store running, and the link up (`facerelay doctor`)? They wait in {path},"
            " and go with the next `facerelay send`."
        )
    return 0 if all(became[each.face.id].state in {"stored", "sent"} for each in frozen) else 1


async def _answered(outbox: Outbox, timeout: float, watch: Watch) -> None:  # noqa: ASYNC109 - the user's setting
    until = time.monotonic() + timeout
    total = outbox.waiting().result()
    while time.monotonic() < until and (left := outbox.waiting().result()) > 0:
        watch("receipts", total - left, total)
        await asyncio.sleep(_LOOK_S)


def _decode(data: bytes) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # more pixels than it takes, where limits.pixels is set higher
        image = None
    if image is None:
        raise picture.PictureError("malformed", "the picture cannot be decoded")
    return cast("Image", image)


def _freeze(config: Config, outbox: Outbox, file: Path, camera: str, seal: Seal | None) -> face.Frozen:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
        seen = picture.read(data, max_bytes=_MOST_BYTES, max_pixels=config.limits.pixels)
        image = _decode(data)
        known = face.Face(
            id=face.new_id(), outbox=outbox.id, run=outbox.run, seq=outbox.number(), site=config.site,
            camera=camera, time=datetime.now(UTC), box=(0, 0, seen.width, seen.height),
            frame=(seen.width, seen.height), score=1.0, quality=1.0, clock=clock_state(),
        )  # fmt: skip
        return encode_face(known, image, form=config.picture, most=config.limits.message_bytes, seal=seal)
    except (OSError, picture.PictureError) as error:
        raise SendError(f"{file}: {error}") from error
