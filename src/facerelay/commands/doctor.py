"""Look at everything a machine needs, and say of what is wrong what to do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import click

from facerelay.commands import health, intake
from facerelay.commands.exits import Exit
from facerelay.commands.running import connector
from facerelay.config import Broker, Camera, Config
from facerelay.edge import reading
from facerelay.edge.clock import clock_state

_CONNECT_S: Final = 5.0
_FRAME_S: Final = 15.0
_MARKS: Final = {True: "ok   ", False: "FAIL "}
_LEAST_FREE: Final = 100_000_000

Check = Callable[[], Awaitable[str]]


class CheckError(Exception):
    """Something is wrong; the message says what to do."""


async def examine(config: Config, *, as_json: bool = False) -> int:
    """Run all checks that the settings call for, print a line each, and return the exit code."""
    checks: list[tuple[str, Check]] = [("broker", lambda: _broker(config, config.broker, "broker.url"))]
    if config.cloud is not None:
        cloud = config.cloud
        checks.append(("cloud broker", lambda: _broker(config, cloud, "cloud.url")))
    if config.camera:
        checks.append(("outbox", lambda: _outbox(config)))
        checks.append(("link", lambda: health.check(config)))
        checks.append(("model", lambda: _model(config)))
        checks += [(f"camera {camera.name}", _camera_check(camera)) for camera in config.camera]
        checks += [
            (f"{name} broker", partial(_broker, config, layout.broker(config.broker), f"{name}.url"))
            for name, layout in config.layouts.items()
            if layout.url is not None
        ]
    else:
        if config.store.intake == "jetstream":
            checks.append(("stream", lambda: intake.examine(config)))
        checks.append(("bucket", lambda: _bucket(config)))
        checks.append(("erasure", lambda: _erasure(config)))
    if config.webhook.url is not None:
        checks.append(("webhook", lambda: _webhook(config)))
    if config.trust.authority is not None or config.broker.server_cert is not None:
        checks.append(("certificates", lambda: _certificates(config)))
    if config.seal.recipients or config.seal.identity_file is not None:
        checks.append(("seal", lambda: _seal(config)))
    checks.append(("clock", _clock))
    return max([await _examine(name, check, as_json=as_json) for name, check in checks])


async def _examine(name: str, check: Check, *, as_json: bool) -> int:
    try:
        word, fine = await check(), True
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        word, fine = f"{error}", False
    if as_json:
        click.echo(json.dumps({"check": name, "ok": fine, "says": word}))
    else:
        click.echo(f"{_MARKS[fine]} {name}: {word}")
    return Exit.FINE if fine else Exit.UNWELL


async def _broker(config: Config, broker: Broker, setting: str) -> str:
    session = connector(config, broker)(client_id=f"{config.site}-doctor", subscribe=(), clean=True, window=1)
    async with session:
        try:
            await asyncio.wait_for(session.wait_connected(), _CONNECT_S)
        except TimeoutError:
            why = session.trouble or f"no answer in {_CONNECT_S:.0f} s"
            if not why.startswith("the broker"):  # else it is there, and has said what it wants
                why += f": is a broker running there (`facerelay run`, or `facerelay broker`)? See {setting}"
            raise CheckError(f"{broker.url}: {why}") from None
    return f"{broker.url} answers"


async def _seal(config: Config) -> str:
    from facerelay.sealing import Opener, sealer  # noqa: PLC0415 - few faces are sealed

    said = []
    if sealer(config) is not None:
        said.append(f"faces are sealed to {len(config.seal.recipients)} public keys")
    if config.seal.identity_file is not None:
        Opener(config.seal.identity_file)
        said.append(f"sealed faces are opened with {config.seal.identity_file}")
    return "; ".join(said)


async def _model(config: Config) -> str:
    import numpy as np  # noqa: PLC0415 - the cloud has no detector

    from facerelay.edge.eyes.detect import configured  # noqa: PLC0415 - as above

    detector = await asyncio.to_thread(configured, config.detect)
    # A library that a network runs on may be there and yet fail at the first picture.
    await asyncio.to_thread(detector.detect, np.zeros((64, 64, 3), np.uint8))
    return f"{type(detector).__name__} is ready"


def _camera_check(camera: Camera) -> Check:
    return lambda: asyncio.wait_for(asyncio.to_thread(_one_frame, camera), _FRAME_S + 1)


def _one_frame(camera: Camera) -> str:
    from facerelay.edge.cameras.camera import expand, open_camera  # noqa: PLC0415 - the cloud has no camera
    from facerelay.edge.cameras.posted import is_topic  # noqa: PLC0415 - as above

    sources = expand(camera.source)
    if is_topic(camera.source):
        return "its pictures come by MQTT: the topic can be taken"
    stop = threading.Event()
    timer = threading.Timer(_FRAME_S, stop.set)
    timer.start()
    try:
        for _, source in sources:
            for frame in open_camera(
                source, pace=False, stop=stop, fps=camera.fps, transport=camera.transport, freeze_s=0
            ):
                if not frame.blank:
                    return f"a frame of {frame.size[0]}x{frame.size[1]}"
        raise CheckError(f"no frame in {_FRAME_S:.0f} s: see its source")
    finally:
        timer.cancel()


async def _outbox(config: Config) -> str:
    path = config.outbox.path.absolute()
    folder = path.parent
    if not os.access(folder, os.W_OK):
        raise CheckError(f"{folder} cannot be written: see outbox.path")
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE:
        raise CheckError(f"{folder} has {free // 1_000_000} MB free: make room, or set outbox.path")
    if path.exists():
        reading.open_books(path).close()
    broken = len([found for found in folder.glob(f"{path.name}.broken-*") if not found.name.endswith("-wal")])
    aside = f"; {broken} broken outboxes lie beside it: see to the disk, then delete them" if broken else ""
    return f"{folder} has {free // 1_000_000} MB free{aside}"


async def _bucket(config: Config) -> str:
    from facerelay.cloud.bucket import open_bucket  # noqa: PLC0415 - the edge needs no bucket

    found = await open_bucket(config.bucket).probe()
    if not found.create_only:
        raise CheckError(f"{found}: a second store could write over a face; choose a server that keeps to it")
    return str(found)


async def _erasure(config: Config) -> str:
    from facerelay.commands import keeping  # noqa: PLC0415 - the edge needs no bucket

    return await keeping.see(config.bucket)


async def _webhook(config: Config) -> str:
    from facerelay.cloud.webhook import reach  # noqa: PLC0415 - the edge needs no webhook

    try:
        return f"{await reach(config.webhook)} can be reached; nothing was posted"
    except (OSError, ValueError) as error:
        raise CheckError(f"{error or 'no answer'}: see webhook.url, secret and ca") from None


async def _certificates(config: Config) -> str:
    from facerelay.commands.roster import fingerprint  # noqa: PLC0415 - where there are certificates
    from facerelay.fleet import endings, see_own  # noqa: PLC0415 - as above

    see_own(config)
    found = endings(config)
    wrong = [f"{each.what} {each.wrong}" for each in found if each.wrong]
    if wrong:
        raise CheckError("; ".join(wrong))
    first = min(found, key=lambda each: each.end)
    said = f"{len(found)} are valid; the first to end is {first.what}, on {first.end:%Y-%m-%d}"
    return said + (f"; the authority's fingerprint: {fingerprint(config)}" if config.trust.authority else "")


async def _clock() -> str:
    state = clock_state()
    advice = (
        "" if state == "synchronised" else ": faces say so in their EXIF; run chrony or systemd-timesyncd"
    )
    return f"{state}{advice}"
