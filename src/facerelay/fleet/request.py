"""A certificate for a key that never leaves its device."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from facerelay.fleet import files
from facerelay.fleet.issuer import key_pem, new_key
from facerelay.fleet.names import EnrolError, common_name
from facerelay.signing import Owner

_MOST: Final = 8_192
"""Bytes of a request, at most: one of ours has 400."""


def ask(owner: Owner, *, key: Path, request: Path) -> None:
    """Make a key, and a request for its certificate.

    Args:
        owner: a name for people: the authority goes by its own.
        key: a new file for the key.
        request: a new file for the request.

    Raises:
        EnrolError: one of the files exists.
    """
    if request.exists():
        raise EnrolError(f"{request}: exists, and is not written over; move it away first")
    made = new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name(owner))])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(made, hashes.SHA256())
    files.folder(key.parent)
    files.create(key, key_pem(made))
    files.create(request, signed.public_bytes(Encoding.PEM))


def public_key_of(request: Path) -> ec.EllipticCurvePublicKey:
    """Return the key that a request is for, and nothing else of it: names and wishes are not looked at.

    Raises:
        EnrolError: not a request, not on P-256, or not signed by its own key.
    """
    try:
        with request.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise EnrolError(f"{request}: {error.strerror}") from None
    if len(data) > _MOST:
        raise EnrolError(f"{request}: more than {_MOST} bytes: not a request of `facerelay enrol request`")
    try:
        asked = x509.load_pem_x509_csr(data)
        key = asked.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise EnrolError(f"{request}: not a certificate request in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EnrolError(f"{request}: its key is not on P-256: make it with `facerelay enrol request`")
    try:
        own = asked.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        own = False
    if not own:
        raise EnrolError(f"{request}: not signed by its own key: it was changed on its way, carry it anew")
    return key
