"""A bundle: what a machine needs to take part, as one small tar archive that its owner carries there."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from facerelay import settings
from facerelay.fleet import files
from facerelay.fleet.issuer import Key, fingerprint, read_key
from facerelay.fleet.names import EnrolError, common_name
from facerelay.signing import (
    Authority,
    KeyFileError,
    Owner,
    PublicKey,
    SignatureError,
    Signer,
    read_certificate,
)

_AUTHORITY: Final = "trust/authority.pem"
_SIDES: Final = {"edge.toml": "site", "cloud.toml": "store"}
_MOST_FILE: Final = 65_536
_MOST: Final = 4 * _MOST_FILE + 16 * 512
"""Bytes of a bundle: its four files and their heads."""
_RECORD: Final = 10_240
_FILES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What one machine needs.

    Attributes:
        config: the name of its settings file: `edge.toml` or `cloud.toml`.
        settings: that file.
        authority: the site authority's certificate, PEM.
        certificate: the machine's own, PEM.
        key: the certificate's, PEM; None where the machine made it and keeps it.
    """

    config: str
    settings: bytes
    authority: bytes
    certificate: bytes
    key: bytes | None

    @property
    def role(self) -> str:
        """`site` or `store`: what its certificate and key are called."""
        return _SIDES[self.config]

    def files(self) -> dict[str, bytes]:
        """Return the files by their paths."""
        found = {
            self.config: self.settings,
            _AUTHORITY: self.authority,
            f"trust/{self.role}.pem": self.certificate,
        }
        return found if self.key is None else found | {f"trust/{self.role}.key": self.key}


def pack(bundle: Bundle, path: Path) -> None:
    """Write a bundle, mode 0600.

    Raises:
        EnrolError: the file exists.
    """
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in bundle.files().items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    files.create(path, written.getvalue())


def read_bundle(path: Path) -> Bundle:
    """Read a bundle that may be anything: nothing is written, and no name in it is believed.

    Raises:
        EnrolError: it is no bundle of ours; the message says why.
    """
    found = _members(path, _read(path))
    config = next((name for name in _SIDES if name in found), None)
    role = _SIDES.get(config or "", "")
    certificate = found.get(f"trust/{role}.pem")
    authority = found.get(_AUTHORITY)
    if config is None or certificate is None or authority is None:
        raise EnrolError(f"{path}: a file of the bundle is missing: carry it anew")
    key = found.pop(f"trust/{role}.key", None)
    if len(found) != _FILES - 1:
        raise EnrolError(f"{path}: holds files of two kinds of bundle: carry it anew")
    return Bundle(
        config=config, settings=found[config], authority=authority, certificate=certificate, key=key
    )


def join(bundle: Bundle, folder: Path, *, renew: bool = False) -> Owner:
    """Unpack a bundle into a folder: settings, and `trust/` with keys of mode 0600.

    Args:
        bundle: as it was read.
        folder: where the machine's settings lie, or shall lie.
        renew: put certificate and key in the place of the ones that are there, and leave the settings alone.

    Returns:
        Who this machine is now.

    Raises:
        EnrolError: a file is there already, or the parts of the bundle don't belong together.
        ConfigError: its settings cannot be.
        KeyFileError: a part cannot be read.
    """
    trust = folder / "trust"
    fresh = trust / f".joining-{os.getpid()}"
    files.folder(fresh)
    try:
        _stage(bundle, fresh, trust)
        owner = _see(bundle, fresh)
        if renew:
            _same_machine(owner, trust / f"{bundle.role}.pem")
            _same_authority(bundle, trust / "authority.pem")
        else:
            _free(bundle, folder)
        for path in sorted(fresh.iterdir()):
            if path.name == bundle.config:
                if not renew:
                    files.create(folder / path.name, path.read_bytes())
            else:
                path.replace(trust / path.name)
        files.sync(trust)
    finally:
        for path in fresh.iterdir():
            path.unlink()
        fresh.rmdir()
    (trust / f"{bundle.role}.key.new").unlink(missing_ok=True)
    return owner


def _stage(bundle: Bundle, fresh: Path, trust: Path) -> None:
    for name, data in bundle.files().items():
        files.create(fresh / Path(name).name, data)
    if bundle.key is not None:
        return
    try:
        wanted = PublicKey(_certificate(bundle)).id
    except SignatureError as error:
        raise EnrolError(f"the bundle's certificate cannot be used: {error}") from None
    for name in (f"{bundle.role}.key.new", f"{bundle.role}.key"):
        path = trust / name
        if path.exists() and _key_id(read_key(path), bundle) == wanted:
            files.create(fresh / f"{bundle.role}.key", path.read_bytes())
            return
    raise EnrolError(
        f"the bundle has no key, and none in {trust} belongs to it: join it in the folder where"
        " `facerelay enrol request` made the key"
    )


def _key_id(key: Key, bundle: Bundle) -> str | None:
    certificate = _certificate(bundle)
    return PublicKey(certificate).id if key.public_key() == certificate.public_key() else None


def _certificate(bundle: Bundle) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(bundle.certificate)
    except (ValueError, x509.InvalidVersion):
        raise EnrolError("the bundle's certificate cannot be read: carry it anew") from None


def _see(bundle: Bundle, fresh: Path) -> Owner:
    """See that certificate, key and authority belong together; return whose they are."""
    try:
        signer = Signer(fresh / f"{bundle.role}.pem", fresh / f"{bundle.role}.key")
        owner = Authority(fresh / "authority.pem").admit(signer.certificate).owner
    except (SignatureError, KeyFileError) as error:
        words = str(error).replace(f"{fresh}/", "")
        raise EnrolError(f"the parts of the bundle don't belong together: {words}") from None
    settings.load(fresh / bundle.config, environ={})
    if owner.role != bundle.role:
        raise EnrolError(f"the bundle's certificate is of {owner}, and it should be a {bundle.role}'s")
    return owner


def _same_machine(owner: Owner, path: Path) -> None:
    if not path.exists():
        raise EnrolError(f"{path} is not there, so there is nothing to renew: join without --renew")
    before = PublicKey(read_certificate(path)).owner
    if common_name(before) != common_name(owner):
        raise EnrolError(f"this machine is {before}, and the bundle is of {owner}: carry each to its own")


def _same_authority(bundle: Bundle, path: Path) -> None:
    ours, theirs = read_certificate(path), x509.load_pem_x509_certificate(bundle.authority)
    if theirs.public_key() != ours.public_key():
        raise EnrolError(
            f"the bundle is of another cloud: its authority is {fingerprint(theirs)}, and {path} is"
            f" {fingerprint(ours)}; to change over, move {bundle.config} and trust away, and join anew"
        )


def _free(bundle: Bundle, folder: Path) -> None:
    if (folder / "trust" / "authority.key").exists():
        raise EnrolError(f"{folder.absolute()} is a cloud's folder: join in another one, with --dir")
    for name in bundle.files():
        if os.path.lexists(folder / name):
            raise EnrolError(
                f"{folder / name}: exists, and is not written over; with a new key for this machine:"
                " `facerelay enrol join --renew`"
            )


def _read(path: Path) -> bytes:
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise EnrolError(f"{path}: not a file")
            data = file.read(_MOST + _RECORD + 1)
    except OSError as error:
        raise EnrolError(f"{path}: {error.strerror}") from None
    if len(data) > _MOST + _RECORD:
        raise EnrolError(f"{path}: too large for a bundle of `facerelay enrol edge`")
    return data


def _members(path: Path, data: bytes) -> dict[str, bytes]:
    known = {
        *_SIDES,
        _AUTHORITY,
        *(f"trust/{role}.{end}" for role in _SIDES.values() for end in ("pem", "key")),
    }
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if member.name not in known or member.name in found:
                    raise EnrolError(f"{path}: holds {member.name[:80]!a}, which no bundle of ours does")
                if (
                    member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE)
                    or not 0 < member.size <= _MOST_FILE
                ):
                    raise EnrolError(f"{path}: {member.name} in it is no plain, small file")
                source = archive.extractfile(member)
                found[member.name] = source.read(_MOST_FILE) if source else b""
                if len(found[member.name]) != member.size:
                    raise EnrolError(f"{path}: ends in the middle of {member.name}: carry it anew")
    except (tarfile.TarError, ValueError, EOFError, OverflowError, OSError) as error:
        if isinstance(error, EnrolError):
            raise
        raise EnrolError(f"{path}: not a bundle of `facerelay enrol edge`, or it was cut short") from None
    return found
