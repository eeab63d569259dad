"""Certificates, requests and bundles to begin with, by an authority of the test's own."""

from __future__ import annotations

import base64
import datetime as dt
import io
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_FROM: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_UNTIL: Final = dt.datetime(2046, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Made:
    """An authority, a machine that it admits, and machines that it should not."""

    authority: bytes
    store: bytes
    key: bytes
    request: bytes
    odd: list[bytes]


def version_4(der: bytes) -> bytes:
    """Return a certificate or request that says it is of a version that there is not."""
    at = der.index(b"\x02\x01")
    return der[: at + 2] + b"\x09" + der[at + 3 :]


def pem(der: bytes, kind: str = "CERTIFICATE") -> bytes:
    """Return DER as PEM."""
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n".encode()


def tar(files: dict[str, bytes]) -> bytes:
    """Return files as an archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@cache
def made() -> Made:
    """Return all of it, in DER but for the key."""
    authority, store = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def certify(name: str, key: Key) -> bytes:
        builder = x509.CertificateBuilder(_name("authority"), _name(name), key.public_key(), 7, _FROM, _UNTIL)
        return builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.DER)

    request = x509.CertificateSigningRequestBuilder().subject_name(_name("store.main"))
    odd: list[Key] = [
        rsa.generate_private_key(65_537, 2048), ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]  # fmt: skip
    good = certify("store.main", store)
    return Made(
        authority=certify("authority", authority),
        store=good,
        key=store.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        request=request.sign(store, hashes.SHA256()).public_bytes(Encoding.DER),
        odd=[
            *(certify("store.main", key) for key in odd), certify("no name of ours", store), version_4(good),
            good[:-20], b"", b"\x30\x80" + bytes(90),
        ],
    )  # fmt: skip


@cache
def authority_file(folder: Path) -> Path:
    """Return the file of the authority's certificate."""
    path = folder / "authority.pem"
    path.write_bytes(pem(made().authority))
    return path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
