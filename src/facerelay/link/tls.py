"""TLS towards a broker, and what its failures mean to whoever has to mend them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Final

from facerelay.sections import Broker

# As OpenSSL numbers what is wrong with the certificate of the other side.
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
_NOT_YET: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})

_NO_CERTIFICATE: Final = (
    "the broker wants a certificate of us: set cert and key, as `facerelay enrol` makes them"
)
# What the other side said to us, by the end of OpenSSL's name for it.
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": _NO_CERTIFICATE,
    "UNKNOWN_CA": (
        "the broker does not know the authority of our certificate ({cert}): was this machine enrolled by the"
        " site authority of this broker?"
    ),
    "CERTIFICATE_REVOKED": "the broker says that our certificate ({cert}) was revoked: enrol it anew",
    "CERTIFICATE_EXPIRED": "the broker does not take our certificate ({cert}), by its dates: {own}",
    "NO_APPLICATION_PROTOCOL": "the broker does not speak the protocol that alpn names: {alpn}",
    "PROTOCOL_VERSION": "the broker speaks no TLS from 1.2 on",
    "UNSUPPORTED_PROTOCOL": "the broker speaks no TLS from 1.2 on",
    "WRONG_VERSION_NUMBER": "the broker does not speak TLS on this port: is it the one for mqtts?",
}
_OTHERWISE: Final = "the broker does not take our certificate ({cert}); {own}"
_UNTAKEN: Final = ("BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "CERTIFICATE_UNKNOWN", "ACCESS_DENIED",
                   "HANDSHAKE_FAILURE")  # fmt: skip


class TlsFileError(ValueError):
    """A certificate or key that cannot be used; the message names the setting and the file."""


def tls_context(broker: Broker) -> ssl.SSLContext:
    """Return what checks the broker's certificate, and shows ours if there is one.

    Raises:
        TlsFileError: one of the files cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=broker.ca)
    except OSError as error:
        raise TlsFileError(f"ca: {broker.ca}: {_of_file(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.alpn is not None:
        context.set_alpn_protocols([broker.alpn])
    if broker.cert is not None and broker.key is not None:
        try:
            context.load_cert_chain(broker.cert, broker.key, password=_none)
        except OSError as error:
            raise TlsFileError(f"cert, key: {broker.cert}, {broker.key}: {_of_file(error)}") from None
    return context


def tls_trouble(error: ssl.SSLError, broker: Broker, *, now: datetime | None = None) -> str:
    """Return what a failed handshake means, and what to do.

    Args:
        error: as `ssl` has it.
        broker: who was called, and as whom.
        now: by this machine's clock.
    """
    now = now or datetime.now(UTC)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _theirs(error, broker, now)
    reason = error.reason or ""
    for name, form in _ALERTS.items():
        if reason.endswith(name):
            return form.format(cert=broker.cert, alpn=broker.alpn, own=_own(broker, now))
    if reason.endswith(_UNTAKEN):
        return _OTHERWISE.format(cert=broker.cert, own=_own(broker, now)) if broker.cert else _NO_CERTIFICATE
    return f"TLS failed: {reason.lower().replace('_', ' ') or 'the broker ended the handshake'}"


def _theirs(error: ssl.SSLCertVerificationError, broker: Broker, now: datetime) -> str:
    clock = f"by this machine's clock it is {now:%Y-%m-%d %H:%M} UTC"
    if error.verify_code == _EXPIRED:
        return f"the broker's certificate has expired, or the clock is ahead: {clock}"
    if error.verify_code == _NOT_YET:
        return f"the broker's certificate is not valid yet, so the clock is likely behind: {clock}"
    if error.verify_code in _OTHER_NAME:
        return (
            f"the broker's certificate is not for {broker.host!r}: write the url with a name that it is for,"
            " or have one made for this name"
        )
    if error.verify_code in _UNKNOWN_AUTHORITY:
        if broker.ca is None:
            return "the broker's certificate is by an authority that this system does not know: set ca to it"
        return f"the broker's certificate is not by the authority in ca ({broker.ca}): is it this broker's?"
    return f"the broker's certificate is not taken: {error.verify_message}"


def _own(broker: Broker, now: datetime) -> str:
    """Return how our own certificate stands."""
    from facerelay.signing import KeyFileError, read_certificate  # noqa: PLC0415 - needed where it fails alone

    if broker.cert is None:
        return "it has none to look at"
    try:
        certificate = read_certificate(broker.cert)
    except KeyFileError as error:
        return f"{error}"
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    clock = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
    if now > end:
        return f"it has expired on {end:%Y-%m-%d}: `facerelay enrol renew` in the cloud; {clock}"
    if now < begin:
        return f"it is not valid before {begin:%Y-%m-%d}, and {clock}: is the clock right?"
    return f"it is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, and {clock}"


def _of_file(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        what = (error.reason or "").replace("_", " ").lower()
        return f"not usable ({what}): it takes PEM, the key of this certificate, and no password on it"
    return error.strerror or f"{error}"


def _none() -> bytes:
    """Stand in for a question on the terminal: a service has nobody to answer it."""
    return b""
