"""The whole chain on this machine: each role a process of its own, two brokers, as it is deployed."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from facerelay import private, settings
from facerelay.cloud.contract import BucketError
from facerelay.commands import books, logs
from facerelay.commands.exits import Exit
from facerelay.commands.init import CLOUD_METRICS
from facerelay.commands.show import Screen
from facerelay.commands.supervise import (
    FallenError,
    Role,
    answers,
    free_ports,
    mosquitto,
    ours,
    stopped_by_signals,
)
from facerelay.config import Config
from facerelay.edge.cameras.camera import SCENE, expand, redact
from facerelay.edge.schema import OutboxError
from facerelay.messages import Ledger
from facerelay.settings import ConfigError

_START_S: Final = 30.0
_DRAIN_S: Final = 10.0
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for; see `facerelay demo --help`."""

    source: str | None
    bucket: str | None
    until_end: bool
    pace: bool | None
    folder: Path
    edge_broker: str
    cloud_broker: str
    link: str
    flags: tuple[str, ...]
    as_json: bool = False


def show(options: Options) -> int:
    """Run the demonstration, and return the exit code.

    Raises:
        ConfigError: an option or a source that cannot be.
    """
    if options.link == "bridge" and options.edge_broker != "mosquitto":
        raise ConfigError("--link bridge is Mosquitto's own: it needs --edge-broker mosquitto")
    source = options.source or _first_source()
    cameras = expand(source)
    folder = (options.folder / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}").absolute()
    (folder / "logs").mkdir(parents=True)
    folder.chmod(0o700)
    edge, cloud = _configure(options, cameras, folder)
    roles = _roles(options, edge, cloud, folder)
    logs.say(f"{redact(source)} into {cloud.bucket.url}; logs, settings and state in {folder}")
    stop = threading.Event()
    try:
        with stopped_by_signals(stop):
            code = _play(roles, edge, cloud, stop)
        if stop.is_set():
            logs.say("ending …")
    except FallenError as error:
        code = Exit.UNWELL
        logs.say(f"{error}")
    finally:
        _end(roles)
    return max(code, _close(options, edge, cloud))


def _absolute(source: str) -> str:
    """Return a source as the roles' settings need it, which lie in another folder."""
    return str(Path(source).expanduser().absolute()) if settings.is_path(source) else source


def _first_source() -> str:
    """The webcam if there is one, else the built-in scene."""
    return "0" if Path("/dev/video0").exists() else SCENE


def _configure(options: Options, cameras: list[tuple[str, str]], folder: Path) -> tuple[Config, Config]:
    """Write the two sides' settings, as a user would, and read them back."""
    edge_url, cloud_url = (f"mqtt://127.0.0.1:{port}" for port in free_ports(2))
    pace = not options.until_end if options.pace is None else options.pace
    page = free_ports(1)[0] if answers(8080) else 8080
    values: dict[str, dict[str, Any]] = {
        "edge": {
            "site": "demo", "broker": {"url": edge_url, "data": "edge-broker"}, "cloud": {"url": cloud_url},
            "camera": [{"name": name, "source": _absolute(path), "pace": pace} for name, path in cameras],
            "bucket": {"url": _bucket_url(options, folder)},
        },
        "cloud": {
            "broker": {"url": cloud_url, "data": "cloud-broker"}, "gallery": {"port": page},
            "bucket": {"url": _bucket_url(options, folder)}, "metrics": {"port": CLOUD_METRICS},
        },
    }  # fmt: skip
    sides = {"edge": (*settings.EDGE, "bucket"), "cloud": settings.CLOUD}
    for side, names in sides.items():
        private.create(folder / f"{side}.toml", settings.template(names, values[side]).encode())
    edge, cloud = (settings.load(folder / f"{side}.toml", flags=options.flags) for side in sides)
    return edge, cloud


def _bucket_url(options: Options, folder: Path) -> str:
    if options.bucket is None:
        return f"file://{folder}/bucket"
    return options.bucket if "://" in options.bucket else f"file://{Path(options.bucket).absolute()}"


def _roles(options: Options, edge: Config, cloud: Config, folder: Path) -> list[Role]:
    """Return the processes in the order of their start."""
    both = [word for flag in options.flags for word in ("--set", flag)]

    def role(name: str, side: str, *words: str, called: str | None = None) -> Role:
        command = ours(name, "-c", str(folder / f"{side}.toml"), *both, *words)
        return Role(called or name, command, folder / "logs" / f"{called or name}.log")

    edge_broker, cloud_broker = (
        role("broker", "edge", called="edge-broker"),
        role("broker", "cloud", called="cloud-broker"),
    )
    if options.edge_broker == "mosquitto":
        edge_broker.command = _mosquitto(edge, folder / "edge-broker", bridged=options.link == "bridge")
    if options.cloud_broker == "mosquitto":
        cloud_broker.command = _mosquitto(cloud, folder / "cloud-broker", bridged=False)
    capture = role("capture", "edge", *(["--exit"] if options.until_end else []))
    capture.lasting = not options.until_end
    link = [role("forward", "edge")] if options.link == "forward" else []
    return [cloud_broker, edge_broker, role("store", "cloud"), *link, role("gallery", "cloud"), capture]


def _mosquitto(config: Config, folder: Path, *, bridged: bool) -> list[str]:
    """Write a Mosquitto configuration, and return the command that runs it."""
    from facerelay.commands.bridge import bridge_config  # noqa: PLC0415 - where Mosquitto is asked for
    from facerelay.link.mosquitto import mosquitto_listener  # noqa: PLC0415 - as above

    folder.mkdir(parents=True, exist_ok=True)
    text = mosquitto_listener(config.broker, data=folder, max_message=config.limits.message_bytes)
    path = folder / "mosquitto.conf"
    private.create(path, (text + (bridge_config(config) if bridged else "")).encode())
    return mosquitto(path, instead="leave out the option")


def _play(roles: list[Role], edge: Config, cloud: Config, stop: threading.Event) -> Exit:
    """Start the roles, show the books until the end, and return what became of capture."""
    *before, capture = roles
    for role in before:
        role.start()
        if role.name.endswith("broker"):
            _wait_for((cloud if role.name.startswith("cloud") else edge).broker.port, role, stop)
        if stop.is_set():
            return Exit.FINE
    capture.start()
    page = f"http://{cloud.gallery.host}:{cloud.gallery.port}/"
    with Screen(edge.outbox.path, page=page, plain=not sys.stderr.isatty()) as screen:
        while not stop.is_set() and (capture.lasting or not _has_ended(capture)):
            for role in roles:
                role.look()
            screen.draw()
            stop.wait(_LOOK_S)
        screen.draw(last=True)
    assert capture.process is not None  # noqa: S101 - it was started above
    if capture.process.returncode and not stop.is_set():
        logs.complain(f"capture: {capture.last_words()}")
        return Exit.UNWELL
    return Exit.FINE


def _has_ended(role: Role) -> bool:
    return role.process is None or role.process.poll() is not None


def _close(options: Options, edge: Config, cloud: Config) -> int:
    """Print the books; audited, and as JSON, if it was to end. Return 1 if a face is unaccounted for."""
    try:
        found = _audited(edge) if options.until_end else books.read(edge.outbox.path)
    except (OutboxError, BucketError) as error:
        logs.complain(f"{error}")
        return Exit.UNWELL
    errors = Console(stderr=True, quiet=logs.is_json())
    errors.print(books.as_table(found))
    if found.lost is not None:
        errors.print(f"Audited from the bucket's own bytes: {found.lost} lost.")
    errors.print(f"The faces are in {cloud.bucket.url}", soft_wrap=True)
    if options.until_end or options.as_json:
        click.echo(books.as_json(found))
    return Exit.FINE if found.closes and not found.lost else Exit.UNWELL


def _audited(config: Config) -> Ledger:
    """Audit; where brokers are believed, what they were given may still be on its way."""
    until = time.monotonic() + (0 if config.delivery == "receipt" else _DRAIN_S)
    while True:
        found, _ = asyncio.run(books.audited(config))
        if not found.lost or time.monotonic() >= until:
            return found
        time.sleep(_LOOK_S)


def _end(roles: list[Role]) -> None:
    """End them in the direction of the faces, so that each can still hand on what it has."""
    order = ("capture", "forward", "edge-broker", "store", "gallery", "cloud-broker")
    for role in sorted(roles, key=lambda role: order.index(role.name)):
        role.end()


def _wait_for(port: int, role: Role, stop: threading.Event) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and not stop.is_set():
        role.look()
        if answers(port):
            return
        stop.wait(_LOOK_S)
    if stop.is_set():
        return
    raise FallenError(f"{role.name} does not answer on port {port}: {role.last_words()}")
