"""Who said it: signatures by the keys of enrolled machines, over the exact bytes that travel.

A machine has one key, on the curve P-256, certified by the site authority under a common name
`<role>.<name>`: `site.door`, `store.main`. TLS uses it, and so do these signatures (ECDSA over SHA-256, FIPS
186-5, as r and s of 32 bytes each). Each begins with a domain of its own, so that no signature of one kind
passes for another.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from facerelay.face import SLUG
from facerelay.settings import ConfigError

SIGNATURE_BYTES: Final = 64
KEY_ID_BYTES: Final = 8

Domain = Literal["receipts", "hello", "sealed face", "proof"]
Role = Literal["site", "store", "gallery", "broker"]

_HALF: Final = 32
_MAX_PEM: Final = 65_536
_HASH: Final = ec.ECDSA(hashes.SHA256())
_NAME: Final = re.compile(rf"(site|store|gallery|broker)\.({SLUG})", re.ASCII)
_TAIL: Final = re.compile(rb',"key":"([0-9a-f]{16})","signature":"([A-Za-z0-9_-]{86})"\}')
_ODD: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What the library raises of certificates and keys that are malformed, each at another part of them."""

_TAIL_BYTES: Final = 8 + 16 + 15 + 86 + 2


class SignatureError(ValueError):
    """A signature that is missing, is not by whom it should be, or does not fit; the message says which."""


class KeyFileError(ConfigError):
    """A certificate or key that cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose key it is.

    Attributes:
        role: `site`, `store`, `gallery` or `broker`.
        name: the site's, or the store's.
        revoked: whether it was taken from its owner since.
    """

    role: Role
    name: str
    revoked: bool = False

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


class PublicKey:
    """A certified key of another machine.

    Attributes:
        id: 16 hex digits, of the sha256 of the key's SubjectPublicKeyInfo.
        uri: its name in the certificate.
        owner: whose it is.
    """

    def __init__(self, certificate: x509.Certificate, *, revoked: bool = False) -> None:
        try:
            key = certificate.public_key()
        except _ODD:
            raise SignatureError("a certificate whose key cannot be read") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SignatureError("a key that is not on P-256")
        self._key = key
        self.id = _id(key)
        self.uri = key_uri(key)
        self.owner = _owner(certificate, revoked=revoked)

    def verify(self, domain: Domain, message: bytes, signature: bytes) -> None:
        """See that this key signed a message.

        Raises:
            SignatureError: it did not.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureError("a signature of a wrong length")
        r, s = int.from_bytes(signature[:_HALF]), int.from_bytes(signature[_HALF:])
        try:
            self._key.verify(encode_dss_signature(r, s), _bytes(domain, message), _HASH)
        except InvalidSignature:
            raise SignatureError(f"the signature is not by the key of {self.owner}") from None


class Signer:
    """This machine's own key.

    Args:
        cert: PEM file of its certificate.
        key: PEM file of its key, without a password.

    Attributes:
        certificate: of the key.
        public: the key's public half.

    Raises:
        KeyFileError: a file cannot be read, or the two do not belong together.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self.certificate = read_certificate(cert)
        pem = _read(key)
        try:
            private = load_pem_private_key(pem, password=None)
        except _ODD as error:
            raise KeyFileError(f"{key}: not a private key in PEM without a password") from error
        try:
            self.public = PublicKey(self.certificate)
        except SignatureError as error:
            raise KeyFileError(f"{cert}: {error}: enrol this machine anew") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or _id(private.public_key()) != self.public.id:
            raise KeyFileError(f"{key} is not the key of {cert}: take both from one bundle")
        self._key = private

    def sign(self, domain: Domain, message: bytes) -> bytes:
        """Return a signature of 64 bytes."""
        r, s = decode_dss_signature(self._key.sign(_bytes(domain, message), _HASH))
        return r.to_bytes(_HALF) + s.to_bytes(_HALF)

    def sign_json(self, domain: Domain, topic: str, payload: bytes) -> bytes:
        """Return a JSON object with two more members at its end: the key's id, and a signature of the rest.

        Who does not know of them reads the object as it was. The topic is signed as well.
        """
        signature = base64.urlsafe_b64encode(self.sign(domain, _on(topic, payload))).rstrip(b"=")
        return payload[:-1] + b',"key":"%s","signature":"%s"}' % (self.public.id.encode(), signature)


def unsigned(payload: bytes) -> tuple[bytes, str, bytes]:
    """Return what `sign_json` was given, the id of the key, and the signature, which is not checked here.

    Raises:
        SignatureError: there is no signature at its end.
    """
    found = _TAIL.fullmatch(payload, max(0, len(payload) - _TAIL_BYTES))
    if found is None:
        raise SignatureError("it is not signed")
    return payload[: found.start()] + b"}", found[1].decode(), base64.urlsafe_b64decode(found[2] + b"==")


def verify_json(key: PublicKey, domain: Domain, topic: str, body: bytes, signature: bytes) -> None:
    """See that a key signed a JSON object for a topic; `body` and `signature` come from `unsigned`.

    Raises:
        SignatureError: it did not.
    """
    key.verify(domain, _on(topic, body), signature)


class Authority:
    """The site authority, as those know it who trust it: by its certificates alone.

    Args:
        path: PEM file; more than one certificate in it while the authority itself is renewed.

    Raises:
        KeyFileError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        pem = _read(path)
        try:
            self._certificates = x509.load_pem_x509_certificates(pem)
        except _ODD:
            raise KeyFileError(f"{path}: not a certificate in PEM") from None

    def admit(self, certificate: x509.Certificate, *, revoked: bool = False) -> PublicKey:
        """Return a machine's key if the authority certified it. Its dates are TLS's to judge.

        Raises:
            SignatureError: it did not.
        """
        for one in self._certificates:
            try:
                certificate.verify_directly_issued_by(one)
            except (*_ODD, InvalidSignature):
                continue
            return PublicKey(certificate, revoked=revoked)
        raise SignatureError("a certificate that the site authority did not issue")


def key_uri(key: ec.EllipticCurvePublicKey) -> str:
    """Return a key's own name: the URI in a client's certificate by which NATS tells one from another."""
    return f"urn:facerelay:key:{_id(key)}"


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate from a PEM file.

    Raises:
        KeyFileError: it cannot be read.
    """
    pem = _read(path)
    try:
        return x509.load_pem_x509_certificate(pem)
    except _ODD:
        raise KeyFileError(f"{path}: not a certificate in PEM") from None


def der_certificate(data: bytes) -> x509.Certificate:
    """Read a certificate that came over the wire.

    Raises:
        SignatureError: it is none.
    """
    try:
        return x509.load_der_x509_certificate(data)
    except _ODD:
        raise SignatureError("a certificate that cannot be read") from None


def _owner(certificate: x509.Certificate, *, revoked: bool) -> Owner:
    try:
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except _ODD:
        raise SignatureError("a certificate whose subject cannot be read") from None
    found = _NAME.fullmatch(str(names[0].value)) if len(names) == 1 else None
    if found is None:
        raise SignatureError("a certificate whose common name is not <role>.<name>")
    return Owner(cast("Role", found[1]), found[2], revoked)


def _id(key: ec.EllipticCurvePublicKey) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize()[:KEY_ID_BYTES].hex()


def _bytes(domain: Domain, message: bytes) -> bytes:
    return b"facerelay " + domain.encode() + b" 1\0" + message


def _on(topic: str, payload: bytes) -> bytes:
    return topic.encode() + b"\0" + payload


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PEM)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
