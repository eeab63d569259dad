"""The cloud's own machines: broker, store, gallery; their keys and certificates lie in its `trust/`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from facerelay.commands import roster
from facerelay.config import Config
from facerelay.fleet import Issuer, files, issuer, names, sides
from facerelay.signing import Owner, PublicKey, read_certificate

_ROLES: Final = ("store", "gallery", "broker")


def make(
    authority: Issuer,
    owner: Owner,
    path: Path,
    *,
    hosts: Sequence[str] = (),
    calls: bool = False,
    now: datetime | None = None,
) -> x509.Certificate:
    """Make a key and its certificate in two new files, `<path>.key` and `<path>.pem`.

    Raises:
        EnrolError: a file is there already.
    """
    key = issuer.new_key()
    certificate = authority.certify(owner, key.public_key(), hosts=hosts, calls=calls, now=now)
    files.create(path.with_suffix(".key"), issuer.key_pem(key))
    files.create(path.with_suffix(".pem"), issuer.pem(certificate))
    return certificate


def find(config: Config, owner: Owner) -> Path | None:
    """Return the file of a machine's certificate; None where it is none of this cloud's own."""
    path = roster.roll(config).crl.parent / f"{owner.role}.pem"
    if owner.role not in _ROLES or not path.exists():
        return None
    there = PublicKey(read_certificate(path)).owner
    return path if names.common_name(there) == names.common_name(owner) else None


def renew(
    config: Config,
    authority: Issuer,
    owner: Owner,
    path: Path,
    *,
    hosts: Sequence[str] = (),
    now: datetime | None = None,
) -> None:
    """Put a new key and its certificate in the place of those at `path`.

    Args:
        config: the cloud's settings.
        authority: certifies it.
        owner: whose it is.
        path: of the certificate.
        hosts: of the broker, in place of those before.
        now: when the certificate begins.

    Raises:
        EnrolError: a host that cannot be, or a file cannot be written.
    """
    key = issuer.new_key()
    if owner.role == "broker":
        wanted = sides.with_local([names.host(each) for each in hosts]) if hosts else []
        known = wanted or issuer.hosts_of(read_certificate(path))
        calls = config.broker.mosquitto is None
        certificate = authority.certify(owner, key.public_key(), hosts=known, calls=calls, now=now)
    else:
        certificate = authority.certify(owner, key.public_key(), now=now)
        roster.roll(config).add(certificate)
    files.replace(path.with_suffix(".key"), issuer.key_pem(key))
    files.replace(path, issuer.pem(certificate))
