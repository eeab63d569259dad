"""Signatures by the keys of enrolled machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from facerelay.signing import (
    SIGNATURE_BYTES,
    Authority,
    KeyFileError,
    SignatureError,
    Signer,
    unsigned,
    verify_json,
)

TOPIC = "receipts/home/0123456789abcdef"


class Issuer:
    """A certificate authority for a test."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.path = self._write(name, self._sign(self._name, self._key.public_key(), ca=True))

    def signer(self, common_name: str) -> Signer:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        cert = self._write(common_name, self._sign(subject, key.public_key(), ca=False))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{common_name}.key"
        path.write_bytes(pem)
        return Signer(cert, path)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().issuer_name(self._name).subject_name(subject).public_key(key)
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return made.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def store(issuer: Issuer) -> Signer:
    return issuer.signer("store.main")


def test_a_signed_object_still_reads_as_it_did(store: Signer) -> None:
    body = b'{"v":1,"store":"main"}'
    signed = store.sign_json("receipts", TOPIC, body)
    assert json.loads(signed) | {"v": 1, "store": "main"} == json.loads(signed)
    again, key, signature = unsigned(signed)
    assert (again, key, len(signature)) == (body, store.public.id, SIGNATURE_BYTES)
    verify_json(store.public, "receipts", TOPIC, again, signature)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_bit_changed_is_refused(store: Signer, at: int, bit: int) -> None:
    signed = bytearray(store.sign_json("receipts", TOPIC, b'{"v":1,"store":"main"}'))
    signed[at % len(signed)] ^= 1 << bit
    assert not _is_by(store, bytes(signed))


def _is_by(store: Signer, signed: bytes) -> bool:
    try:
        body, key, signature = unsigned(signed)
        verify_json(store.public, "receipts", TOPIC, body, signature)
    except SignatureError:
        return False
    return key == store.public.id


def test_another_topic_or_kind_is_refused(store: Signer) -> None:
    body, _, signature = unsigned(store.sign_json("receipts", TOPIC, b'{"v":1}'))
    with pytest.raises(SignatureError, match="store main"):
        verify_json(store.public, "receipts", "receipts/away/0123456789abcdef", body, signature)
    with pytest.raises(SignatureError, match="store main"):
        verify_json(store.public, "hello", TOPIC, body, signature)


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"v":1}', b"[" * 500, b'","key":"","signature":""}' * 9])
def test_what_is_not_signed_says_so(payload: bytes) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        unsigned(payload)


def test_the_authority_admits_its_own_alone(issuer: Issuer, store: Signer, tmp_path: Path) -> None:
    known = Authority(issuer.path).admit(store.certificate)
    assert (known.id, str(known.owner)) == (store.public.id, "store main")
    stranger = Issuer(tmp_path).signer("store.main")
    with pytest.raises(SignatureError, match="did not issue"):
        Authority(issuer.path).admit(stranger.certificate)


@pytest.mark.parametrize("name", ["home", "root.home", "site.Home", "site.a.b", "site.", "site.a\n"])
def test_a_name_that_is_none_of_ours_is_refused(issuer: Issuer, name: str) -> None:
    with pytest.raises(KeyFileError, match="common name"):
        issuer.signer(name)


def test_a_key_of_another_bundle_is_named(issuer: Issuer, tmp_path: Path) -> None:
    issuer.signer("site.one")
    issuer.signer("site.two")
    folder = issuer.path.parent
    with pytest.raises(KeyFileError, match=r"site\.two\.key is not the key of"):
        Signer(folder / "site.one.pem", folder / "site.two.key")
    (tmp_path / "rubbish.pem").write_bytes(b"\0" * 100)
    with pytest.raises(KeyFileError, match=r"rubbish\.pem: not a certificate"):
        Signer(tmp_path / "rubbish.pem", folder / "site.one.key")
    with pytest.raises(KeyFileError, match=r"away\.pem: No such file"):
        Authority(tmp_path / "away.pem")
