"""The chain of one combination of brokers: its settings and its processes, with the proxies between."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from facerelay import settings
from facerelay.commands.bridge import bridge_config
from facerelay.commands.supervise import free_ports
from facerelay.config import Broker, Config
from facerelay.link.mosquitto import mosquitto_listener
from faults.numbered import SITE
from faults.parts import Part
from servers import MOSQUITTO

Kind = Literal["embedded", "mosquitto"]
TESTS: Final = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Combination:
    """Which brokers, and what carries between them."""

    edge: Kind
    cloud: Kind
    bridge: bool = False


COMBINATIONS: Final = {
    "embedded": Combination("embedded", "embedded"),
    "mosquitto": Combination("mosquitto", "mosquitto"),
    "bridge": Combination("mosquitto", "mosquitto", bridge=True),
    "bridge-embedded": Combination("mosquitto", "embedded", bridge=True),
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run keeps what, and the ports between its parts; `link` leads to the cloud's broker.

    `budget` is what the outbox may hold, in bytes.
    """

    folder: Path
    outbox: Path
    clock: Path
    journal: Path
    bucket: dict[str, Any]
    cloud: int
    link: int
    budget: int


def configure(places: Places) -> tuple[Config, Config]:
    """Write the settings of both sides, and return them."""
    urls = {name: f"mqtt://127.0.0.1:{port}" for name, port in
            (("edge", free_ports(1)[0]), ("cloud", places.cloud), ("link", places.link))}  # fmt: skip
    values: dict[str, dict[str, Any]] = {
        "edge": {"site": SITE, "broker": {"url": urls["edge"], "data": "edge-broker"},
                 "cloud": {"url": urls["link"]},
                 "outbox": {"path": str(places.outbox), "max_bytes": places.budget}},
        "cloud": {"broker": {"url": urls["cloud"], "data": "cloud-broker"}, "bucket": places.bucket},
    }  # fmt: skip
    found = []
    for side, names in (("edge", settings.EDGE), ("cloud", settings.CLOUD)):
        path = places.folder / f"{side}.toml"
        path.write_text(settings.template(names, values[side]), encoding="utf-8")
        found.append(settings.load(path, environ={}))
    return found[0], found[1]


def parts_of(combination: Combination, places: Places, feeding: list[str]) -> dict[str, Part]:
    """Return the processes in the order of their start; `feeding` are the feeder's last words."""
    edge, cloud = configure(places)
    bridge = bridge_config(edge) if combination.bridge else ""
    feeder = [places.folder / "edge.toml", places.journal, places.clock, *feeding]
    found = [
        _broker(places, cloud.broker, "cloud", combination.cloud, ""),
        _broker(places, edge.broker, "edge", combination.edge, bridge),
        _ours(places, "store", "faults.role", places.clock, *_words("store", places, "cloud")),
        _ours(places, "feeder", "faults.feeder", *feeder),
    ]
    if not combination.bridge:
        found.append(_ours(places, "forward", "facerelay", *_words("forward", places, "edge")))
    return {part.name: part for part in found}


def _words(role: str, places: Places, side: str) -> list[str]:
    return [role, "-c", str(places.folder / f"{side}.toml")]


def _ours(places: Places, name: str, module: str, *words: object, state: Path | None = None) -> Part:
    command = [sys.executable, "-m", module, *map(str, words)]
    return Part(name, command, places.folder / f"{name}.log", state)


def _broker(places: Places, broker: Broker, side: str, kind: Kind, bridge: str) -> Part:
    name, state = f"{side}-broker", places.folder / f"{side}-broker"
    state.mkdir()
    if kind == "embedded":
        return _ours(places, name, "facerelay", *_words("broker", places, side), state=state)
    assert MOSQUITTO, "Mosquitto is not installed: make test-setup"
    conf = places.folder / f"{side}-mosquitto.conf"
    listener = mosquitto_listener(broker, data=state, max_message=1_000_000)
    # It drops to `mosquitto` when started by root, who alone can read our folder.
    conf.write_text(f"{listener}user {getpass.getuser()}\n{bridge}", encoding="utf-8")
    return Part(name, [MOSQUITTO, "-c", str(conf)], places.folder / f"{name}.log", state)
