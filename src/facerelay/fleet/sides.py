"""The settings of an enrolled cloud, site and store, as their owners will read and change them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from facerelay import settings
from facerelay.config import Config
from facerelay.fleet import names
from facerelay.fleet.issuer import hosts_of
from facerelay.fleet.names import EnrolError
from facerelay.sections import Store
from facerelay.sections.base import is_loopback
from facerelay.signing import read_certificate

CLOUD_METRICS: Final = 9480
_SHARED: Final = ("delivery", "qos")
_ALIKE: Final = ("intake", "group", "layout", "retention_days", "quarantine_days")


def cloud(*, hosts: Sequence[str], port: int, store: str, bucket: str, mosquitto: Path | None) -> str:
    """Return `cloud.toml`: the broker with mutual TLS, a store and a gallery on one machine.

    The store and the gallery reach the broker on loopback, whatever the names that sites use lead to.
    """
    out = not all(map(is_loopback, hosts))
    values: dict[str, Any] = {
        "broker": {
            "url": f"mqtts://localhost:{port}", "ca": "trust/authority.pem", "cert": "trust/store.pem",
            "key": "trust/store.key", "server_cert": "trust/broker.pem", "server_key": "trust/broker.key",
            "data": "cloud-broker",
        }
        | ({"listen": "0.0.0.0"} if out else {})  # noqa: S104 - the user named a host that others reach
        | ({"mosquitto": str(mosquitto)} if mosquitto else {}),
        "trust": {**_trust("store"), "devices": "trust/devices"},
        "bucket": {"url": bucket},
        # Mosquitto has anybody enrolled join a group whose name is known.
        "store": {"name": store} | ({"group": secrets.token_hex(8)} if mosquitto else {}),
        "gallery": {"broker_cert": "trust/gallery.pem", "broker_key": "trust/gallery.key"},
        "metrics": {"port": CLOUD_METRICS},
    }  # fmt: skip
    return settings.template(settings.CLOUD, values)


def edge(config: Config, site: str, *, direct: bool = False) -> str:
    """Return `edge.toml` for a site of this cloud; what both sides must agree on is the cloud's.

    Args:
        config: the cloud's settings.
        site: its name.
        direct: whether it comes to the cloud's broker without one of its own.
    """
    recipients = list(config.seal.recipients)
    there = {"url": reached(config), **_client("site")}
    brokers: dict[str, Any] = {"broker": {"url": "mqtt://127.0.0.1:1883"}, "cloud": there}
    values: dict[str, Any] = {
        "site": site,
        **_agreed(config),
        **({"direct": True, "broker": there} if direct else brokers),
        "trust": _trust("site"),
        **({"seal": {"recipients": recipients}} if recipients else {}),
        "camera": [{"name": "door", "source": "0"}],
    }
    return settings.template(settings.EDGE, values)


def another_store(config: Config, name: str) -> str:
    """Return `cloud.toml` for one more store, on this machine or on another one."""
    bucket = config.bucket
    given = {
        "url": bucket.url,
        "endpoint": bucket.endpoint,
        "region": bucket.region,
        "access_key": bucket.access_key,
    }
    values: dict[str, Any] = {
        **_agreed(config),
        "broker": {"url": reached(config), **_client("store")},
        "trust": _trust("store"),
        "bucket": {key: value for key, value in given.items() if value is not None},
        "store": {"name": name, **_alike(config)},
        **_stream(config),
        "metrics": {"port": CLOUD_METRICS},
    }
    return settings.template(settings.CLOUD, values)


def _alike(config: Config) -> dict[str, Any]:
    """Return what all stores of a bucket must have alike, where it is not the default."""
    ours, plain = config.store, Store()
    return {key: getattr(ours, key) for key in _ALIKE if getattr(ours, key) != getattr(plain, key)}


def _stream(config: Config) -> dict[str, Any]:
    """Return where stores pull faces, in so far as it is not the default."""
    found = config.jetstream.model_dump(mode="json", exclude_defaults=True)
    return {"jetstream": found} if found else {}


def reached(config: Config) -> str:
    """Return the address under which sites reach this cloud's broker.

    Raises:
        EnrolError: the settings name no certificate of a broker.
    """
    if config.broker.server_cert is None:
        raise EnrolError(
            "broker.server_cert is not set: enrol machines where `facerelay enrol cloud` was run"
        )
    hosts = hosts_of(read_certificate(config.broker.server_cert))
    if not hosts:
        raise EnrolError(
            f"{config.broker.server_cert}: names no host: `facerelay enrol cloud` makes one that does"
        )
    host = next((each for each in hosts if not is_loopback(each)), hosts[0])
    return f"mqtts://[{host}]:{config.broker.port}" if ":" in host else f"mqtts://{host}:{config.broker.port}"


def with_local(hosts: Sequence[str]) -> list[str]:
    """Return the names for the broker's certificate: the user's, and this machine's own."""
    return list(dict.fromkeys((*hosts, *names.LOCAL)))


def _client(role: str) -> dict[str, str]:
    return {"ca": "trust/authority.pem", "cert": f"trust/{role}.pem", "key": f"trust/{role}.key"}


def _trust(role: str) -> dict[str, str]:
    return {"authority": "trust/authority.pem", "cert": f"trust/{role}.pem", "key": f"trust/{role}.key"}


def _agreed(config: Config) -> dict[str, Any]:
    """Settings that both sides must have alike, where the cloud's are not the defaults."""
    plain = Config()
    found: dict[str, Any] = {
        name: getattr(config, name) for name in _SHARED if getattr(config, name) != getattr(plain, name)
    }
    if config.topics != plain.topics:
        found["topics"] = {"faces": config.topics.faces}
    if config.limits != plain.limits:
        found["limits"] = config.limits.model_dump()
    return found
