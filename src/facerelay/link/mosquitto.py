"""Mosquitto as this side's broker: a configuration that keeps to our limits, and who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from facerelay.config import Broker
from facerelay.messages import MAX_MESSAGE_BYTES
from facerelay.permissions import Permissions
from facerelay.sections.base import is_loopback

_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


def mosquitto_listener(broker: Broker, *, data: Path, max_message: int) -> str:
    """Return a mosquitto.conf for this side's broker, without TLS and password: on loopback alone.

    Args:
        broker: its address is where Mosquitto will listen.
        data: a folder for its state.
        max_message: bytes of one message at most, as the outbox keeps it.

    Raises:
        ValueError: the address is not loopback.
    """
    if not is_loopback(broker.host):
        raise ValueError(
            f"{broker.url}: beyond loopback Mosquitto needs TLS and certificates: see `facerelay enrol cloud`"
        )
    return f"listener {broker.port} {broker.host}\nallow_anonymous true\n" + _limits(data, max_message)


def mosquitto_enrolled(
    broker: Broker, *, authority: Path, crl: Path, acl: Path, data: Path, max_message: int, user: str
) -> str:
    """Return a mosquitto.conf that takes in enrolled machines alone, each as the name in its certificate.

    Args:
        broker: where Mosquitto will listen, and its own certificate.
        authority: the site authority's certificate.
        crl: the list of revoked certificates.
        acl: where `access_list` is written to.
        data: a folder for its state.
        max_message: bytes of one message at most, as the outbox keeps it.
        user: the owner of the files, whom Mosquitto becomes when root starts it.

    Raises:
        ValueError: a path cannot be written into a line of the file.
    """
    where = broker.listening
    address = "" if where.host in _EVERYWHERE else f" {where.host}"
    lines = [
        "# Written by `facerelay enrol cloud`, and yours from now on: enrolment changes the access list and",
        "# the list of revoked certificates alone.",
        f"listener {where.port}{address}",
        f"user {user}",
        "allow_anonymous false",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.2",
    ]
    paths = {
        "cafile": authority, "crlfile": crl, "certfile": broker.server_cert, "keyfile": broker.server_key,
        "acl_file": acl,
    }  # fmt: skip
    lines += [f"{name} {_plain(path)}" for name, path in paths.items() if path is not None]
    return "\n".join(lines) + "\n" + _limits(data, max_message)


def access_list(known: Mapping[str, Permissions]) -> str:
    """Return Mosquitto's ACL file: what each name in a certificate may do. Whoever is not there may nothing.

    Mosquitto 2.0 grants any subscription, and then hands on only what may be read.

    Args:
        known: permissions by common name.
    """
    parts = ["# Written by `facerelay enrol`: changes made here are lost.\n"]
    for name, may in sorted(known.items()):
        topics = [f"topic write {each}\n" for each in may.publish] + [
            f"topic read {each}\n" for each in may.subscribe
        ]
        parts.append("".join([f"\nuser {name}\n", *topics]))
    return "".join(parts)


def acl_of(conf: Path) -> Path:
    """Return where the access list of a mosquitto.conf lies: beside it."""
    return conf.with_suffix(".acl")


def _limits(data: Path, max_message: int) -> str:
    return (
        "persistence true\n"
        "autosave_interval 60\n"
        f"persistence_location {_plain(data)}/\n"
        f"message_size_limit {max(max_message, MAX_MESSAGE_BYTES)}\n"
        "set_tcp_nodelay true\n"
        "max_inflight_messages 200\n"
        "max_queued_messages 1000\n"
    )


def _plain(path: Path) -> str:
    text = str(path)
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"{text!r}: Mosquitto's configuration cannot name this path: choose another folder")
    return text
