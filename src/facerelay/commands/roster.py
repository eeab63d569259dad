"""Who is enrolled here: the roll, what it says to people, and what it says to Mosquitto."""

from __future__ import annotations

import getpass
from contextlib import suppress
from datetime import UTC, datetime

from cryptography import x509

from facerelay import fleet
from facerelay.config import Config
from facerelay.fleet import EnrolError, Roll, dates, files, names
from facerelay.link.mosquitto import access_list, acl_of, mosquitto_enrolled
from facerelay.permissions import permissions
from facerelay.signing import PublicKey, SignatureError, read_certificate


def roll(config: Config) -> Roll:
    """Return the roll of an enrolled cloud.

    Raises:
        EnrolError: the settings name none.
    """
    if config.trust.devices is None:
        raise EnrolError(
            "trust.devices is not set: name the cloud's file with -c, or begin with `facerelay enrol cloud`"
        )
    return Roll(config.trust.devices)


def listed(config: Config, *, now: datetime | None = None) -> list[dict[str, str]]:
    """Return one row a certificate: `name`, `key`, `until`, `state`; the broker's and the authority's too."""
    now = now or datetime.now(UTC)
    rows = [
        _row(names.short(one.owner), one.key.id, one.certificate, "revoked" if one.revoked else "", now)
        for one in roll(config).read()
    ]
    if config.broker.server_cert is not None:
        server = read_certificate(config.broker.server_cert)
        with suppress(SignatureError):  # one of another authority
            key = PublicKey(server)
            rows.append(_row(names.short(key.owner), key.id, server, "", now))
    if config.trust.authority is not None:
        rows.append(_row("authority", "", read_certificate(config.trust.authority), "", now))
    return rows


def _row(name: str, key: str, certificate: x509.Certificate, state: str, now: datetime) -> dict[str, str]:
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    said = state or dates.state(certificate, now) or "fine"
    return {"name": name, "key": key, "until": until, "state": said}


def fingerprint(config: Config) -> str:
    """Return what people compare of the site authority."""
    assert config.trust.authority is not None  # noqa: S101 - of an enrolled side
    return fleet.fingerprint(read_certificate(config.trust.authority))


def write_access(config: Config) -> None:
    """Write Mosquitto's access list anew from the roll, if Mosquitto is the broker."""
    if config.broker.mosquitto is None:
        return
    known = {
        names.common_name(one.owner): permissions(one.owner, config.face_topic)
        for one in roll(config).read()
        if not one.revoked
    }
    files.replace(acl_of(config.broker.mosquitto).absolute(), access_list(known).encode())


def write_mosquitto(config: Config) -> None:
    """Write mosquitto.conf and its access list, if Mosquitto is the broker.

    Raises:
        EnrolError: a file is there already.
    """
    if config.broker.mosquitto is None or config.trust.authority is None:
        return
    conf, data = config.broker.mosquitto.absolute(), config.broker.data.absolute()
    files.folder(data)
    text = mosquitto_enrolled(
        config.broker, authority=config.trust.authority, crl=roll(config).crl, acl=acl_of(conf), data=data,
        max_message=config.limits.message_bytes, user=getpass.getuser(),
    )  # fmt: skip
    files.create(conf, text.encode())
    write_access(config)
