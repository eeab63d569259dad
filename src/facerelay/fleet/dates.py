"""Until when certificates are valid, told before they end, and whether our own is ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from facerelay.config import Config
from facerelay.fleet.names import EnrolError, common_name, short
from facerelay.fleet.roll import Roll
from facerelay.signing import Authority, PublicKey, SignatureError, Signer, read_certificate

WARN: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate that this side knows.

    Attributes:
        what: the file, or the machine's name.
        end: until when it is valid, UTC.
        wrong: what is wrong with its dates and what to do; empty where all is well.
    """

    what: str
    end: datetime
    wrong: str


def endings(config: Config, *, now: datetime | None = None) -> list[Ending]:
    """Look at the certificates that the settings name, and at the newest of each enrolled machine.

    What ends within 30 days is told, and what has ended or not begun.

    Raises:
        KeyFileError: a file cannot be read.
    """
    now = now or datetime.now(UTC)
    named = [config.trust.authority, config.trust.cert, config.broker.cert, config.broker.server_cert]
    named += [config.cloud.cert] if config.cloud else []
    own = {path: read_certificate(path) for path in named if path is not None}
    found = [_look(str(path), certificate, now) for path, certificate in own.items()]
    if config.trust.devices is not None:
        newest = {common_name(one.owner): one for one in Roll(config.trust.devices).read() if not one.revoked}
        others = (one for one in newest.values() if one.certificate not in own.values())
        found += [_look(short(one.owner), one.certificate, now) for one in others]
    return found


def see_own(config: Config) -> None:
    """See that this machine's certificate is of its name, and goes with its key and the site authority.

    Raises:
        EnrolError: it does not.
        KeyFileError: a file cannot be read.
    """
    trust = config.trust
    if trust.authority is None or trust.cert is None or trust.key is None:
        return
    try:
        owner = Authority(trust.authority).admit(Signer(trust.cert, trust.key).certificate).owner
    except SignatureError as error:
        raise EnrolError(f"trust.cert: {error}: take it and trust.authority from one bundle") from None
    named = {"site": ("site", config.site), "store": ("store.name", config.store.name)}
    setting, name = named.get(owner.role, ("", owner.name))
    if name != owner.name:
        raise EnrolError(
            f"{setting} is {name!r}, and trust.cert is of {owner}: set {setting} = {owner.name!r}"
        )


def state(certificate: x509.Certificate, now: datetime) -> str:
    """Return what is wrong with a certificate's dates, in few words; empty where all is well."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"begins on {begin:%Y-%m-%d}, and it is {now:%Y-%m-%d} by this clock: see to the clock"
    if now >= end:
        return f"ended on {end:%Y-%m-%d}, and it is {now:%Y-%m-%d} by this clock"
    if end - now < WARN:
        return f"ends on {end:%Y-%m-%d}, in {(end - now).days} days"
    return ""


def _look(what: str, certificate: x509.Certificate, now: datetime) -> Ending:
    words = state(certificate, now)
    if words and now >= certificate.not_valid_before_utc:
        words += f": {_advice(certificate)}"
    return Ending(what, certificate.not_valid_after_utc, words)


def _advice(certificate: x509.Certificate) -> str:
    try:
        owner = PublicKey(certificate).owner
    except SignatureError:
        if certificate.issuer != certificate.subject:
            return "ask whoever issued it for another one"
        return "make a new authority with `facerelay enrol cloud`, and enrol each machine again"
    where = "" if owner.role != "site" else ", and carry its bundle to the device"
    return f"`facerelay enrol renew {short(owner)}` in the cloud{where}"
