"""The site authority: what it certifies, for how long, and what it takes back."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from facerelay.fleet import files, names
from facerelay.signing import KeyFileError, Owner, key_uri, read_certificate

AUTHORITY_LIFE: Final = timedelta(days=3652)
"""Ten years: a new authority means a visit to every device."""

LIFE: Final = timedelta(days=730)
"""Two years: a device is rarely visited, and a stolen key is revoked within seconds, not waited for."""

_EARLIER: Final = timedelta(days=1)
"""A device's clock may be behind by so much."""

_HASH: Final = hashes.SHA256()
_NO_USAGE: Final = dict.fromkeys(
    ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
     "decipher_only"), False,
)  # fmt: skip

Key = ec.EllipticCurvePrivateKey


class Issuer:
    """The site authority with its key: it certifies machines.

    Args:
        certificate: its own.
        key: the certificate's.
    """

    def __init__(self, certificate: x509.Certificate, key: Key) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(cls, folder: Path, *, now: datetime | None = None, life: timedelta = AUTHORITY_LIFE) -> Issuer:
        """Make an authority, and write `authority.pem` and `authority.key` into a folder.

        Raises:
            EnrolError: there is one.
        """
        now = now or datetime.now(UTC)
        key = new_key()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"facerelay {secrets.token_hex(4)}")])
        made = _certificate(name, name, key.public_key(), now - _EARLIER, now + life)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = made.add_extension(_usage(digital_signature=False, sign=True), critical=True)
        issuer = cls(made.sign(key, _HASH), key)
        files.create(folder / "authority.key", key_pem(key))
        files.create(folder / "authority.pem", pem(issuer.certificate))
        return issuer

    @classmethod
    def open(cls, folder: Path, *, now: datetime | None = None) -> Issuer:
        """Read the authority of a folder.

        Raises:
            KeyFileError: it is not there, or cannot be used.
            EnrolError: it has ended, or by the clock has not begun.
        """
        path, now = folder / "authority.pem", now or datetime.now(UTC)
        certificate = read_certificate(path)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin <= now < end:
            raise names.EnrolError(
                f"{path} is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, and by this clock it is"
                f" {now:%Y-%m-%d}: see to the clock, or begin anew with `facerelay enrol cloud` elsewhere"
            )
        return cls(certificate, read_key(folder / "authority.key"))

    def certify(
        self,
        owner: Owner,
        key: ec.EllipticCurvePublicKey,
        *,
        hosts: Sequence[str] = (),
        calls: bool = False,
        now: datetime | None = None,
        life: timedelta = LIFE,
    ) -> x509.Certificate:
        """Certify a machine's key, for two years or as long as the authority itself lasts.

        Args:
            owner: whose it is: the certificate's name is `<role>.<name>`.
            key: on P-256.
            hosts: names and addresses of a broker, which make it a server's certificate; a client's names its
                key.
            calls: whether that broker calls the other nodes of its cluster by the same certificate, as a
                client of theirs. It must be one that takes no broker for a device.
            now: when it begins, with a day's grace for clocks.
            life: how long it lasts.
        """
        now = now or datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names.common_name(owner))])
        until = min(now + life, self.certificate.not_valid_after_utc)
        made = _certificate(name, self.certificate.subject, key, now - _EARLIER, until)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(_usage(digital_signature=True, sign=False), critical=True)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
        if calls or not hosts:
            uses.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        made = made.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(authority, critical=False)
        others = [_general(host) for host in hosts] or [x509.UniformResourceIdentifier(key_uri(key))]
        made = made.add_extension(x509.SubjectAlternativeName(others), critical=False)
        return made.sign(self._key, _HASH)

    def revocations(self, revoked: Iterable[tuple[int, datetime]], *, now: datetime | None = None) -> bytes:
        """Return the list of revoked certificates in PEM; it lasts as long as the authority does.

        A list that ended would shut out everybody, at OpenSSL's hands.

        Args:
            revoked: serial number, and since when.
            now: when the list is made.
        """
        now = now or datetime.now(UTC)
        made = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        made = made.last_update(min(now - _EARLIER, now)).next_update(self.certificate.not_valid_after_utc)
        for serial, since in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
            made = made.add_revoked_certificate(one.build())
        return made.sign(self._key, _HASH).public_bytes(Encoding.PEM)


def new_key() -> Key:
    """Make a key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    """Return a key as its file holds it: PKCS #8, PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as its file holds it."""
    return certificate.public_bytes(Encoding.PEM)


def read_key(path: Path) -> Key:
    """Read a key from a PEM file.

    Raises:
        KeyFileError: it cannot be read, or is none of ours.
    """
    try:
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(65_536), password=None)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise KeyFileError(f"{path}: not a private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFileError(f"{path}: not a key on P-256")
    return key


def server_name(host: str) -> str:
    """Return the name in a broker's certificate, of its first host: `faces` of `faces.example.org`."""
    label = host if names.is_address(host) else host.split(".", maxsplit=1)[0]
    return names.as_slug(label) or "broker"


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a server's certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(one.value) for one in found if isinstance(one, x509.DNSName | x509.IPAddress)]


def fingerprint(certificate: x509.Certificate) -> str:
    """Return what people compare of a site authority: the first 16 bytes of its SHA-256, in groups."""
    digest = certificate.fingerprint(hashes.SHA256())[:16].hex()
    return " ".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, digital_signature: bool, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=digital_signature, key_cert_sign=sign, crl_sign=sign, **_NO_USAGE)


def _general(host: str) -> x509.GeneralName:
    if names.is_address(host):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)
