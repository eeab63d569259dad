"""Enrol the cloud, its sites and its stores; renew them, and take them back."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from facerelay import settings
from facerelay.commands import own, roster
from facerelay.config import Config
from facerelay.fleet import (
    Bundle,
    EnrolError,
    Enrolled,
    Issuer,
    Roll,
    files,
    issuer,
    names,
    pack,
    sides,
)
from facerelay.fleet.request import public_key_of
from facerelay.link.mosquitto import acl_of
from facerelay.permissions import apart
from facerelay.signing import Owner

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """What `facerelay enrol cloud` is asked for.

    Attributes:
        hosts: under which sites reach the broker.
        folder: where `cloud.toml` and `trust/` will lie.
        store: the store's name.
        bucket: its URL.
        mosquitto: whether Mosquitto is the broker.
        port: of the broker.
    """

    hosts: Sequence[str]
    folder: Path
    store: str = "main"
    bucket: str = "file://bucket"
    mosquitto: bool = False
    port: int = 8883


def _alone(command: Callable[Concatenate[Config, P], T]) -> Callable[Concatenate[Config, P], T]:
    """Let one command at a time change the roll."""

    @functools.wraps(command)
    def held(config: Config, /, *words: P.args, **more: P.kwargs) -> T:
        roster.roll(config)
        assert config.trust.devices is not None  # noqa: S101 - the roll is there
        with files.alone(config.trust.devices):
            return command(config, *words, **more)

    return held


def cloud(wanted: Cloud, *, now: datetime | None = None) -> Path:
    """Make the site authority, the cloud's certificates, and `cloud.toml`, whose path is returned.

    Raises:
        EnrolError: a name that cannot be, or a file that is there already.
    """
    hosts = [names.host(each) for each in wanted.hosts]
    store, gallery = names.owner("store", wanted.store), names.owner("gallery", "main")
    broker = names.owner("broker", issuer.server_name(hosts[0]))
    folder = wanted.folder.absolute()
    conf = folder / "mosquitto.conf" if wanted.mosquitto else None
    path, trust = folder / "cloud.toml", folder / "trust"
    for each in (path, trust, *((conf, acl_of(conf)) if conf else ())):
        if each.exists():
            raise EnrolError(
                f"{each}: exists, and is not written over: this folder is enrolled, or choose --dir"
            )
    files.folder(folder)
    fresh = folder / f".trust-{secrets.token_hex(4)}"
    try:
        files.folder(fresh / "devices")
        authority = Issuer.create(fresh, now=now)
        roll = Roll(fresh / "devices")
        own.make(
            authority, broker, fresh / "broker", hosts=sides.with_local(hosts), calls=not wanted.mosquitto,
            now=now,
        )  # fmt: skip
        for owner in (store, gallery):
            roll.add(own.make(authority, owner, fresh / owner.role, now=now))
        roll.write_crl(authority, now=now)
        fresh.rename(trust)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    text = sides.cloud(
        hosts=hosts, port=wanted.port, store=store.name, bucket=wanted.bucket,
        mosquitto=Path(conf.name) if conf else None,
    )  # fmt: skip
    files.create(path, text.encode())
    roster.write_mosquitto(settings.load(path, environ={}))
    return wanted.folder / path.name


@_alone
def edge(
    config: Config,
    site: str,
    path: Path,
    *,
    request: Path | None = None,
    direct: bool = False,
    now: datetime | None = None,
) -> Path:
    """Enrol a site: write its bundle, whose path is returned.

    Args:
        config: the cloud's settings.
        site: its name.
        path: the bundle, a new file.
        request: of `facerelay enrol request`; then the key stays on the device, and is not in the bundle.
        direct: whether the edge comes to the cloud's broker without one of its own.
        now: when the certificate begins.

    Raises:
        EnrolError: a name that cannot be, a site that is enrolled, a file that is there already.
    """
    owner = names.owner("site", site)
    if roster.roll(config).has(owner):
        raise EnrolError(f"site {site} is enrolled: `facerelay enrol renew {site}` gives it a new key")
    others = [one for one in roster.roll(config).read() if one.owner.role == "site" and not one.revoked]
    if others and not apart(config.face_topic):
        raise EnrolError(
            f'topics.faces = "{config.topics.faces}" is one topic for all sites, where each could speak as'
            ' another: set "faces/{site}/{camera}" here and on the devices, or enrol one site alone'
        )
    return _bundled(config, owner, path, request=request, direct=direct, now=now)


@_alone
def store(config: Config, name: str, path: Path, *, now: datetime | None = None) -> Path:
    """Enrol one more store: write its bundle, whose path is returned.

    Raises:
        EnrolError: as of `edge`.
    """
    owner = names.owner("store", name)
    if roster.roll(config).has(owner):
        raise EnrolError(f"store {name} is enrolled: `facerelay enrol renew store.{name}` gives it a new key")
    return _bundled(config, owner, path, now=now)


@_alone
def renew(
    config: Config,
    who: str,
    path: Path | None,
    *,
    request: Path | None = None,
    hosts: Sequence[str] = (),
    now: datetime | None = None,
) -> Path:
    """Give a machine a new key; the one before works until it ends or is revoked.

    For a site and a further store a bundle is written; for the cloud's own roles their files, in place.

    Args:
        config: the cloud's settings.
        who: `door`, `store.main`, `gallery.main`, `broker.faces`.
        path: the bundle, a new file.
        request: of `facerelay enrol request --renew`.
        hosts: of the broker, in place of those before.
        now: when the certificate begins.

    Returns:
        The bundle, or the certificate.

    Raises:
        EnrolError: nobody of that name is enrolled.
    """
    owner = names.parse(who)
    if hosts and owner.role != "broker":
        raise EnrolError("a broker's certificate alone names hosts")
    its = own.find(config, owner)
    if its is None and owner.role == "broker":
        raise EnrolError(f"{names.short(owner)} is not the broker here: see `facerelay enrol list`")
    if its is None:
        roster.roll(config).of(owner)
        return _bundled(config, owner, path or bundle_name(owner), request=request, now=now)
    if request is not None:
        raise EnrolError(f"{names.short(owner)} is of this cloud: its key is made here, without a request")
    own.renew(config, _authority(config, now), owner, its, hosts=hosts, now=now)
    return its


@_alone
def revoke(
    config: Config, who: str, *, key: str | None = None, now: datetime | None = None
) -> list[Enrolled]:
    """Take a machine's certificates back, and return them.

    Args:
        config: the cloud's settings.
        who: `door`, `store.main`, `gallery.main`.
        key: the id of one key, where a machine has several.
        now: since when.

    Raises:
        EnrolError: nobody of that name is enrolled, or has no such key.
    """
    owner = names.parse(who)
    if owner.role == "broker":
        raise EnrolError(
            "a broker is not revoked: `facerelay enrol renew` gives it a new key, or make a new authority"
        )
    entries = [one for one in roster.roll(config).of(owner) if key is None or one.key.id.startswith(key)]
    if not entries:
        raise EnrolError(f"{names.short(owner)} has no key {key!r}: see `facerelay enrol list`")
    if key is not None and len(entries) > 1:
        raise EnrolError(f"{names.short(owner)} has {len(entries)} keys that begin with {key!r}: write more")
    authority = _authority(config, now)
    roster.roll(config).revoke(entries, authority, now=now)
    roster.write_access(config)
    return entries


def bundle_name(owner: Owner) -> Path:
    """Return what a machine's bundle is called: `door.tar`, `store.b.tar`."""
    return Path(f"{names.short(owner)}.tar")


def _bundled(
    config: Config,
    owner: Owner,
    path: Path,
    *,
    request: Path | None = None,
    direct: bool = False,
    now: datetime | None = None,
) -> Path:
    known, authority = roster.roll(config), _authority(config, now)
    if path.exists():
        raise EnrolError(
            f"{path}: exists, and is not written over; move it away first, or name another with --out"
        )
    made = None if request else issuer.new_key()
    public = public_key_of(request) if request else made.public_key() if made else None
    assert public is not None  # noqa: S101 - one of the two it is
    site = owner.role == "site"
    text = sides.edge(config, owner.name, direct=direct) if site else sides.another_store(config, owner.name)
    certificate = authority.certify(owner, public, now=now)
    entered = known.add(certificate)
    bundle = Bundle(
        config="edge.toml" if site else "cloud.toml",
        settings=text.encode(),
        authority=issuer.pem(authority.certificate),
        certificate=issuer.pem(certificate),
        key=issuer.key_pem(made) if made else None,
    )
    try:
        pack(bundle, path)
    except EnrolError:
        entered.unlink()
        raise
    roster.write_access(config)
    return path


def _authority(config: Config, now: datetime | None) -> Issuer:
    if config.trust.authority is None:
        raise EnrolError("trust.authority is not set: begin with `facerelay enrol cloud`")
    return Issuer.open(config.trust.authority.parent, now=now)


def absent(*paths: Path) -> None:
    """See that new files can be written.

    Raises:
        EnrolError: one exists.
    """
    for path in paths:
        if os.path.lexists(path):
            raise EnrolError(f"{path}: exists, and is not written over; move it away first")
